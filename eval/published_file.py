"""One file of ``conf/paper``: a published table with what is known about it, checked as it is read."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from irope.errors import UserError
from irope.settings import hint

ORIGIN = "published"
PROTOCOLS = ("vbench", "vbench_long", "user_study", "other")
LIMITS = {
    "unit": (0.0, 1.0),
    "percent": (0.0, 100.0),
    "rating": (1.0, 5.0),
    "fps": (0.0, math.inf),
    "seconds": (0.0, math.inf),
    "score": (-math.inf, math.inf),  # a scale of the paper's own, kept as printed
}
"""Units a column may have and the values they allow."""

METHODS = {
    "∞-RoPE": "infinity_rope",
    "Self-Forcing": "rolling",
    "Rolling Forcing": "rolling_forcing",
    "CausVid": "causvid",
    "LongLive": "kv_recache",
    "SkyReels-V2": "skyreels_v2",
    "MAGI-1": "magi_1",
    "NOVA": "nova",
    "Pyramid Flow": "pyramid_flow",
    "Wan2.1-1.3B": "wan_2_1",
    "LTX-Video": "ltx_video",
}
"""Names in the papers -> our methods, hyphens and case aside; a table may add its own. The first five stand for the
cache policy: the papers' CausVid, Rolling Forcing and LongLive have weights of their own besides. The others are
systems."""

_HEAD = {"kind", "title", "source", "second_hand", "columns", "rows"}
_SCORES = {"generator", "protocol", "protocol_note", "n", "n_note", "uncertainty", "uncertainty_note", "keys"}
_OPTIONAL = {"claims": {"note"}, "scores": {"note", "seconds", "methods", "protocol_inferred"}}


class PublishedError(UserError, ValueError):
    """A file of published numbers is not valid, or nothing published answers the question."""


def plain(name: str) -> str:
    """A model's name without hyphens, spaces and case, for comparing."""
    return re.sub(r"[\s_-]", "", name).casefold()


@dataclass(frozen=True)
class PublishedTable:
    """One file of ``conf/paper``: where it comes from, what is known about it, and its rows as written there.

    ``columns`` maps a metric to its unit (``scores``), or a heading to the empty string (``claims``, text only).
    """

    name: str
    kind: str
    title: str
    source: str
    second_hand: bool
    columns: Mapping[str, str]
    rows: tuple[tuple[Any, ...], ...]
    note: str = ""
    generator: str = ""
    protocol: str = ""
    protocol_inferred: bool = False
    protocol_note: str = ""
    n: int | None = None
    n_note: str = ""
    uncertainty: str | None = None
    uncertainty_note: str = ""
    keys: tuple[str, ...] = ()
    seconds: float | None = None
    methods: Mapping[str, str] | None = None

    def method(self, model: str) -> str | None:
        """Our method of that name in the paper, if there is one."""
        known = {plain(name): method for name, method in {**METHODS, **(self.methods or {})}.items()}
        return known.get(plain(model))

    def footnote(self) -> str:
        """Where the numbers come from and how far they can be trusted, for the foot of a printed table."""
        inferred = " (inferred)" if self.protocol_inferred else ""
        parts = [f"{ORIGIN}: {self.source}", "second hand" if self.second_hand else ""]
        if self.kind == "scores":
            n = "unknown" if self.n is None else str(self.n)
            parts += [f"protocol {self.protocol}{inferred}: {self.protocol_note}", f"n {n}: {self.n_note}"]
            parts += [f"interval {self.uncertainty or 'unknown'}: {self.uncertainty_note}"]
        return "; ".join(part.rstrip(".") for part in [*parts, self.note] if part)

    def records(self) -> Iterator[dict[str, Any]]:
        """One record with the `FIELDS` per printed number; cells left empty give none."""
        for row in self.rows if self.kind == "scores" else ():
            key = dict(zip(self.keys, row, strict=False))
            model, seconds = key.pop("model"), key.pop("seconds", self.seconds)
            for (metric, unit), printed in zip(self.columns.items(), row[len(self.keys) :], strict=True):
                if printed is None:
                    continue
                yield {
                    "table": self.name,
                    "source": self.source,
                    "model": model,
                    "method": self.method(model),
                    "seconds": None if seconds is None else float(seconds),
                    "setting": ", ".join(f"{name}={str(value).lower()}" for name, value in key.items()),
                    "metric": metric,
                    # Rounded, because 80.81 / 100 is not the float nearest to 0.8081.
                    "value": round(printed / 100, 12) if unit == "percent" else float(printed),
                    "unit": "unit" if unit == "percent" else unit,
                    "printed": float(printed),
                    "protocol": self.protocol,
                    "protocol_inferred": self.protocol_inferred,
                    "n": self.n,
                    "second_hand": self.second_hand,
                    "note": self.note,
                    "origin": ORIGIN,
                }


