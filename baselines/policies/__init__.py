"""One rival cache policy a file."""
