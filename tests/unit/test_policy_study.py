"""The policy study: cells without doubles, a common beginning computed once, resuming, and the whole in small."""

import threading
import time
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from irope.attention_map import frame_attention
from irope.claims import Claims
from irope.config import load
from irope.errors import UserError
from irope.measurements import tier_of
from irope.models.tiny.codec import TinyCodec
from irope.models.tiny.info import TinyInfo
from irope.models.tiny.model import TinyModel, load_tiny, save_tiny
from irope.models.tiny.net import TinyNet
from irope.policy import CachePlan
from irope.policy_study import Job, decoded, plan, policy_study, share
from irope.schedules import Denoise, EventTable, Run, chunkwise
from irope.script import CLOCK
from irope.study_cells import LISTS, PARTS, Cell, cells, takes
from irope.study_rollouts import Beginnings, SinkMass, latents, rollout
from irope.transformer import WanConfig


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights, large enough that cache and prompt show."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    geometry = WanConfig(
        dim=48, ffn_dim=64, num_heads=2, num_layers=2, in_dim=4, out_dim=4, text_len=12, text_dim=16, freq_dim=32
    )
    path = tmp_path_factory.mktemp("weights") / "random.safetensors"
    net, codec = TinyNet(geometry), TinyCodec(4)
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in net.parameters():
            weight.normal_(0, 0.3, generator=draw)
        codec.basis.normal_(0, 0.05, generator=draw)
    save_tiny(path, net.state_dict(), codec, geometry, TinyInfo("random", {}, "0", 0))
    return path


@pytest.fixture(scope="module")
def model(weights: Path) -> TinyModel:
    return load_tiny(weights)


def settings(tier: str) -> dict[str, Any]:
    return tier_of(load(["experiment=policy_study", f"tier={tier}"]))[1]


def listed(tier: str, checkpoint: str = "stable") -> list[Cell]:
    return cells(settings(tier), checkpoint, CLOCK, 21)[0]


# --- cells ------------------------------------------------------------------------------------------------------------


def differences(cell: Cell) -> tuple[Any, ...]:
    """All that a model sees of a cell's policy: pages read and every index relative to the first query's."""
    run = Run(steps=1)
    event = {} if cell.at is None else {cell.at: cell.event}
    found = []
    for op in chunkwise(cell.policy, EventTable(cell.blocks, event), run):
        if isinstance(op, Denoise) and op.plan is not None:
            p, q0 = op.plan, op.plan.query_index[0]
            keys, queries = tuple(k - q0 for k in p.key_index), tuple(q - q0 for q in p.query_index)
            found.append((p.read, keys, queries, p.recompute))
    return tuple(found)


@pytest.mark.parametrize("part", PARTS)
def test_no_two_cells_of_a_part_are_the_same_video(part: str) -> None:
    found = [cell for cell in listed("paper") if cell.part == part]
    assert len({cell.label for cell in found}) == len(found)
    short = [(cell, replace(cell, blocks=min(cell.blocks, 27))) for cell in found]
    seen = {cell.label: (cell.takes, differences(cut)) for cell, cut in short}
    assert not [(a, b) for a, b in combinations(seen, 2) if seen[a] == seen[b]]


def test_the_study_covers_what_was_asked_for() -> None:
    found = listed("paper")
    windows = [cell.facts for cell in found if cell.part == "windows"]
    assert len(windows) == 26
    assert {f["f0"] for f in windows if (f["window"], f["sink"]) == (12, 3)} == {None, 12, 21}
    assert {facts["f0"] for facts in windows if facts["window"] == 6} == {None, 6, 9, 12, 15, 18, 21}
    ways = {(c.facts["window"], c.facts["way"]) for c in found if c.part == "switch"}
    assert {way for window, way in ways if window == 12} == {"keep", "flush 1", "flush 2", "recache"}
    assert (6, "flush 2") not in ways  # it keeps the whole past
    cuts = [c for c in found if c.part == "cut"]
    assert len(cuts) == 2 + 4 * 5 - 2  # target last2: Δ 1 is refused, Δ 6 is the block's own place
    assert max(c.blocks for c in found if c.part == "windows") == 320
    assert max(c.blocks for c in listed("paper", "base") if c.part == "windows") == 54
    assert any("Δ=1" in line for line in cells(settings("paper"), "base", CLOCK, 21)[1])


