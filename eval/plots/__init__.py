"""Plots of an experiment: pure functions of `eval.results.Results`, each with the numbers that were drawn.

``from eval.plots.all import figures`` and ``from eval.plots.plot import save`` are what a caller needs.
"""
