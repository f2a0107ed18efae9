"""Key names: what training wraps around them, and diffusers' names against the published ones (policies.md 1.5)."""

from __future__ import annotations

import re
from collections.abc import Iterable

from irope.errors import WeightsError

_WRAPPERS = ("_fsdp_wrapped_module.", "_checkpoint_wrapped_module.", "_orig_mod.")
"""Put into a name by FSDP, activation checkpointing and torch.compile."""

_FROM_DIFFUSERS = [
    (re.compile(pattern), replacement)
    for pattern, replacement in [
        (r"^condition_embedder\.time_embedder\.linear_1\.", "time_embedding.0."),
        (r"^condition_embedder\.time_embedder\.linear_2\.", "time_embedding.2."),
        (r"^condition_embedder\.text_embedder\.linear_1\.", "text_embedding.0."),
        (r"^condition_embedder\.text_embedder\.linear_2\.", "text_embedding.2."),
        (r"^condition_embedder\.time_proj\.", "time_projection.1."),
        (r"^proj_out\.", "head.head."),
        (r"^scale_shift_table$", "head.modulation"),
        (r"\.scale_shift_table$", ".modulation"),
        (r"\.attn(\d)\.to_out\.0\.", r".attn\1.o."),
        (r"\.attn(\d)\.to_([qkv])\.", r".attn\1.\2."),
        (r"\.attn1\.", ".self_attn."),
        (r"\.attn2\.", ".cross_attn."),
        (r"\.norm2\.", ".norm3."),  # the norm before cross-attention; the other two have no weights
        (r"\.ffn\.net\.0\.proj\.", ".ffn.0."),
        (r"\.ffn\.net\.2\.", ".ffn.2."),
    ]
]


def unwrapped(name: str) -> str:
    """The name without what FSDP and others put into it and without one leading ``model.``."""
    for wrapper in _WRAPPERS:
        name = name.replace(wrapper, "")
    return name.removeprefix("model.")


def from_diffusers(name: str) -> str:
    """The published name of a key of diffusers' ``WanTransformer3DModel``."""
    for pattern, replacement in _FROM_DIFFUSERS:
        name = pattern.sub(replacement, name)
    return name


def is_diffusers(names: Iterable[str]) -> bool:
    return any(name.startswith("condition_embedder.") or ".attn1." in name for name in names)


def published_names(names: Iterable[str], where: str) -> dict[str, str]:
    """Published name -> name in the file, for files of either naming.

    Raises:
        WeightsError: two keys of the file stand for the same weight.
    """
    plain = {name: unwrapped(name) for name in names}
    if is_diffusers(plain.values()):
        plain = {name: from_diffusers(found) for name, found in plain.items()}
    found: dict[str, str] = {}
    for name, published in plain.items():
        if published in found:
            raise WeightsError(f"{where}: keys {found[published]!r} and {name!r} both stand for {published!r}")
        found[published] = name
    return found