@pytest.mark.parametrize("name", LISTS)
def test_prompts_differ_and_change_in_one_thing(name: str) -> None:
    found = takes(name, 64, 0)  # as many as the tier `paper` asks for
    assert len({take.before.prompt for take in found}) == 64
    assert found[:8] == takes(name, 8, 0)  # a small tier's prompts begin a large one's
    for take in found:
        changed = {key for key, value in vars(take.before).items() if getattr(take.after, key) != value}
        assert changed == {"motion": {"action"}, "background": {"background"}}.get(name, set())
        assert name == "free" or (take.before.held_out and take.after.held_out)


def test_more_takes_than_the_world_holds_are_refused() -> None:
    with pytest.raises(UserError, match=r"no 400 different takes of the list 'motion'.*nearest valid .*: \d+"):
        takes("motion", 400, 0)


def test_a_key_depends_on_weights_prompts_and_policy(weights: Path, tmp_path: Path) -> None:
    chosen = settings("smoke")
    jobs, _ = plan(chosen, "random", weights, tmp_path)
    assert len({job.key for job in jobs}) == len({job.path for job in jobs}) == len(jobs)
    again, _ = plan(chosen, "random", weights, tmp_path)
    assert [job.key for job in again] == [job.key for job in jobs]
    more, _ = plan({**chosen, "prompts": 3}, "random", weights, tmp_path)
    assert not {job.key for job in more} & {job.key for job in jobs if job.cell.part != "attention"}


# --- roll-outs --------------------------------------------------------------------------------------------------------


def test_a_shared_beginning_changes_no_bit(model: TinyModel) -> None:
    shared, prompts = Beginnings(), takes("motion", 2, 0)
    for cell in [cell for cell in listed("smoke") if cell.part in ("switch", "cut")]:
        branch = latents(model, cell, prompts, 0, shared)
        assert torch.equal(branch, latents(model, cell, prompts, 0)), cell.label
    assert len(shared.states) == 1  # of the last group


