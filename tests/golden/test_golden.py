"""Every recorded run is reproduced; a wrong one, a broken file and an unknown name are reported."""

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from irope.errors import WeightsError
from irope.golden import TOLERANCE, GoldenError, load_model, read_recording, recipe_of, replay, verify
from irope.transformer import CausalWanTransformer, WanConfig
from tests.golden.reference import Reference, Seen, roll_out

DATA = Path(__file__).parent / "data"
SYSTEMS = sorted(path.stem for path in DATA.glob("*.safetensors") if path.stem != "weights")


def recorded(system: str) -> list[str]:
    with safe_open(str(DATA / f"{system}.safetensors"), "pt") as file:
        return sorted(key.removeprefix("x0.") for key in file.keys() if key.startswith("x0."))  # noqa: SIM118


RUNS = [(system, run) for system in SYSTEMS for run in recorded(system)]


def test_every_system_is_recorded() -> None:
    assert SYSTEMS == ["infinity_rope", "longlive", "memrope", "rolling_forcing", "rolling_sink", "self_forcing"]
    assert len(RUNS) == 22


@pytest.mark.parametrize(("system", "run"), RUNS)
def test_run_is_reproduced(system: str, run: str) -> None:
    config, data = read_recording(DATA / f"{system}.safetensors")
    policy, events = recipe_of(system, run)
    made = replay(policy, events, load_model(DATA, config), data, run)
    assert made.shape == data[f"x0.{run}"].shape
    assert (made - data[f"x0.{run}"]).abs().max() <= TOLERANCE


def folder_with(tmp_path: Path, *systems: str) -> Path:
    """A folder with the weights and shortened copies of recordings: the smallest run of each."""
    for system in systems:
        config, data = read_recording(DATA / f"{system}.safetensors")
        shortest = min((key for key in data if key.startswith("x0.")), key=lambda key: data[key].shape[1])
        write(tmp_path / f"{system}.safetensors", config, only_runs(data, [shortest]))
    (tmp_path / "weights.safetensors").write_bytes((DATA / "weights.safetensors").read_bytes())
    return tmp_path


def only_runs(data: dict[str, torch.Tensor], runs: list[str]) -> dict[str, torch.Tensor]:
    return {key: tensor for key, tensor in data.items() if not key.startswith("x0.") or key in runs}


def write(path: Path, config: WanConfig, data: dict[str, torch.Tensor]) -> None:
    save_file(data, path, {"config": json.dumps(asdict(config))})


def test_changed_weights_fail(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, "self_forcing")
    weights = load_file(folder / "weights.safetensors")
    weights["blocks.1.self_attn.k.weight"][0] *= 1.1
    save_file(weights, folder / "weights.safetensors")
    (result,) = verify(folder)
    assert result.difference is not None
    assert result.difference > TOLERANCE
    assert not result.ok


def test_changed_recording_fails(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, "self_forcing")
    config, data = read_recording(folder / "self_forcing.safetensors")
    data["x0.full_21"][0, 20, 3, 7, 7] += 2 * TOLERANCE
    write(folder / "self_forcing.safetensors", config, data)
    (result,) = verify(folder)
    assert result.difference == pytest.approx(2 * TOLERANCE, abs=TOLERANCE / 5)
    assert not result.ok


def test_bfloat16_follows_float32() -> None:
    config, data = read_recording(DATA / "infinity_rope.safetensors")
    run = "relativistic_w6_s1_flush4_cut6_to45"
    policy, events = recipe_of("infinity_rope", run)
    made = replay(policy, events, load_model(DATA, config).to(torch.bfloat16), data, run)
    assert made.dtype == torch.bfloat16
    assert made.isfinite().all()
    assert (made.float() - data[f"x0.{run}"]).abs().mean() < 0.05 * data[f"x0.{run}"].abs().mean()


# --- what can be wrong with a folder ---------------------------------------------------------------------------------


def test_folder_without_weights_or_recordings(tmp_path: Path) -> None:
    with pytest.raises(GoldenError, match="holds no recordings"):
        list(verify(tmp_path))
    (folder_with(tmp_path, "self_forcing") / "weights.safetensors").unlink()
    with pytest.raises(GoldenError, match=r"holds no weights\.safetensors"):
        list(verify(tmp_path))


