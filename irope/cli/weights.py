"""Which published weights are on this disk, which methods need them, and the command that downloads what is missing.

    irope weights                          everything, in the folder sys.weights ($IROPE_WEIGHTS, by default ./weights)
    irope weights method=causvid           what one method needs
    irope weights self_forcing_dmd --check one of them: are names and shapes those of the model?
    irope weights sys.weights=/data/weights

Nothing is ever downloaded. Exit code 1: one that was named, or that the method needs, is missing or does not fit.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from irope.models.wan.catalogue import Published
    from irope.models.wan.presence import Presence

TITLES = {
    "generator": "generators, one for a run",
    "lora": "LoRAs, merged into their generator",
    "text_encoder": "text encoders, one is needed for every method",
    "tokenizer": "tokenizers, one is needed for every method",
    "vae": "VAEs, one is needed for every method",
}


def run(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="irope weights", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="hold names and shapes to the model; reads headers only")
    parser.add_argument("--digest", action="store_true", help="compute SHA-256 where it is not known (seconds a file)")
    parser.add_argument("--json", action="store_true", help="as JSON")
    parser.add_argument("words", nargs="*", metavar="NAME|key=value", help="names of weights, Hydra overrides")
    options = parser.parse_intermixed_args(arguments)
    from irope.config import Choice, load
    from irope.models.wan.catalogue import catalogue, entry
    from irope.models.wan.presence import look

    names = [word for word in options.words if "=" not in word]
    overrides = [word for word in options.words if "=" in word]
    config = load(overrides)
    root = Path(str(Choice(config, "sys.weights").value()))
    method = next((word.partition("=")[2] for word in overrides if word.startswith(("method=", "policy="))), None)
    wanted = [entry(name) for name in names] + (needed(method, root) if method else [])
    found = [look(one, root, options.digest) for one in wanted or catalogue().values()]
    checked = {one.entry.name: _checked(one, root) for one in found if options.check and one.status == "present"}
    if options.json:
        print(json.dumps([_row(one, root, checked) for one in found], indent=1, ensure_ascii=False))
    else:
        for line in _lines(found, root, checked, bool(wanted)):
            print(line)
    failed = any(one.status != "present" for one in found) if wanted else False
    return int(failed or any(not good for good, _ in checked.values()))


def needed(method: str, root: Path) -> list[Published]:
    """What a method needs: its generator, a LoRA if it has one, and of every other kind the one to have.

    Raises:
        UserError: the method is a system with weights of its own.
    """
    from irope.errors import UserError
    from irope.models.wan.catalogue import generator_of, of_kind, parts_of

    generator = generator_of(method)
    if generator is None:
        raise UserError(
            f"method={method} has weights of its own, not those of the 1.3B generator; see irope list methods"
        )
    parts = list(parts_of(generator))
    for kind in ("text_encoder", "tokenizer", "vae"):
        choices = list(of_kind(kind))
        parts.append(next((one for one in choices if one.path(root).exists()), choices[0]))
    return parts


def _checked(found: Presence, root: Path) -> tuple[bool, str]:
    from irope.errors import WeightsError
    from irope.models.wan.presence import check

    try:
        return True, check(found.entry, root)
    except WeightsError as error:
        return False, str(error)


def _row(found: Presence, root: Path, checked: dict[str, tuple[bool, str]]) -> dict[str, Any]:
    one = found.entry
    return {
        "name": one.name,
        "kind": one.kind,
        "status": found.status,
        "path": str(found.path),
        "files": [str(file) for file in found.files],
        "bytes": found.size or None,
        "published_bytes": one.size,
        "sha256": found.digest or None,
        "licence": one.licence,
        "methods": list(_methods(one)),
        "problem": found.problem or None,
        "check": checked[one.name][1] if one.name in checked else None,
        "fits": checked[one.name][0] if one.name in checked else None,
        "download": one.command(root),
        "note": one.note or None,
    }


def _methods(one: Published) -> tuple[str, ...]:
    """Methods whose default weights these are; none for what every method needs."""
    from irope.models.wan.catalogue import methods_with, of_kind

    if one.kind == "generator":
        return methods_with(one.name)
    return tuple(name for base in of_kind("generator") if base.lora == one.name for name in methods_with(base.name))


def _lines(found: Sequence[Presence], root: Path, checked: dict[str, tuple[bool, str]], chosen: bool) -> Iterable[str]:
    kind, indent = "", " " * 12
    for one in found:
        entry = one.entry
        if not chosen and entry.kind != kind:
            yield ("\n" if kind else "") + TITLES[entry.kind]
            kind = entry.kind
        yield f"{one.status:<12}{entry.name:<26}{_size(one)}, {_format(one)}, {entry.licence}"
        if methods := _methods(entry):
            yield f"{indent}for method={', '.join(methods)}"
        if chosen or one.status == "present":
            yield f"{indent}{one.path}"
        if one.digest:
            yield f"{indent}sha256 {one.digest}"
        for text in (one.problem, entry.note if chosen else ""):
            if text:
                yield f"{indent}{text}"
        if entry.kind == "generator" and chosen:
            yield f"{indent}{_sampling(entry)}"
        if entry.name in checked:
            good, text = checked[entry.name]
            yield f"{indent}{'fits' if good else 'does not fit'}: {text}"
        if one.status != "present":
            yield f"{indent}{entry.command(root)}"
    there = sum(one.status == "present" for one in found)
    yield f"\n{there} of {len(found)} are there, below {root}/ (sys.weights, $IROPE_WEIGHTS)."
    if there < len(found):
        yield "irope downloads nothing: the commands above do; hf comes with pip install huggingface_hub."


def _size(found: Presence) -> str:
    size = found.size or found.entry.size
    if not size:
        return "size not seen"
    return f"{size / 1e9:.3g} GB" if size >= 1e9 else f"{size / 1e6:.3g} MB"


def _format(found: Presence) -> str:
    name = found.entry.file
    if not name.endswith("/"):
        return Path(name).suffix
    return f"folder of {len(found.files)} file{'s' * (len(found.files) > 1)}" if found.files else "folder"


def _sampling(entry: Published) -> str:
    """How a generator is sampled, as its authors do."""
    copy = {True: "generator_ema", False: "generator", None: "the EMA copy if it holds one"}[entry.ema]
    return (
        f"steps {', '.join(map(str, entry.steps))}, shift {entry.shift:g}, {'warped' if entry.warp else 'not warped'}, "
        f"blocks of {entry.block}; takes {copy}"
    )
