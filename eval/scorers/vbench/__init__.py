"""The dimensions of VBench, with the networks and weight files of its own package."""
