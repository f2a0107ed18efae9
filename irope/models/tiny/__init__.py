"""The embedded model: a causal Wan transformer small enough to ship, trained on `irope.world`."""
