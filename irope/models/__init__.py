"""Generators: the embedded model, and the loader of the published checkpoints."""
