"""Other video generators, one a file, behind the contract of `irope.systems`."""
