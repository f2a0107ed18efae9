"""Set once for every test: one torch thread a process, and the same Hypothesis examples on every run."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MKL_NUM_THREADS", "1")

from hypothesis import settings

settings.register_profile("irope", deadline=None, derandomize=True, max_examples=100)
settings.load_profile("irope")
