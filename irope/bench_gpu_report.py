"""The table of a GPU measurement (`irope.bench_gpu`) as Markdown: a section a part. No torch in here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

Part = Mapping[str, Any]
ROUNDING = 0.05
"""Relative norm; 30 layers in bfloat16 on a CPU, with random weights, differ by .009 between the modes."""


def as_markdown(report: Mapping[str, Any]) -> str:
    """Everything that was measured so far, with the machine and what is inside the timing."""
    device = report["environment"]["device"]
    versions = [f"torch {device['torch']}"]
    versions += [f"{name} {device[key]}" for name, key in (("CUDA", "cuda"), ("cuDNN", "cudnn")) if key in device]
    versions.append("Triton" if report["triton"] else "no Triton")
    if report["not_compiled"]:
        versions.append(f"not compiled, as the compiler failed with {report['not_compiled']}")
    elif seconds := report["compile_seconds"]:
        versions.append(f"fast compiled in {seconds:.0f} s")
    else:
        versions.append("not compiled")
    lines = [
        f"# Speed on {device['name']}",
        "",
        f"{report['date'][:10]}; {', '.join(versions)}; {report['dtype']}; random weights; {report['seconds']:.0f} s.",
    ]
    if report["small"]:
        lines += ["", "**A rehearsal with a tiny model: these numbers say nothing about the 1.3B model.**"]
    clock = "wall" if device["type"] == "cuda" else "CPU"
    lines += [
        "",
        f"Median [p10, p90] of {clock} time a block of 3 latent frames (12 pixel frames); {report['inside']}.",
    ]
    lines += [f"Clocks {when}: {report[f'clocks_{when}']}." for when in ("before", "after") if report[f"clocks_{when}"]]
    for name, part in report["parts"].items():
        lines += ["", f"## {TITLES[name]}", ""]
        why = part.get("failed") or part.get("skipped")
        if why:
            lines.append(f"{'failed' if 'failed' in part else 'left out'}: {why}")
        else:
            lines += SECTIONS[name](part)
    return "\n".join(lines) + "\n"


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    lines = ["| " + " | ".join(head) + " |", "| --- |" + " ---: |" * (len(head) - 1)]
    return lines + ["| " + " | ".join(map(str, row)) + " |" for row in rows]


def spread(values: Mapping[str, float], digits: int = 1) -> str:
    return f"{values['median']:.{digits}f} [{values['p10']:.{digits}f}, {values['p90']:.{digits}f}]"


def percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.0f} %"


def gigabytes(size: float | None) -> str:
    return "–" if size is None else f"{size / 1e9:.2f} GB"


def _roof(part: Part) -> list[str]:
    kernels = list(next(iter(part["attention"].values())))
    head = ["window", "TFLOP a block", "ms at the measured rate", *(f"attention, {name}" for name in kernels)]
    rows = [
        (window, f"{part['block_tflop'][window]:.4g}", f"{ms:.4g}",
         *(f"{rate / 1e12:.4g} TFLOP/s" if rate else "–" for rate in part["attention"][window].values()))
        for window, ms in part["block_ms"].items()
    ]  # fmt: skip
    rate = f"Matrix products {part['matmul'] / 1e12:.4g} TFLOP/s, copies {part['copy'] / 1e12:.3g} TB/s."
    return [rate, "", *table(head, rows)]


def _counts(part: Part) -> list[str]:
    head = ["mode", "operations a layer", "device reads a layer", "elementwise GB a pass"]
    rows = [
        (mode, *(" / ".join(map(str, found[key])) for key in ("operations", "reads")),
         " / ".join(f"{value:.3g}" for value in found["elementwise_gb"]))
        for mode, found in part["layer"].items()
    ]  # fmt: skip
    lines = ["Counted, not timed: any pass / the one where the window evicts.", "", *table(head, rows)]
    if "decoder" in part:
        head = ["decoder", "operations a latent frame", "elementwise GB"]
        ways = [(way, each["operations"], f"{each['elementwise_gb']:.3g}") for way, each in part["decoder"].items()]
        lines += ["", *table(head, ways)]
    return lines


def _denoise(part: Part) -> list[str]:
    head = ["window", "mode", "ms a block", "denoise FPS", "of the roof", "speed-up", "cache", "n", "warm-up, s"]
    rows = []
    for window, found in part.items():
        if not window.isdigit():
            continue
        rows += [
            (window, mode, spread(speed["block_ms"]), f"{speed['fps']:.1f}", percent(speed["roof_share"]),
             f"{speed['speed_up']:.2f}x", gigabytes(speed["cache_bytes"]), speed["blocks"], f"{speed['warm_up_s']:.1f}")
            for mode, speed in found.items()
        ]  # fmt: skip
    verdict = "rounding" if part["difference"] < ROUNDING else "**more than rounding: fast is wrong here**"
    apart = f"The clean latents of the two differ by {100 * part['difference']:.2g} % (relative norm): {verdict}."
    return [*table(head, rows), "", apart]


def _switch(part: Part) -> list[str]:
    clock = part["clock"]
    head = ["method", "R", f"cache work, ms ({clock})", "plan on the host, µs", "the same after 1 h", "cache bytes",
            "new prompt, ms", "n"]  # fmt: skip
    rows = [
        (row["method"], row["window"], spread(row["cache_ms"][clock], 2), spread(row["event_us"]["5 s"]),
         f"{row['event_us']['1 h']['median']:.1f}", f"{row['bytes_written'] + row['bytes_moved']:,}",
         f"{row['prompt_ms'][clock]['median']:.2f}", row["n"])
        for row in part["rows"]
    ]  # fmt: skip
    lines = table(head, rows)
    if (fit := part["fit"]) is not None:
        lines += ["", f"Recache: {fit['a_ms']:.4g} R {fit['b_ms']:+.3g} R² ms, R² of the fit {fit['r2']:.4f}."]
    largest = max((row["window"] for row in part["rows"]), default=0)
    pair = {row["method"]: row for row in part["rows"] if row["window"] == min(21, largest)}
    if len(pair) == 2:
        cost, event = (
            pair["recache"]["cache_ms"][clock]["median"], pair["flush"]["event_us"]["5 s"]["median"]
        )  # fmt: skip
        lines.append(f"At R = {min(21, largest)} a recache costs {1e3 * cost / event:,.0f} times what a flush costs.")
    return lines


def _vae(part: Part) -> list[str]:
    head = ["decoder", "ms a block", "ms a latent frame", "differs by, of 255", "warm-up, s"]
    rows = [
        (name, f"failed: {found['failed']}", "–", "–", "–")
        if "failed" in found
        else (
            name,
            spread(found["block_ms"]),
            f"{found['latent_ms']:.1f}",
            f"{found['difference']:.2f}",
            f"{found['warm_up_s']:.1f}",
        )
        for name, found in part["ladder"].items()
    ]
    whole = part["end_to_end"]
    end = (
        f"End to end, window {whole['window']}, mode fast with the fastest decoder: {whole['block_ms']:.1f} ms a block "
        f"(mean of {whole['blocks']}), **{whole['fps']:.1f} FPS**; peak memory {gigabytes(whole['peak_bytes'])}."
    )
    return [*table(head, rows), "", end]


def _long(part: Part) -> list[str]:
    peaks = ", ".join(f"block {block}: {'–' if size is None else size}" for block, size in part["peak_bytes"].items())
    line = (
        f"Window {part['window']}, {part['blocks']} blocks after the window is full: {spread(part['block_ms'])} ms a "
        f"block; drift {part['drift_percent']:+.2f} % (Theil-Sen slope x blocks over the median), last tenth over "
        f"first {part['last_tenth_over_first']:.3f}. Peak bytes at {peaks}."
    )
    return [line]


def _fp8(part: Part) -> list[str]:
    head = ["window", "linear layers", "ms a block", "denoise FPS", "n", "warm-up, s"]
    rows = [
        (window, mode, spread(speed["block_ms"]), f"{speed['fps']:.1f}", speed["blocks"], f"{speed['warm_up_s']:.1f}")
        for window, found in part.items()
        if window.isdigit()
        for mode, speed in found.items()
    ]
    error = f"An approximation: the first clean latents differ by {100 * part['relative_error']:.2g} % (relative norm)."
    return [*table(head, rows), "", error]


def _batch(part: Part) -> list[str]:
    line = (
        f"{part['videos']} videos in lock step, window {part['window']}: {spread(part['block_ms'])} ms a block and "
        f"video, {part['fps']:.1f} FPS in sum, {percent(part['roof_share'])} of the roof; peak memory "
        f"{gigabytes(part['peak_bytes'])}; n = {part['blocks']}."
    )
    return [line]


def _profile(part: Part) -> list[str]:
    modes = [mode for mode in ("reference", "fast") if mode in part]
    kinds = list(dict.fromkeys(kind for mode in modes for kind in part[mode]["kinds"]))
    none = {"ms": 0.0, "launches": 0}
    rows = [
        [kind, *(f"{found['ms']:.1f} ({found['launches']:,})" for mode in modes
                 for found in [part[mode]["kinds"].get(kind, none)])]
        for kind in kinds
    ]  # fmt: skip
    rows.append(["in all", *(f"{part[mode]['busy_ms']:.1f} ({part[mode]['launches']:,})" for mode in modes)])
    lines = [f"One block at window {part['window']}: ms of kernels (launches).", ""]
    lines += [*table(["kernels", *modes], rows), "", "Longest of fast:", ""]
    longest = [(f"`{each['kernel']}`", f"{each['ms']:.1f}", each["launches"]) for each in part["fast"]["longest"]]
    return lines + table(["kernel", "ms", "launches"], longest)


TITLES = {
    "roof": "What the device can do",
    "counts": "What a layer asks for",
    "denoise": "Denoising: the published order of operations against fast",
    "switch": "A prompt switch: KV Flush against KV Recache",
    "vae": "Decoding, and end to end",
    "long": "Constant cost",
    "fp8": "FP8 linear layers",
    "batch": "Several videos at once",
    "profile": "Where the time goes",
}
SECTIONS: dict[str, Callable[[Part], list[str]]] = {
    "roof": _roof, "counts": _counts, "denoise": _denoise, "switch": _switch, "vae": _vae, "long": _long, "fp8": _fp8,
    "batch": _batch, "profile": _profile,
}  # fmt: skip
