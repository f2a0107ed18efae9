"""Set once for every test: one torch thread a process, and the same Hypothesis examples on every run."""

import os
import sys
from collections.abc import Iterator

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MKL_NUM_THREADS", "1")

import pytest
from hypothesis import settings

settings.register_profile("irope", deadline=None, derandomize=True, max_examples=100)
settings.load_profile("irope")


@pytest.fixture(autouse=True)
def _one_thread_again() -> Iterator[None]:
    """A verb that ran in this process may have set more, and all tests after it would be slower."""
    yield
    torch = sys.modules.get("torch")
    if torch is not None and torch.get_num_threads() != 1:
        torch.set_num_threads(1)
