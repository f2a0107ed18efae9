"""What the VBench scorers share: the installed package, its weights, its networks, and the package run as it is."""
