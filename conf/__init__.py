"""The Hydra configuration, a package so that it is found wherever irope is installed."""
