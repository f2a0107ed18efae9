"""Keys of the published ``Wan2.1_VAE.pth`` and the same ones in diffusers' ``AutoencoderKLWan``."""

from __future__ import annotations

import re

_INNER = {
    "residual.0": "norm1",
    "residual.2": "conv1",
    "residual.3": "norm2",
    "residual.6": "conv2",
    "shortcut": "conv_shortcut",
}
_INNER_KEY = re.compile(r"\b(residual\.[0236]|shortcut)\b")

_MIDDLE = {"0": "resnets.0", "1": "attentions.0", "2": "resnets.1"}
_UP = 4
"""Layers of a decoder level in the flat original list: three residual blocks and the upsampling after them."""


def from_original(key: str) -> str:
    """diffusers' name of an original key; any other key, one of diffusers included, as it is."""
    for old, new in (("conv1.", "quant_conv."), ("conv2.", "post_quant_conv.")):
        if key.startswith(old):
            return new + key.removeprefix(old)
    half, _, rest = key.partition(".")
    if half not in ("encoder", "decoder"):
        return key
    rest = _INNER_KEY.sub(lambda found: _INNER[found[0]], rest)
    layer, _, inner = rest.partition(".")
    number, _, inside = inner.partition(".")
    match layer, number:
        case "conv1", _:
            rest = f"conv_in.{inner}"
        case "head", "0":
            rest = f"norm_out.{inside}"
        case "head", _:
            rest = f"conv_out.{inside}"
        case "middle", _:
            rest = f"mid_block.{_MIDDLE.get(number, number)}.{inside}"
        case "downsamples", _:
            rest = f"down_blocks.{inner}"
        case "upsamples", _ if number.isdigit():
            level, place = divmod(int(number), _UP)
            name = "upsamplers.0" if place == _UP - 1 else f"resnets.{place}"
            rest = f"up_blocks.{level}.{name}.{inside}"
    return f"{half}.{rest}"
