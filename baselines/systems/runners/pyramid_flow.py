"""Makes clips with Pyramid Flow (jy0205/Pyramid-Flow, `pyramid_dit`), in the user's environment of that project.

Not run: needs CUDA and the weights. Checked by reading against jy0205/Pyramid-Flow at 0b636c6 (the constructor,
`generate` and `generate_i2v` with their callback and what they return, the switches that save memory).
"""

from __future__ import annotations

from typing import Any

import protocol


def main() -> None:
    request = protocol.start()
    protocol.beat("importing")
    import numpy as np
    import torch
    from PIL import Image
    from pyramid_dit import PyramidDiTForVideoGeneration

    settings, offload = request["settings"], request["options"]["offload"]
    protocol.beat("loading the weights")
    torch.cuda.set_device(0)
    model = PyramidDiTForVideoGeneration(
        request["weights"],
        model_name=settings["model"],
        model_dtype="bf16",
        model_variant=f"diffusion_transformer_{settings['variant']}",
    )
    model.vae.enable_tiling()
    if not offload:
        for part in (model.vae, model.dit, model.text_encoder):
            part.to("cuda")
    protocol.info(versions=protocol.versions("torch", "diffusers", "transformers"), device=torch.cuda.get_device_name())
    for clip in request["clips"]:
        index = clip["index"]

        def callback(unit: int, units: int, index: int = index) -> None:
            protocol.beat("denoising", clip=index, step=f"{unit + 1}/{units}")

        # The noise between its stages and the posterior of the image come from the global generator.
        torch.manual_seed(clip["seed"])
        common: dict[str, Any] = {
            "prompt": clip["prompt"],
            "temp": settings["latents"],
            "generator": torch.Generator("cuda").manual_seed(clip["seed"]),
            "output_type": "pil",
            "save_memory": True,
            "cpu_offloading": offload,
            "callback": callback,
        }
        image = protocol.start_frame(request, clip)
        with torch.no_grad(), torch.cuda.amp.autocast(enabled=True, dtype=torch.bfloat16):
            if image is None:
                pictures = model.generate(
                    height=request["height"],
                    width=request["width"],
                    num_inference_steps=settings["first_frame_steps"],
                    video_num_inference_steps=settings["steps"],
                    guidance_scale=settings["guidance"],
                    video_guidance_scale=settings["video_guidance"],
                    **common,
                )
            else:
                pictures = model.generate_i2v(
                    input_image=Image.frombytes("RGB", (request["width"], request["height"]), image),
                    num_inference_steps=settings["steps"],
                    video_guidance_scale=settings["image_video_guidance"],
                    **common,
                )
        protocol.write_clip(clip, (np.asarray(picture)[None] for picture in pictures))
    protocol.info(peak_bytes=torch.cuda.max_memory_allocated())


if __name__ == "__main__":
    main()