def read_table(path: Path) -> PublishedTable:
    """Read and check one file.

    Raises:
        PublishedError: naming the file, the key or row at fault, and what is expected there.
    """
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise PublishedError(f"{path}: cannot be read as YAML: {' '.join(str(error).split())}") from error
    return _Reader(path, data).table()


@dataclass(frozen=True)
class _Reader:
    """Checks one file's data, with the file and the key in every message."""

    path: Path
    data: Any

    def fail(self, key: str, expected: str) -> PublishedError:
        return PublishedError(f"{self.path}: {key}: expected {expected}")

    def text(self, key: str, empty: bool = True) -> str:
        value = self.data.get(key)
        if value is None and empty:
            return ""
        if not isinstance(value, str) or not value.strip():
            raise self.fail(key, f"text, not {value!r}")
        return value.strip()

    def flag(self, key: str) -> bool:
        if not isinstance(value := self.data.get(key, False), bool):
            raise self.fail(key, f"true or false, not {value!r}")
        return value

    def table(self) -> PublishedTable:
        if not isinstance(self.data, dict):
            raise self.fail("the file", "a mapping with kind, title, source, columns, rows")
        kind = self.data.get("kind")
        if kind not in tuple(_OPTIONAL):
            raise self.fail("kind", f"scores or claims, not {kind!r}")
        required = _HEAD | (_SCORES if kind == "scores" else set())
        for key in self.data:
            if key not in required | _OPTIONAL[kind]:
                raise PublishedError(f"{self.path}: unknown key {key!r}{hint(str(key), required | _OPTIONAL[kind])}")
        for key in sorted(required - set(self.data)):
            raise self.fail(key, "this key to be there (null where unknown)")
        head = {
            "name": self.path.stem,
            "kind": kind,
            "title": self.text("title", empty=False),
            "source": self.source(),
            "second_hand": self.flag("second_hand"),
            "note": self.text("note"),
        }
        return self.claims(head) if kind == "claims" else self.scores(head)

    def source(self) -> str:
        """'∞-RoPE (arXiv 2511.20649 v3, Table 1)'."""
        source, keys = self.data["source"], ("paper", "arxiv", "version", "table")
        if not isinstance(source, dict) or set(source) != set(keys) or not isinstance(source["paper"], str):
            raise self.fail("source", f"a mapping with exactly {', '.join(keys)} (null where unknown)")
        arxiv = source["arxiv"]
        if arxiv is not None and not (isinstance(arxiv, str) and re.fullmatch(r"\d{4}\.\d{5}", arxiv)):
            raise self.fail("source.arxiv", f"a quoted number such as '2511.20649', not {arxiv!r}")
        place = [f"arXiv {arxiv} {source['version'] or ''}".strip()] if arxiv else []
        place += [str(source["table"])] if source["table"] else []
        return source["paper"] + (f" ({', '.join(place)})" if place else "")

    def claims(self, head: dict[str, Any]) -> PublishedTable:
        columns, rows = self.data["columns"], self.data["rows"]
        if not isinstance(columns, list) or not all(isinstance(column, str) for column in columns):
            raise self.fail("columns", "a list of headings")
        self.shape(rows, len(columns))
        for number, row in enumerate(rows, 1):
            if not all(isinstance(cell, str) for cell in row):
                raise self.fail(f"rows, row {number}", "text in every cell; quote numbers")
        return PublishedTable(**head, columns=dict.fromkeys(columns, ""), rows=tuple(map(tuple, rows)))

    def scores(self, head: dict[str, Any]) -> PublishedTable:
        columns, keys, methods = self.data["columns"], self.data["keys"], self.data.get("methods", {})
        if not isinstance(columns, dict) or not columns:
            raise self.fail("columns", "a mapping of metric to unit")
        for metric, unit in columns.items():
            if unit not in tuple(LIMITS):
                raise PublishedError(f"{self.path}: columns.{metric}: unknown unit {unit!r}{hint(str(unit), LIMITS)}")
        if not isinstance(keys, list) or keys[:1] != ["model"]:
            raise self.fail("keys", "a list of the leading fields of a row, model first")
        if ("seconds" in keys) == ("seconds" in self.data):
            raise self.fail("seconds", "either in keys or as one value of the table (null where unknown)")
        if not isinstance(methods, dict):
            raise self.fail("methods", "a mapping of model to method")
        if (protocol := self.data["protocol"]) not in PROTOCOLS:
            raise PublishedError(f"{self.path}: protocol {protocol!r}{hint(str(protocol), PROTOCOLS)}")
        if not self.seconds_like(seconds := self.data.get("seconds")):
            raise self.fail("seconds", f"a length above 0, or null where unknown, not {seconds!r}")
        n = self.data["n"]
        if n is not None and (not isinstance(n, int) or isinstance(n, bool) or n < 1):
            raise self.fail("n", f"a whole number from 1 up, or null, not {n!r}")
        self.cells(columns, keys)
        return PublishedTable(
            **head,
            columns=columns,
            rows=tuple(map(tuple, self.data["rows"])),
            generator=self.text("generator"),
            protocol=protocol,
            protocol_inferred=self.flag("protocol_inferred"),
            protocol_note=self.text("protocol_note", empty=False),
            n=n,
            n_note=self.text("n_note", empty=False),
            uncertainty=self.text("uncertainty") or None,
            uncertainty_note=self.text("uncertainty_note", empty=False),
            keys=tuple(keys),
            seconds=seconds,
            methods=methods,
        )

    @staticmethod
    def seconds_like(value: Any) -> bool:
        return value is None or (isinstance(value, (int, float)) and not isinstance(value, bool) and value > 0)

    def shape(self, rows: Any, width: int) -> None:
        if not isinstance(rows, list) or not rows:
            raise self.fail("rows", "a list with at least one row")
        for number, row in enumerate(rows, 1):
            if not isinstance(row, list) or len(row) != width:
                raise self.fail(f"rows, row {number}", f"{width} cells, not {row!r}")

    def cells(self, columns: Mapping[str, str], keys: list[str]) -> None:
        rows, seen = self.data["rows"], set()
        self.shape(rows, len(keys) + len(columns))
        for number, row in enumerate(rows, 1):
            where, key = f"rows, row {number} ({row[0]})", tuple(row[: len(keys)])
            if not isinstance(row[0], str) or any(isinstance(cell, (list, dict)) for cell in key):
                raise self.fail(where, "a model's name first, then plain values")
            if not self.seconds_like(dict(zip(keys, key, strict=True)).get("seconds")):
                raise self.fail(f"{where}, seconds", "a length above 0, or null where unknown")
            if key in seen:
                raise self.fail(where, f"{', '.join(keys)} that no other row has")
            seen.add(key)
            for (metric, unit), value in zip(columns.items(), row[len(keys) :], strict=True):
                low, high = LIMITS[unit]
                number_like = isinstance(value, (int, float)) and not isinstance(value, bool)
                if value is not None and not (number_like and low <= value <= high):
                    raise self.fail(
                        f"{where}, {metric}", f"null or a number in {low:g}..{high:g} ({unit}), not {value!r}"
                    )
