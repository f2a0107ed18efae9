"""What the demo shows at its end: contact sheets (PNG), a table (terminal, Markdown, CSV) and a page to open."""

from __future__ import annotations

import html
import json
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from eval.summary import FEWEST, cell
from irope.policy import CacheEvent
from irope.sheet import Mark, Row, filmstrip, save_sheet
from irope.video import read_frames

if TYPE_CHECKING:
    from irope.cli.demo import Part

SCORES = ("visible", "color", "background", "motion", "shape", "iou")
COLUMNS = 9
NOTE = (
    "Scores of the embedded model ({model}), read from the pixels by a tracker that knows its world: the share of frames "
    "(motion: of 5 s windows) that do what the prompt says. They are not VBench scores and say nothing about the 1.3B "
    "model. Mean over the n videos and, in brackets, {spread}. Speed is measured while {workers} processes share this "
    "machine and leaves out the writing of files; KV is what the cache's pages hold."
)


def write_report(out: Path, parts: Sequence[Part], rows: list[dict[str, Any]], seconds: float) -> None:
    """Write ``sheets/``, ``table.csv``, ``table.md`` and ``index.html`` into ``out`` and print the table."""
    frame = pd.DataFrame(rows)
    out.mkdir(parents=True, exist_ok=True)
    frame.to_csv(out / "table.csv", index=False)
    sheets = [sheet for part in parts for sheet in _sheets(out / "sheets", [r for r in rows if r["part"] == part.title])]
    tables = {part.title: summarize(frame[frame["part"] == part.title]) for part in parts}
    spread = f"the range (a 95 % bootstrap interval from {FEWEST} videos up)"
    note = NOTE.format(model=rows[0]["model"], spread=spread, workers="the demo's")
    markdown = "\n\n".join(f"### {title}\n\n{_markdown(table)}" for title, table in tables.items())
    (out / "table.md").write_text(f"{markdown}\n\n{note}\n")
    (out / "index.html").write_text(_page(tables, rows, sheets, note, out))
    console = Console(width=None)
    for title, table in tables.items():
        shown = Table(title=title, title_justify="left")
        for name in table.columns:
            shown.add_column(name, justify="left" if name == "method" else "right", no_wrap=True)
        for record in table.itertuples(index=False):
            shown.add_row(*(str(value) for value in record))
        console.print(shown)
    console.print(note, style="dim")
    console.print(f"\n{len(rows)} videos in {seconds:.0f} s. Open {out / 'index.html'}, or the sheets in {out / 'sheets'}/")


def summarize(rows: pd.DataFrame) -> pd.DataFrame:
    """One line a method, in the order of the rows: n, scores with their spread, speed, KV size."""
    lines = []
    for method, group in rows.groupby("method", sort=False):
        scores = {name: cell(group[name].tolist()) for name in SCORES}
        speed = f"{group['latent_frames_per_second'].median():.0f}"
        size = f"{group['kv_bytes'].max() / 2**10:.0f}"
        lines.append({"method": method, "n": len(group), **scores, "latent frames/s": speed, "KV KiB": size})
    return pd.DataFrame(lines)


def _markdown(table: pd.DataFrame) -> str:
    lines = [table.columns.tolist(), ["---"] * len(table.columns), *table.astype(str).to_numpy().tolist()]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _sheets(folder: Path, rows: list[dict[str, Any]]) -> list[Path]:
    """One contact sheet per prompt script: a strip per method, the same moments below each other."""
    folder.mkdir(parents=True, exist_ok=True)
    made = []
    for name, group in groupby(sorted(rows, key=lambda row: str(row["id"])), key=lambda row: str(row["id"])):
        videos = list(group)
        sidecars = [json.loads(Path(video["stem"] + ".json").read_text()) for video in videos]
        first = sidecars[0]
        length = first["pixel_frames"] / first["fps"]
        times = np.linspace(0, length - 1 / first["fps"], COLUMNS).tolist()
        strips = [
            Row(video["method"], _frames_at(Path(video["stem"]), sidecar, times), f"KV {video['kv_bytes'] / 2**10:.0f} KiB")
            for video, sidecar in zip(videos, sidecars, strict=True)
        ]
        marks = [
            Mark(
                segment["start_frame"] / first["fps"],
                CacheEvent.SCENE_CUT if segment["cut"] else CacheEvent.PROMPT_SWITCH,
                segment["prompt"],
            )
            for segment in first["segments"][1:]
        ]
        title = f"{first['segments'][0]['prompt']}  ({length:.0f} s, embedded model {first['model']})"
        path = folder / f"{length:.0f}s-{name}.png"
        save_sheet(filmstrip(strips, times, marks, title), path)
        made.append(path)
    return made


def _frames_at(stem: Path, sidecar: dict[str, Any], times: list[float]) -> list[NDArray[np.uint8] | None]:
    wanted = {min(sidecar["pixel_frames"] - 1, round(t * sidecar["fps"])) for t in times}
    found: dict[int, NDArray[np.uint8]] = {}
    number = 0
    for chunk in read_frames(stem.with_name(sidecar["files"]["frames"] or sidecar["files"]["mp4"]), chunk=64):
        found |= {number + i: frame.copy() for i, frame in enumerate(chunk) if number + i in wanted}
        number += len(chunk)
    return [found.get(min(sidecar["pixel_frames"] - 1, round(t * sidecar["fps"]))) for t in times]


def _page(
    tables: dict[str, pd.DataFrame], rows: list[dict[str, Any]], sheets: list[Path], note: str, out: Path
) -> str:
    parts = []
    for title, table in tables.items():
        parts.append(f"<h2>{html.escape(title)}</h2><div class=wide>{table.to_html(index=False, border=0)}</div>")
        for name, group in groupby(sorted((r for r in rows if r["part"] == title), key=lambda r: str(r["id"])), lambda r: r["id"]):
            videos = [
                f'<figure><video src="{html.escape(Path(row["stem"]).relative_to(out).as_posix())}.mp4" controls loop muted '
                f'preload=metadata></video><figcaption>{html.escape(row["method"])}</figcaption></figure>'
                for row in group
            ]
            sheet = next(path for path in sheets if path.stem.endswith(str(name)) and path.stem.startswith(title.split()[0]))
            parts.append(f"<h3>{html.escape(str(name))}</h3><div class=row>{''.join(videos)}</div>")
            parts.append(f'<details><summary>contact sheet</summary><img src="sheets/{html.escape(sheet.name)}"></details>')
    return _HTML.replace("@BODY@", "\n".join(parts)).replace("@NOTE@", html.escape(note))


_HTML = """<!doctype html><html lang=en><meta charset=utf-8><title>irope demo</title>
<meta name=viewport content="width=device-width, initial-scale=1">
<style>
:root { color-scheme: light dark }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1180px; margin: 2rem auto; padding: 0 1rem }
table { border-collapse: collapse; font-variant-numeric: tabular-nums }
th, td { padding: .3rem .7rem; text-align: right !important; border-bottom: 1px solid #8884; white-space: nowrap }
th:first-child, td:first-child { text-align: left !important }
.row { display: flex; flex-wrap: wrap; gap: .8rem } figure { margin: 0 } .wide { overflow-x: auto }
video { width: 200px; height: 200px; background: #0003; border-radius: 6px } figcaption { text-align: center }
img { max-width: 100% } .note { opacity: .75; max-width: 70ch }
</style>
<h1>irope demo: KV-cache policies on the embedded model</h1>
<p><button onclick="document.querySelectorAll('video').forEach(v => { v.currentTime = 0; v.play() })">play all</button></p>
@BODY@
<p class=note>@NOTE@</p></html>
"""
