"""What a reader must know where the rows of a table were made by different generators: rates, sizes, whose they are."""

from __future__ import annotations

import pandas as pd


def makers_notes(frame: pd.DataFrame) -> list[str]:
    """Notes on what differs between the rows: frames per second, size of a frame, and which rows are other systems'."""
    notes = []
    if "fps" in frame and (rates := _by_row(frame, "fps")):
        said = ", ".join(f"{row} {' and '.join(f'{rate:g}' for rate in found)}" for row, found in rates.items())
        notes.append(f"frame rates differ: {said} fps; motion scores depend on them")
    if "picture" in frame and (sizes := _by_row(frame, "picture")):
        said = ", ".join(f"{row} {' and '.join(map(str, found))}" for row, found in sizes.items())
        notes.append(f"sizes of frames differ: {said}; scores of pictures depend on them")
    if "system" in frame:
        rows = frame[frame["system"].fillna(False).astype(bool)]["method"]
        if len(rows) and len(rows) < len(frame):
            names = ", ".join(dict.fromkeys(rows))
            notes.append(f"{names}: other systems with weights of their own; lengths are equal in seconds, to a frame")
    return notes


def _by_row(frame: pd.DataFrame, column: str) -> dict[str, list[object]]:
    """Row -> its values, where there is more than one value in the table."""
    known = frame[frame[column].notna()]
    if known[column].nunique() < 2:
        return {}
    found = known.groupby("method", sort=False)[column].unique()
    return {str(row): sorted(values) for row, values in found.items()}
