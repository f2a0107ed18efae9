"""Scores that need no download: for the embedded model, and for a first look at any video. They are not VBench."""
