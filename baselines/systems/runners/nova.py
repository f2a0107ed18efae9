"""Makes clips with NOVA (baaivision/NOVA, `diffnext`), in the user's environment of that project.

Not run: needs CUDA and the weights. Checked by reading against baaivision/NOVA at 2cd254a (the arguments of the
pipeline, the conditioning image, the progress bar around latent frames) and its model card (clip length, data type).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import protocol


def main() -> None:
    request = protocol.start()
    protocol.beat("importing")
    import numpy as np
    import torch
    from diffnext.pipelines import NOVAPipeline

    settings = request["settings"]
    protocol.beat("loading the weights")
    pipe = NOVAPipeline.from_pretrained(
        request["weights"], torch_dtype=torch.float16, trust_remote_code=True, local_files_only=True
    )
    if request["options"]["offload"]:
        pipe.enable_model_cpu_offload()
    else:
        pipe.to("cuda")
    protocol.info(
        versions=protocol.versions("torch", "diffusers", "transformers", "diffnext"),
        device=torch.cuda.get_device_name(),
    )
    for clip in request["clips"]:
        image = protocol.start_frame(request, clip)
        if image is not None:
            image = np.frombuffer(image, np.uint8).reshape(request["height"], request["width"], 3)
        pipe.transformer.progress_bar = _bar(clip["index"])
        # The image's latent is drawn from its posterior and noise is made in place: all of it from this generator.
        frames = pipe(
            clip["prompt"],
            image=image,
            max_latent_length=settings["latents"],
            num_inference_steps=settings["steps"],
            num_diffusion_steps=settings["diffusion_steps"],
            guidance_scale=settings["guidance"],
            motion_flow=settings["motion_flow"],
            negative_prompt=settings["negative_prompt"] or None,
            generator=torch.Generator("cuda").manual_seed(clip["seed"]),
            output_type="np",
        ).frames[0]
        protocol.write_clip(clip, [frames])
    protocol.info(peak_bytes=torch.cuda.max_memory_allocated())


def _bar(index: int) -> Any:
    """Stands in for the transformer's progress bar over latent frames, which is called with (iterable, enabled)."""

    def bar(steps: Iterable[Any], _enabled: bool = True) -> Iterator[Any]:
        steps = list(steps)
        for number, step in enumerate(steps, 1):
            protocol.beat("denoising", clip=index, step=f"{number}/{len(steps)}")
            yield step

    return bar


if __name__ == "__main__":
    main()
