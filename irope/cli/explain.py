"""Which frames a method keeps and at which temporal index, block by block. Needs no model and no torch.

irope explain method=infinity_rope duration=60
irope explain method=kv_recache --svg recache.svg
irope explain --diff infinity_rope rolling_sink1 duration=60
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from irope.errors import UserError

if TYPE_CHECKING:
    from irope.explain import Row

HORIZON = 21
"""f_limit of Wan2.1 and of the embedded model, in latent frames (5 s)."""


def run(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="irope explain", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--diff", nargs=2, metavar=("A", "B"), help="compare two methods")
    parser.add_argument("--svg", type=Path, metavar="FILE", help="also draw the timeline")
    parser.add_argument("--full", action="store_true", help="every block, nothing left out")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="Hydra overrides")
    options = parser.parse_intermixed_args(arguments)
    from irope.explain import diff, render_diff, render_svg, render_text

    if options.diff:
        first, second = (_rows([f"method={name}", *options.overrides])[2] for name in options.diff)
        print(render_diff(diff(first, second), (options.diff[0], options.diff[1])))
        return 0
    title, settings, rows = _rows(options.overrides)
    print(render_text(rows, f"{title}\n{settings}", options.full))
    if options.svg:
        if not options.svg.parent.is_dir():
            raise UserError(f"--svg {options.svg}: there is no folder {options.svg.parent}")
        options.svg.write_text(render_svg(rows, title, settings), encoding="utf-8")
        print(f"\ndrawn in {options.svg}")
    return 0


def _rows(overrides: Sequence[str]) -> tuple[str, str, list[Row]]:
    """Title, settings and trace of the first script that the overrides choose."""
    from irope.config import Choice, load, policy_from, scripts_from, timeline_of
    from irope.explain import trace
    from irope.schedules import Run
    from irope.script import Clock

    config = load(overrides)
    policy, script, clock = policy_from(config), scripts_from(config)[0], Clock()
    timeline = timeline_of(script, config, clock, HORIZON)
    run = Run(steps=len(Choice(config, "video.method.steps").steps() or range(4)), block=clock.block, horizon=HORIZON)
    settings = ", ".join(f"{name} {value}" for name, value in vars(policy).items() if value is not None)
    title = f"{config['video']['method']['name']}: {timeline.seconds(timeline.blocks):g} s, {timeline.blocks} blocks"
    return title, settings, trace(policy, timeline, run)
