"""What the demo shows at its end: contact sheets (PNG), a table (terminal, Markdown, CSV) and a page to open."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, FileSystemLoader
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from eval.summary import FEWEST, cell
from irope.policy import CacheEvent
from irope.sheet import Mark, Row, filmstrip, save_sheet

SCORES = ("visible", "color", "background", "motion", "shape", "iou")
TITLES = {"color": "colour", "background": "backgr."}
NOTE = (
    "Scores of the embedded model ({model}), read from the pixels by a tracker that knows its world: the share of "
    "frames (motion: of 5 s windows) that do what the prompt says. They are not VBench scores and say nothing about "
    "the 1.3B model. Mean over n videos; in brackets the range (a 95 % bootstrap interval from {fewest} videos up). "
    "lat/s: latent frames per second, the median while the demo's processes share this machine, without the writing of "
    "files. KV: what the cache's pages hold."
)

Video = dict[str, Any]


def write_report(out: Path, rows: list[Video], seconds: float) -> None:
    """Write ``sheets/``, ``table.csv``, ``table.md`` and ``index.html`` into ``out`` and print the table.

    A row is what `irope.cli.demo.make` returns; rows of one ``part`` share a table.
    """
    (out / "sheets").mkdir(parents=True, exist_ok=True)
    frame = pd.DataFrame(rows)
    frame.drop(columns=["times", "frames"]).to_csv(out / "table.csv", index=False)
    tables = {str(title): summarize(group) for title, group in frame.groupby("part", sort=False)}
    note = NOTE.format(model=rows[0]["model"], fewest=FEWEST)
    markdown = "\n\n".join(f"### {title}\n\n{_markdown(table)}" for title, table in tables.items())
    (out / "table.md").write_text(f"{markdown}\n\n{note}\n", encoding="utf-8")
    shown = [
        {
            "title": title,
            "columns": table.columns.tolist(),
            "lines": table.to_numpy().tolist(),
            "scripts": list(_scripts(out, [row for row in rows if row["part"] == title])),
        }
        for title, table in tables.items()
    ]
    page = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True).get_template("demo.html.j2")
    (out / "index.html").write_text(page.render(parts=shown, note=note), encoding="utf-8")
    console = Console()
    for title, table in tables.items():
        drawn = Table(title=title, title_justify="left", padding=(0, 1, 0, 0), pad_edge=False, box=SIMPLE_HEAD)
        for number, name in enumerate(table.columns):
            drawn.add_column(name, justify="left" if number == 0 else "right", no_wrap=True)
        for line in table.to_numpy().tolist():
            drawn.add_row(*(str(value).split(" (")[0] for value in line))  # means alone fit a terminal
        console.print(drawn)
    console.print(note, style="dim")
    console.print(f"\n{len(rows)} videos in {seconds:.0f} s; the brackets are in {out / 'table.md'}")
    console.print(f"Open {out / 'index.html'}: the videos and their contact sheets")


def summarize(rows: pd.DataFrame) -> pd.DataFrame:
    """One line a method, in the order of the rows: n, scores with their spread, latent frames/s, KV size."""
    lines = []
    for method, group in rows.groupby("method", sort=False):
        scores = {TITLES.get(name, name): cell(group[name].tolist()) for name in SCORES}
        speed = f"{group['latent_frames_per_second'].median():.0f}"
        size = f"{group['kv_bytes'].max() / 2**10:.0f}"
        lines.append({"method": method, "n": len(group), **scores, "lat/s": speed, "KV KiB": size})
    return pd.DataFrame(lines)


def _markdown(table: pd.DataFrame) -> str:
    lines = [table.columns.tolist(), ["---"] * len(table.columns), *table.astype(str).to_numpy().tolist()]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _scripts(out: Path, rows: list[Video]) -> Iterator[dict[str, Any]]:
    """Per prompt script: its videos, and a contact sheet with a strip per method at the same moments."""
    for name, group in groupby(sorted(rows, key=lambda row: str(row["id"])), key=lambda row: str(row["id"])):
        videos = list(group)
        sidecars = [json.loads(Path(video["stem"] + ".json").read_text(encoding="utf-8")) for video in videos]
        length = sidecars[0]["pixel_frames"] / sidecars[0]["fps"]
        sheet = out / "sheets" / f"{length:.0f}s-{name}.png"
        save_sheet(_sheet(videos, sidecars, length), sheet)
        yield {
            "id": name,
            "segments": [segment["prompt"] for segment in sidecars[0]["segments"]],
            "videos": [
                {"method": video["method"], "src": f"{Path(video['stem']).relative_to(out).as_posix()}.mp4"}
                for video in videos
            ],
            "sheet": f"sheets/{sheet.name}",
        }


def _sheet(videos: list[Video], sidecars: list[dict[str, Any]], length: float) -> Any:
    first = sidecars[0]
    strips = [Row(video["method"], video["frames"], f"KV {video['kv_bytes'] / 2**10:.0f} KiB") for video in videos]
    marks = [
        Mark(
            segment["start_frame"] / first["fps"],
            CacheEvent.SCENE_CUT if segment["cut"] else CacheEvent.PROMPT_SWITCH,
            segment["prompt"],
        )
        for segment in first["segments"][1:]
    ]
    title = f"{first['segments'][0]['prompt']}  ({length:.0f} s, embedded model {first['model']})"
    return filmstrip(strips, videos[0]["times"], marks, title)
