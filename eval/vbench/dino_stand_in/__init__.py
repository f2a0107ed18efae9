"""A hub folder with DINO's ViT-B/16, for random weights: tests and speed measurements where no weights are."""
