"""DINO's own hub folder has a file of this name; `hubconf` holds all that is needed here."""
