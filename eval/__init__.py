"""Scoring, statistics, tables and plots. Reads what a run wrote, never writes into it."""
