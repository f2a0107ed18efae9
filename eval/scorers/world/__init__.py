"""Scores of videos of the embedded world, from its exact tracker."""