def test_frames_decoded_in_part_are_those_of_the_whole(model: TinyModel) -> None:
    video = torch.randn(9, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    whole = model.codec.decode(video[None])[0].numpy()
    assert len(whole) == 33
    for first, stop in [(0, 1), (0, 33), (1, 2), (4, 5), (7, 29), (12, 33), (9, 21)]:
        assert np.array_equal(decoded(model, video, first, stop), whole[first:stop])


def test_the_sink_s_mass_is_the_softmax_s(model: TinyModel) -> None:
    cell = next(cell for cell in listed("smoke") if cell.part == "attention" and cell.facts["index"] == "absolute")
    seen: dict[tuple[int, int], list[np.ndarray]] = {}
    mass = SinkMass(1, 16, (0, 3))

    def watch(op: Denoise, found: CachePlan) -> Any:
        probe = mass(op, found)
        if probe is None:
            return None

        def both(layer: int, q: torch.Tensor, k: torch.Tensor) -> None:
            probe(layer, q, k)
            maps = [frame_attention(q[b], k[b], 16)[:, :, 0].mean(1).numpy() for b in range(len(q))]
            seen.setdefault((op.noise_block, op.levels[0]), []).append(np.stack(maps))

        return both

    video = rollout(model, cell, takes("main", 2, 0), 0)
    video.watch = watch
    plain = [block.latents for block in rollout(model, cell, takes("main", 2, 0), 0)]
    assert all(torch.equal(a.latents, b) for a, b in zip(video, plain, strict=True))
    blocks, found = mass.by_block()
    assert blocks == [1, 2, 3, 4, 5, 6]
    assert [mass.distance[block] for block in blocks] == [3, 6, 9, 12, 15, 18]
    assert found.shape == (2, 6, 2, 2, 2)
    for t, block in enumerate(blocks):
        for s, step in enumerate((0, 3)):
            np.testing.assert_allclose(found[:, t, s], np.stack(seen[block, step], axis=1), atol=1e-5)


# --- running ----------------------------------------------------------------------------------------------------------


def test_the_study_runs_continues_and_reports(weights: Path, tmp_path: Path, capsys: Any, monkeypatch: Any) -> None:
    from irope.cli.main import main

    monkeypatch.chdir(tmp_path)
    words = ["policy_study", "tier=smoke", f"video.model.weights={weights}", "sys.out=runs", "sys.device=cpu"]
    assert main(["run", *words]) == 0
    said = capsys.readouterr().out
    assert "not defined: cut, target last2 Δ=1" in said
    assert "[14/14] random, attention, f0=6" in said
    for text in ("never of the 1.3B model", "not tested", "Course in time", "Attention on the sink"):
        assert text in said
    folder = tmp_path / "runs/measured/policy_study"
    files = sorted(folder.glob("cells/random/*.json"))
    assert len(files) == 14
    assert len(list(folder.rglob("*.png"))) == 4
    assert not (folder / ".work").exists()
    times = [file.stat().st_mtime_ns for file in files]
    files[3].unlink()  # as after a kill
    assert main(["run", *words]) == 0
    said = capsys.readouterr().out
    assert sum(line.startswith("[") for line in said.splitlines()) == 1
    now = [file.stat().st_mtime_ns for file in files]
    assert [a == b for a, b in zip(times, now, strict=True)] == [i != 3 for i in range(14)]
    assert main(["table", *words]) == 0
    assert "The policy study of the embedded model" in capsys.readouterr().out
    assert main(["plot", *words, "--out", "pictures", "--format", "svg"]) == 0
    assert len(list((tmp_path / "pictures").glob("*.svg"))) == 4


def test_two_shells_share_the_cells(weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("irope.policy_study._WAIT", 0.05)
    jobs, _ = plan(settings("smoke"), "random", weights, tmp_path)
    jobs, made, said = jobs[:5], [], []
    other = Claims(tmp_path).take(jobs[1].key)
    assert other is not None

    def make(job: Job, number: int) -> None:
        made.append(number)
        job.path.parent.mkdir(parents=True, exist_ok=True)
        job.path.write_text("{}")

    def finish() -> None:
        time.sleep(0.3)
        make(jobs[1], -1)
        other.release(done=True)

    thread = threading.Thread(target=finish)
    thread.start()
    share(jobs, tmp_path, make, said.append)
    thread.join()
    assert sorted(made) == [-1, 1, 3, 4, 5]
    assert said == ["1 cells are being made by another process; waiting for them"]


def test_a_cell_that_fails_can_be_made_by_the_next_run(weights: Path, tmp_path: Path) -> None:
    jobs, _ = plan(settings("smoke"), "random", weights, tmp_path)

    def fail(job: Job, number: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        share(jobs[:1], tmp_path, fail, str)
    made = []

    def make(job: Job, number: int) -> None:
        made.append(number)
        job.path.parent.mkdir(parents=True)
        job.path.touch()

    share(jobs[:1], tmp_path, make, str)
    assert made == [1]


def test_a_missing_weights_file_is_a_readable_error(tmp_path: Path) -> None:
    config = load(["experiment=policy_study", "tier=smoke", f"video.model.weights={tmp_path / 'no.safetensors'}"])
    with pytest.raises(FileNotFoundError, match="no weights file"):
        policy_study(config, tmp_path, str)
