"""Makes a video with MAGI-1 (SandAI-org/MAGI-1), in the user's environment of that project.

It does what the project's text-to-video pipeline does, but writes every chunk of 24 frames when it is decoded, so that
a minute of video is never in memory and a run shows how far it is.

Not run: needs CUDA and the weights. Checked by reading against copies of SandAI-org/MAGI-1 (configuration at 861b7dd,
pipeline and chunk generator of May 2025, whose generator takes the prompt in later versions only).
"""

from __future__ import annotations

import inspect
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import protocol


def main() -> None:
    request = protocol.start()
    (clip,) = request["clips"]
    config = _config(request, clip)
    # What the project's own scripts set, besides the port: several videos may be made on one host.
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    os.environ.update(MASTER_ADDR="localhost", MASTER_PORT=str(port), WORLD_SIZE="1", RANK="0", LOCAL_RANK="0")
    # Without offload the autoencoder stays on the GPU instead of being read from disk for every chunk.
    os.environ.update(OFFLOAD_T5_CACHE="true", OFFLOAD_VAE_CACHE=str(request["options"]["offload"]).lower())
    for token in ("PAD_HQ", "PAD_DURATION"):
        os.environ[token] = str(int(request["settings"]["special_tokens"]))
    protocol.beat("importing")
    import torch
    from inference.model.dit import get_dit
    from inference.pipeline import MagiPipeline
    from inference.pipeline.prompt_process import get_txt_embeddings
    from inference.pipeline.video_generate import generate_per_chunk
    from inference.pipeline.video_process import post_chunk_process

    pipeline = MagiPipeline(str(config))
    protocol.info(versions=protocol.versions("torch", "flash-attn", "flashinfer-python"))
    protocol.beat("encoding the prompt")
    embeddings, masks = get_txt_embeddings(clip["prompt"], pipeline.config)
    protocol.beat("loading the weights")
    inputs: dict[str, Any] = {
        "model": get_dit(pipeline.config),
        "prefix_video": None,
        "caption_embs": embeddings,
        "emb_masks": masks,
    }
    if "prompt" in inspect.signature(generate_per_chunk).parameters:
        inputs["prompt"] = clip["prompt"]

    def pieces() -> Iterator[Any]:
        for chunk in generate_per_chunk(**inputs):
            frames = post_chunk_process(chunk, pipeline.config)  # uint8 [24, 3, height, width]
            yield frames.permute(0, 2, 3, 1).contiguous().cpu().numpy()

    protocol.beat("denoising")
    protocol.write_clip(clip, pieces())
    protocol.info(peak_bytes=torch.cuda.max_memory_allocated(), device=torch.cuda.get_device_name())


def _config(request: dict[str, Any], clip: dict[str, Any]) -> Path:
    """The project's own configuration with what a request decides in it, beside the clip."""
    settings, checkpoints = request["settings"], Path(request["weights"], "ckpt")
    shipped = Path(request["repo"], "example", "4.5B", f"{settings['model']}_config.json")
    config: dict[str, Any] = json.loads(shipped.read_text(encoding="utf-8"))
    config["runtime_config"].update(
        seed=clip["seed"],
        num_frames=clip["frames"],
        fps=request["fps"],
        video_size_h=request["height"],
        video_size_w=request["width"],
        num_steps=settings["steps"],
        load=str(checkpoints / "magi" / settings["model"]),
        vae_pretrained=str(checkpoints / "vae"),
        t5_pretrained=str(checkpoints / "t5"),
    )
    path = Path(clip["file"]).with_suffix(".config.json")
    path.write_text(json.dumps(config, indent=1), encoding="utf-8")
    return path


if __name__ == "__main__":
    main()
