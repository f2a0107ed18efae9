"""What work will take: from what past work took where there is any, else from a model of the cost."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import median

from irope.history import Made, Scored

GIGABYTE = 1e9


@dataclass(frozen=True)
class Rates:
    """Cost of one model on one device. ``source`` says where the numbers come from.

    Attributes:
        latent: seconds to generate a latent frame and write it; ``frame``: to score a pixel frame.
        size: bytes a latent frame takes on disk.
        gpu: the numbers are of this GPU and say nothing of a machine without one; empty: of CPU cores.
    """

    latent: float
    frame: float
    size: float
    source: str
    gpu: str = ""


MODEL: dict[str, Rates] = {
    "tiny": Rates(0.025, 0.008, 27_000, "what two workers took on two CPU cores"),
    "wan_1_3b": Rates(0.38, 0.13, 125_000, "the published code at window 6 and VBench, not measured here", "H100"),
}
"""Used until something was measured.

The embedded model's are medians over `irope run delta_ablation` (80 videos of 40 s, AMD EPYC, 23 November 2026): slower
than its benchmarks, as two workers share a machine and write files. The 1.3B model's are added up from timings that
users and authors of the published code report: 1.5 s of an H100 for a second of video, 2.1 s for seven
dimensions of VBench as it ships; and 4 Mbit/s of H.264, which is a guess."""


def _unmeasured(model: str) -> Rates:
    """Of a model without any past work; without a ``source`` where nothing at all is known of it."""
    if (known := MODEL.get(model.partition("/")[0])) is not None:
        return known
    scoring = MODEL["wan_1_3b"]
    return Rates(0.0, scoring.frame, 0.0, "", scoring.gpu)


@dataclass(frozen=True)
class Work:
    """What is left of one video: latent frames (of a system: frames) to make, 0 if it is made, and frames to score."""

    model: str
    method: str
    latents: int
    frames: int


@dataclass(frozen=True)
class Estimate:
    """Sum over videos.

    Attributes:
        seconds: of one worker; ``size``: bytes on disk; ``longest``: seconds of the longest video, below which no
            number of workers gets.
        measured: videos of past work behind the numbers; 0: they come from the cost model, see ``source``.
        gpu: that the cost model's numbers are of, if any of them is.
    """

    seconds: float
    size: float
    longest: float
    measured: int
    source: str
    gpu: str = ""

    def wall(self, workers: int) -> float:
        """Seconds until ``workers`` workers have done it all."""
        return max(self.seconds / workers, self.longest)


def estimate(work: Iterable[Work], past: Iterable[Made | Scored], protocol: str, device: str | None = None) -> Estimate:
    """What ``work`` will take, by the medians of ``past`` work of the same model, and of the same method if any.

    Args:
        device: only past work on the device of this name counts; None: all of it.
    """
    latent: dict[tuple[str, str], list[float]] = defaultdict(list)
    size: dict[str, list[float]] = defaultdict(list)
    frame: dict[tuple[str, str], list[float]] = defaultdict(list)
    for record in past:
        if device is not None and record.device != device:
            continue
        if isinstance(record, Made) and record.latents:
            for method in (record.method, ""):
                latent[record.model, method].append(record.seconds / record.latents)
            size[record.model].append(record.size / record.latents)
        elif isinstance(record, Scored) and record.frames:
            frame[record.model, record.protocol].append(record.seconds / record.frames)
    total = bytes_ = longest = 0.0
    known, sources, unknown, gpus = 0, set[str](), set[str](), set[str]()
    medians: dict[tuple[object, ...], float] = {}

    def rate(samples: list[float] | None, key: tuple[object, ...], otherwise: float) -> float:
        if not samples:
            return otherwise
        if key not in medians:
            medians[key] = median(samples)
        return medians[key]

    for item in work:
        fallback = _unmeasured(item.model)
        of_method, of_model = latent.get((item.model, item.method)), latent.get((item.model, ""))
        scoring = frame.get((item.model, protocol))
        per_latent = rate(of_method or of_model, ("made", item.model, item.method), fallback.latent)
        per_frame = rate(scoring, ("scored", item.model), fallback.frame)
        seconds = item.latents * per_latent + item.frames * per_frame
        total, longest = total + seconds, max(longest, seconds)
        bytes_ += item.latents * rate(size.get(item.model), ("size", item.model), fallback.size)
        known = max(known, len(of_method or of_model or ()), len(scoring or ()))
        if (item.latents and not of_model) or (item.frames and not scoring):
            (sources if fallback.source else unknown).add(fallback.source or item.model)
            gpus.add(fallback.gpu)
    said = sorted(sources)
    if unknown:
        said.append(f"nothing is known of {', '.join(sorted(unknown))} before a first video, which counts as 0 s")
    found = " and ".join(sorted(filter(None, gpus)))
    return Estimate(total, bytes_, longest, 0 if said else known, "; ".join(said), found)


def duration(seconds: float) -> str:
    """``40 s``, ``12 min``, ``3.5 h``, ``2.1 days``."""
    for limit, unit, name in ((100, 1, "s"), (100 * 60, 60, "min"), (48 * 3600, 3600, "h")):
        if seconds < limit:
            return f"{seconds / unit:.{0 if unit < 3600 else 1}f} {name}"
    return f"{seconds / 86400:.1f} days"
