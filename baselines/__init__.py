"""Rival cache policies and other generators."""