@pytest.mark.parametrize("name", ["weights", "self_forcing"])
def test_truncated_file(tmp_path: Path, name: str) -> None:
    path = folder_with(tmp_path, "self_forcing") / f"{name}.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(GoldenError, match=rf"{name}\.safetensors cannot be read .* is the file complete"):
        list(verify(tmp_path))


def test_weights_of_another_shape(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, "self_forcing")
    weights = load_file(folder / "weights.safetensors")
    save_file(weights | {"blocks.2.ffn.0.weight": torch.zeros(190, 96)}, folder / "weights.safetensors")
    with pytest.raises(WeightsError, match=r"'blocks\.2\.ffn\.0\.weight' has shape \[190, 96\], .* needs \[192, 96\]"):
        list(verify(folder))
    save_file(weights | {"blocks.3.norm3.bias": torch.zeros(96)}, folder / "weights.safetensors")
    with pytest.raises(WeightsError, match=r"unexpected key 'blocks\.3\.norm3\.bias'"):
        list(verify(folder))
    del weights["head.modulation"]
    save_file(weights, folder / "weights.safetensors")
    with pytest.raises(WeightsError, match=r"'head\.modulation' is missing"):
        list(verify(folder))


@pytest.mark.parametrize(
    ("key", "shape", "message"),
    [
        ("noise", (1, 21, 5, 8, 8), r"'noise'.*expected \[1, 21, 4, 8, 8\], found \[1, 21, 5, 8, 8\]"),
        ("renoise", (7, 2, 1, 3, 4, 8, 8), r"'renoise'.*expected \[7, 3, 1, 3, 4, 8, 8\], found \[7, 2, "),
        ("context", (3, 12, 23), r"'context'.*expected \[3, 12, 24\], found \[3, 12, 23\]"),
        ("x0.full_21", (1, 21, 4, 8, 6), r"'x0\.full_21'.*expected \[1, 21, 4, 8, 8\], found \[1, 21, 4, 8, 6\]"),
    ],
)
def test_recording_of_another_shape(tmp_path: Path, key: str, shape: tuple[int, ...], message: str) -> None:
    folder = folder_with(tmp_path, "self_forcing")
    config, data = read_recording(folder / "self_forcing.safetensors")
    write(folder / "self_forcing.safetensors", config, data | {key: torch.zeros(shape)})
    with pytest.raises(GoldenError, match=message):
        list(verify(folder))


def test_recording_without_a_tensor_or_geometry(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, "self_forcing")
    config, data = read_recording(folder / "self_forcing.safetensors")
    save_file(data, folder / "self_forcing.safetensors")
    with pytest.raises(GoldenError, match="'config' with the geometry is missing"):
        list(verify(folder))
    del data["renoise"]
    write(folder / "self_forcing.safetensors", config, data)
    with pytest.raises(GoldenError, match="'renoise' is missing"):
        list(verify(folder))


def test_unknown_names_and_short_noise_are_lines(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, "self_forcing")
    config, data = read_recording(folder / "self_forcing.safetensors")
    x0 = data.pop("x0.full_21")
    runs = {"x0.rolling_without_numbers": x0.clone(), "x0.rolling_w9_s0": torch.cat([x0, x0, x0], dim=1)}
    write(folder / "self_forcing.safetensors", config, data | runs)
    write(folder / "new_system.safetensors", config, data | {"x0.anything": x0})
    runs = {"x0.memrope_w12_s3": x0.clone(), "x0.memrope_w6_s3_long1_short1": x0}
    write(folder / "memrope.safetensors", config, data | runs)
    problems = {result.name: result.problem for result in verify(folder)}
    assert "unknown recording 'new_system'; known: self_forcing" in problems["new_system/anything"]
    assert "names no window" in problems["self_forcing/rolling_without_numbers"]
    assert "63 latent frames" in problems["self_forcing/rolling_w9_s0"]
    assert "names no rates" in problems["memrope/memrope_w12_s3"]
    assert "do not fit in window 6; nearest valid: window 9" in problems["memrope/memrope_w6_s3_long1_short1"]


# --- another geometry, recorded by an independent implementation ------------------------------------------------------

SIZE = 2  # latent frames per block
BLOCKS = 6
GEOMETRY = WanConfig(
    dim=40, ffn_dim=72, num_heads=2, num_layers=2, in_dim=3, out_dim=3, text_len=5, text_dim=7, freq_dim=16
)
LATENT = (3, 4, 6)  # 2 x 3 tokens a frame


