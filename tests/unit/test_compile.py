"""What is compiled: two graphs without a break, for all layers, whatever the window; the frames stay the same."""

import copy
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, fx

from irope.policy import CacheEvent
from irope.timeline import CLOCK
from irope.transformer import CausalWanTransformer
from irope.warm_up import warm_up
from tests.rollout_kit import FRAME, SWITCH, Script, latents, make, model, rollout


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[CausalWanTransformer, list[fx.GraphModule]]]:
    """The model of the kit with compiled layers, and the graphs as they come."""
    graphs: list[fx.GraphModule] = []

    def keep(graph: fx.GraphModule, inputs: list[Tensor]) -> object:
        graphs.append(graph)
        return graph.forward

    torch.compiler.reset()
    made = copy.deepcopy(model())
    made.compile_layers((3,), backend=keep)
    monkeypatch.setattr("tests.rollout_kit.model", lambda: made)
    yield made, graphs
    torch.compiler.reset()


def video(name: str, blocks: int, at: dict[int, CacheEvent], **settings: object) -> Tensor:
    return latents(rollout(make(name, **settings), Script(blocks, at)))


CASES = [("infinity_rope", {"window": 9}), ("kv_recache", {"window": 6, "sink": 1})]


@pytest.fixture
def plain() -> list[Tensor]:
    return [video(name, 7, {4: SWITCH}, **settings) for name, settings in CASES]


def test_two_graphs_serve_all_layers_and_fill_levels(
    plain: list[Tensor], compiled: tuple[CausalWanTransformer, list[fx.GraphModule]]
) -> None:
    """A break would be a third graph; a recache, which has other shapes, runs as it is."""
    made = [video(name, 7, {4: SWITCH}, **settings) for name, settings in CASES]
    assert all(torch.equal(a, b) for a, b in zip(made, plain, strict=True))
    assert len(compiled[1]) == 2
    assert all("item" not in str(node.target) for graph in compiled[1] for node in graph.graph.nodes)


def test_more_batch_sizes_than_a_compiler_keeps(compiled: tuple[CausalWanTransformer, list[fx.GraphModule]]) -> None:
    """Eight of them are compiled; after that the layers run as they are, and no worker stops."""
    made, graphs = compiled
    for size in range(1, 11):
        x = torch.randn(size, 3, 4, 4, 4, generator=torch.Generator().manual_seed(size))
        with torch.no_grad():
            made(x, torch.zeros(1, 1), made.text_kv(torch.ones(size, 3, 8)), lambda layer, q, k, v: v)
    assert len(graphs) == 2 * 8


def test_training_and_copies_run_as_they_are(compiled: tuple[CausalWanTransformer, list[fx.GraphModule]]) -> None:
    made, graphs = compiled
    x, text = torch.randn(1, 3, 4, 4, 4, generator=torch.Generator().manual_seed(0)), torch.ones(1, 3, 8)
    made.requires_grad_(True)
    made(x, torch.zeros(1, 3), made.text_kv(text), lambda layer, q, k, v: v).sum().backward()
    assert made.blocks[0].ffn[0].weight.grad is not None
    other = copy.deepcopy(made)
    with torch.no_grad():
        other(x, torch.zeros(1, 3), other.text_kv(text), lambda layer, q, k, v: v)
    made.compile_layers(())
    with torch.no_grad():
        made(x, torch.zeros(1, 3), made.text_kv(text), lambda layer, q, k, v: v)
    assert graphs == []


def test_a_warm_up_leaves_nothing_to_compile(
    compiled: tuple[CausalWanTransformer, list[fx.GraphModule]],
) -> None:
    made, graphs = compiled
    generator: Any = SimpleNamespace(
        transformer=made, codec=None, steps=(1000, 500), shift=5.0, frame_shape=FRAME, clock=CLOCK, horizon=21,
        execution="fast",
    )  # fmt: skip
    assert (warm_up(generator) or 0) > 0
    assert len(graphs) == 2
    video("infinity_rope", 7, {4: SWITCH}, window=9)
    assert len(graphs) == 2
    assert (warm_up(generator, batch=2) or 0) > 0
    assert len(graphs) == 4
    made.compile_layers(())
    assert warm_up(generator) is None
