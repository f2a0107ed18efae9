r"""Tables as LaTeX: booktabs, caption and notes; the fragment needs ``\usepackage{booktabs}`` and nothing else.

An interval stands below its number as [lo, hi]: it is not symmetric, so ± or one small number would misstate it.
"""

from __future__ import annotations

import unicodedata

from eval.stats import Interval
from eval.table_grid import Entry, Grid, Line, legend

_DASHES = "\ue000"
_SPECIAL = {
    _DASHES: "-{}-",  # an option's two dashes, which LaTeX would join
    "\\": r"\textbackslash{}",
    **{char: f"\\{char}" for char in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"$<$",
    ">": r"$>$",
    "∞": r"$\infty$",
    "Δ": r"$\Delta$",
    "×": r"$\times$",
    "−": r"$-$",
    "±": r"$\pm$",
    "≤": r"$\leq$",
    "≥": r"$\geq$",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
    "→": r"$\rightarrow$",
    "°": r"$^\circ$",
    "†": r"$^\dagger$",
    "–": "--",
    "“": "``",
    "”": "''",
}
_PAPER_METHODS = {"infinity_rope": "∞-RoPE"}

_DOCUMENT = r"""\documentclass{article}
\usepackage[utf8]{inputenc}
\usepackage[T1]{fontenc}
\usepackage[a3paper,landscape,margin=1cm]{geometry}
\usepackage{booktabs}
\pagestyle{empty}
\begin{document}
%s
\end{document}
"""


def escaped(text: str) -> str:
    """Text as LaTeX prints it, accents taken off what pdfLaTeX does not know."""
    known = "".join(_SPECIAL.get(char, char) for char in text.replace("--", _DASHES))
    return unicodedata.normalize("NFKD", known).encode("ascii", "ignore").decode()


def as_latex(grid: Grid, name: str, digits: int = 3) -> str:
    r"""A ``table`` with the label ``tab:NAME``."""
    width = len(grid.head) + len(grid.columns)
    left = len(grid.head) - 1 if grid.ours else len(grid.head)
    lines = [
        r"\begin{table}[t]",
        r"\centering\small\setlength{\tabcolsep}{4pt}",
        rf"\caption{{{escaped(grid.caption)}}}",
        rf"\label{{tab:{''.join(c for c in name if c.isascii() and (c.isalnum() or c in '-:.'))}}}",
        rf"\begin{{tabular}}{{{'l' * left}{'r' * (len(grid.head) - left)}{'c' * len(grid.columns)}}}",
        r"\toprule",
        _row([*grid.head, *grid.columns]),
    ]
    for length, group in grid.groups:
        lines.append(r"\midrule")
        if length and grid.ours:
            lines += [rf"\multicolumn{{{width}}}{{l}}{{\textbf{{{escaped(length)}}}}} \\", r"\midrule"]
        blocks = any(line.kind != group[0].kind for line in group)
        for number, line in enumerate(group):
            lines += [r"\addlinespace"] if blocks and number and line.kind == "ours" else []
            lines += _lines(line, digits)
    lines += [r"\bottomrule", r"\end{tabular}"]
    notes = [*grid.notes, *legend(grid, "bold", "[low, high]", "low to high")]
    lines += [r"\par\smallskip", r"\begin{minipage}{\linewidth}\footnotesize\raggedright"]
    lines += [escaped(note) + r"\par" for note in notes]
    return "\n".join([*lines, r"\end{minipage}", r"\end{table}"])


def standalone(*tables: str) -> str:
    """A document with nothing but these tables."""
    return _DOCUMENT % "\n\n".join(tables)


def _row(texts: list[str]) -> str:
    return " & ".join(map(escaped, texts)) + r" \\"


def _lines(line: Line, digits: int) -> list[str]:
    """The numbers, and where there are any their intervals in a line of their own."""
    head = [_PAPER_METHODS.get(text, text) if i == 0 else text for i, text in enumerate(line.head)]
    texts = [escaped(entry.text.replace("-", "−")) for entry in line.entries]
    numbers = [rf"\textbf{{{text}}}" if e.best else text for text, e in zip(texts, line.entries, strict=True)]
    made = [" & ".join([*map(escaped, head), *numbers]) + r" \\"]
    below = [_below(entry, digits) for entry in line.entries]
    if any(below):
        cells = [rf"{{\scriptsize {text}}}" if text else "" for text in below]
        made.append(" & ".join([*([""] * len(head)), *cells]) + r" \\")
    return made


def _below(entry: Entry, digits: int) -> str:
    return " ".join(part for part in (_bounds(entry.bounds, digits), escaped(entry.detail)) if part)


def _bounds(interval: Interval | None, digits: int) -> str:
    if interval is None or not (interval.is_interval or interval.method == "range"):
        return ""
    low, high = (f"{x:.{digits}f}" for x in (interval.low, interval.high))
    if interval.is_interval:
        return escaped(f"[{low}, {high}]".replace("-", "−"))
    return escaped(f"{low} to {high}".replace("-", "−"))