def block(b: int) -> list[int]:
    return [b * SIZE, b * SIZE + 1]


def at(frames: list[int], index: list[int]) -> list[Seen]:
    return [Seen(frame, position) for frame, position in zip(frames, index, strict=True)]


def window(b: int, size: int, sink: int, since: int = 0) -> list[int]:
    """Frames that block ``b`` sees besides itself; ``since`` forgets those between the sink and that frame."""
    frames = list(range(b * SIZE))
    past = [frame for frame in frames[sink:] if frame >= since]
    room = size - SIZE - sink
    return frames[:sink] + past[max(0, len(past) - room) :]


def recordings() -> dict[str, dict[str, tuple]]:
    """File -> run -> (first block of each further prompt, what every block sees, its own indices, recache)."""
    every = range(BLOCKS)
    absolute = {s: [at(window(b, 6, s), window(b, 6, s)) for b in every] for s in (0, 1)}
    frames = [block(b) for b in every]
    relative, flushed, cut = [], [], []
    for b in every:
        past = window(b, 6, 1)
        relative.append(at(past, list(range(len(past)))))
        # The flush at block 3, and that of the cut at block 5, keep the sink and the last two frames.
        past = window(b, 9, 1, since=8 if b == 5 else 4 if b >= 3 else 0)
        q0 = min(b * SIZE, 9 - SIZE)
        flushed.append(at(past, [0, *range(q0 - len(past) + 1, q0)] if past else []))
        cut.append([20, 21] if b == 5 else [q0, q0 + 1])
    slots = [[len(seen), len(seen) + 1] for seen in relative]
    again = {4: ([2, 3, 4, 5, 6, 7], [2, 3, 4, 5, 6, 7], at([0], [0]))}
    return {
        "self_forcing": {
            "full_12": ([], [at(list(range(b * SIZE)), list(range(b * SIZE))) for b in every], frames, None),
            "rolling_w6_s0": ([], absolute[0], frames, None),
            "rolling_w6_s1_absolute_keep4": ([4], absolute[1], frames, None),
        },
        "infinity_rope": {
            "relativistic_w6_s1": ([], relative, slots, None),
            "relativistic_w9_s1_flush3_cut5_to20": ([3, 5], flushed, cut, None),
        },
        "longlive": {"recache_w6_s1_absolute_switch4": ([4], absolute[1], frames, again)},
    }


def test_another_geometry(tmp_path: Path) -> None:
    random = np.random.default_rng(7)
    weights = {}
    for key, tensor in CausalWanTransformer(GEOMETRY).state_dict().items():
        fan_in = tensor[0].numel() if tensor.dim() > 1 else 8
        noise = random.standard_normal(tensor.shape) / fan_in**0.5
        weights[key] = torch.tensor(noise + (key.endswith(("norm_q.weight", "norm_k.weight", "norm3.weight")))).float()
    save_file(weights, tmp_path / "weights.safetensors")

    nominal = [1000.0, 600.0, 250.0]
    steps = [1000 * 5 * (n / 1000) / (1 + 4 * (n / 1000)) for n in nominal]
    shapes = {
        "noise": (1, BLOCKS * SIZE, *LATENT),
        "renoise": (BLOCKS, len(steps) - 1, 1, SIZE, *LATENT),
        "context": (3, 5, 7),
    }
    data = {key: torch.tensor(random.standard_normal(shape)).float() for key, shape in shapes.items()}
    data["steps"] = torch.tensor(steps)
    model = Reference({key: tensor.numpy() for key, tensor in weights.items()}, GEOMETRY.num_heads)
    arrays = {key: tensor.double().numpy() for key, tensor in data.items()}
    for system, runs in recordings().items():
        made = {}
        for run, (starts, seen, own, again) in runs.items():
            texts = [arrays["context"][sum(start <= b for start in starts)] for b in range(BLOCKS)]
            x0 = roll_out(model, arrays["noise"][0], arrays["renoise"][:, :, 0], texts, steps, seen, own, again)
            made[f"x0.{run}"] = torch.tensor(x0).float()[None]
        write(tmp_path / f"{system}.safetensors", GEOMETRY, {**data, **made})

    results = list(verify(tmp_path))
    assert len(results) == 6
    assert [(result.name, result.difference) for result in results if not result.ok] == []
