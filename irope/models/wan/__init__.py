"""Wan2.1-T2V-1.3B and the causal generators distilled from it, read from the files that their authors publish."""
