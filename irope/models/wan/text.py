"""Text features of the 1.3B model: umT5-xxl, run once per prompt, kept on disk, and gone before anything is generated.

Shapes: T text rows, L rows of one prompt that hold a token, E text width (4096).
"""

from __future__ import annotations

import gc
from collections.abc import Sequence
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from irope.digests import digest_of_files
from irope.errors import WeightsError
from irope.identity import canonical_json
from irope.models.wan import prompt_cleaning
from irope.models.wan.checkpoint import load_into
from irope.models.wan.layout import tokenizer_file, weight_files
from irope.models.wan.parts import Part, import_extra, open_part
from irope.models.wan.t5_names import from_original
from irope.provenance import write_atomic

_PAD, _END = "<pad>", "</s>"


class PromptEmbeddings:
    """Text features by prompt, [1, T, E] on the CPU.

    A prompt is cleaned, cut or padded to ``text_len`` tokens, the end token included, and encoded with the padding
    masked out; rows beyond its own tokens are zero, as the published code leaves them (Wan2.1's and diffusers'
    pipelines, Self-Forcing's utils/wan_wrapper.py). The valid rows are kept as
    ``<cache>/<digest of encoder, tokenizer and settings>/<SHA-256 of the cleaned prompt>.safetensors``; the device
    that computed them is no part of the name.

    Args:
        text_encoder: ``models_t5_umt5-xxl-enc-bf16.pth``, or diffusers' ``text_encoder`` folder with its shards.
        tokenizer: ``google/umt5-xxl`` or diffusers' ``tokenizer`` folder.
        device: where the encoder runs. The CPU will do where a GPU has no room for its 11.4 GB in bfloat16.
        dtype: of the encoder and of the features.
    """

    def __init__(
        self,
        text_encoder: Path,
        tokenizer: Path,
        cache: Path,
        device: torch.device,
        dtype: torch.dtype,
        text_len: int = 512,
    ) -> None:
        self._encoder_path, self._tokenizer_path, self._cache = text_encoder, tokenizer, cache
        self._device, self._dtype, self._text_len = device, dtype, text_len
        self._encoder: Any = None

    def prepare(self, prompts: Sequence[str]) -> None:
        """Encode what is not on disk yet, with one load of the encoder, and release it.

        Raises:
            WeightsError: encoder or tokenizer are missing, damaged, do not fit each other or into memory.
        """
        cleaned = dict.fromkeys(prompt_cleaning.clean(prompt) for prompt in prompts)
        missing = [prompt for prompt in cleaned if self._read(prompt) is None]
        if not missing:
            return
        try:
            for prompt, (tokens, length) in zip(missing, self._tokens(missing), strict=True):
                rows = self._encode(tokens, length)
                write_atomic(self._file(prompt), save({"rows": rows}, {"prompt": prompt}))
        except torch.OutOfMemoryError as error:
            raise WeightsError(
                f"the text encoder {self._encoder_path} does not fit into the free memory of {self._device}: set "
                f"video.model.text_encoder_device=cpu, which is slower and only runs for prompts it has not seen"
            ) from error
        finally:
            self.release()

    def __call__(self, prompt: str) -> Tensor:
        """The features [1, T, E] of a prompt, in ``dtype`` on the CPU; raises as `prepare`."""
        cleaned = prompt_cleaning.clean(prompt)
        rows = self._read(cleaned)
        if rows is None:
            self.prepare([prompt])
            rows = self._read(cleaned)
            if rows is None:
                raise WeightsError(f"{self._file(cleaned)} was written and cannot be read; is the disk sound?")
        padding = rows.new_zeros(self._text_len - len(rows), rows.shape[1])
        return torch.cat([rows, padding])[None]

    def release(self) -> None:
        """Drop the encoder and give its memory back, also to other programs on the same GPU."""
        self._encoder = None
        gc.collect()  # a model holds cycles
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    # --- on disk ----------------------------------------------------------------------------------------------------

    @cached_property
    def _folder(self) -> Path:
        deciding = {
            "encoder": digest_of_files(weight_files(self._encoder_path, "text_encoder")),
            "tokenizer": digest_of_files([tokenizer_file(self._tokenizer_path)]),
            "cleaning": prompt_cleaning.VERSION,
            "text_len": self._text_len,
            "dtype": str(self._dtype),
        }
        return self._cache / sha256(canonical_json(deciding).encode()).hexdigest()

    def _file(self, cleaned: str) -> Path:
        return self._folder / f"{sha256(cleaned.encode()).hexdigest()}.safetensors"

    def _read(self, cleaned: str) -> Tensor | None:
        """The rows [L, E] of a prompt, or None where its file is missing or damaged."""
        try:
            with safe_open(str(self._file(cleaned)), "pt") as file:
                rows: Tensor = file.get_tensor("rows")
        except (FileNotFoundError, SafetensorError):
            return None
        sound = rows.ndim == 2 and 0 < len(rows) <= self._text_len and rows.dtype == self._dtype
        return rows if sound else None

    # --- tokens and features ----------------------------------------------------------------------------------------

    @cached_property
    def _part(self) -> Part:
        return open_part(self._encoder_path, "text_encoder", from_original)

    def _tokens(self, cleaned: Sequence[str]) -> list[tuple[list[int], int]]:
        """Token ids, ``text_len`` of them, and how many are the prompt's own."""
        tokenizer = _read_tokenizer(self._tokenizer_path, self._part)
        tokenizer.enable_truncation(self._text_len)
        tokenizer.enable_padding(length=self._text_len, pad_id=tokenizer.token_to_id(_PAD), pad_token=_PAD)
        return [(found.ids, sum(found.attention_mask)) for found in map(tokenizer.encode, cleaned)]

    @torch.inference_mode()
    def _encode(self, tokens: list[int], length: int) -> Tensor:
        """The valid rows [L, E] on the CPU."""
        if self._encoder is None:
            self._encoder = load_encoder(self._part, self._device, self._dtype)
        ids = torch.tensor([tokens], device=self._device)
        mask = (torch.arange(self._text_len, device=self._device) < length).long()[None]
        rows_TE = self._encoder(input_ids=ids, attention_mask=mask).last_hidden_state[0]
        return rows_TE[:length].to(self._dtype).cpu().contiguous()


def load_encoder(part: Part, device: torch.device, dtype: torch.dtype) -> Any:
    """transformers' ``UMT5EncoderModel`` with the weights of ``part``, of the size that the weights have.

    Tensors are read one at a time, cast to ``dtype`` and moved to ``device``.

    Raises:
        WeightsError: the file is no umT5 encoder, or transformers is missing.
    """
    values = _geometry(part)
    transformers = import_extra("transformers.models.umt5.modeling_umt5")
    with torch.device("meta"):
        model = transformers.UMT5EncoderModel(transformers.UMT5Config(**values))
    model.set_input_embeddings(model.shared)  # one tensor under two names
    part.check(model, "a umT5 encoder")
    load_into(model, part.read, device, dtype)
    return model.eval().requires_grad_(False)


def _geometry(part: Part) -> dict[str, Any]:
    """Fields of ``UMT5Config``, by the shapes of the tensors; the rest of its defaults are those of umT5-xxl."""
    block = "encoder.block.0.layer"
    try:
        vocabulary, width = part.shapes["shared.weight"]
        buckets, heads = part.shapes[f"{block}.0.SelfAttention.relative_attention_bias.weight"]
        inner = part.shapes[f"{block}.0.SelfAttention.q.weight"][0]
        hidden = part.shapes[f"{block}.1.DenseReluDense.wi_0.weight"][0]
    except (KeyError, ValueError) as error:
        raise WeightsError(
            f"{part.where} is not a umT5 encoder (no {error}); to see which files there are run: irope weights"
        ) from error
    layers = {name.split(".")[2] for name in part.shapes if name.startswith("encoder.block.")}
    return {
        "vocab_size": vocabulary,
        "d_model": width,
        "d_kv": inner // heads,
        "d_ff": hidden,
        "num_layers": len(layers),
        "num_heads": heads,
        "relative_attention_num_buckets": buckets,
        "feed_forward_proj": "gated-gelu",
    }


def _read_tokenizer(path: Path, part: Part) -> Any:
    """The ``tokenizers.Tokenizer`` of ``tokenizer.json``, the file that every version of transformers reads itself.

    Raises:
        WeightsError: it cannot be read or belongs to another encoder.
    """
    file = tokenizer_file(path)
    try:
        tokenizer = import_extra("tokenizers").Tokenizer.from_str(file.read_text(encoding="utf-8"))
    except WeightsError:
        raise
    except Exception as error:  # tokenizers raises nothing more special
        raise WeightsError(f"{file} cannot be read as a tokenizer ({error}); download it again") from error
    tokenizer.no_padding()
    rows = _geometry(part)["vocab_size"]
    size = tokenizer.get_vocab_size()
    if not rows // 2 < size <= rows:  # the embedding of umT5-xxl is rounded up from 256,300 to 256,384 rows
        raise WeightsError(
            f"{file} has {size:,} tokens and the text encoder {part.where} an embedding for {rows:,}: they are not of "
            f"one model; to see which files there are run: irope weights"
        )
    if missing := [token for token in (_PAD, _END) if tokenizer.token_to_id(token) is None]:
        raise WeightsError(f"{file} has no token {missing[0]}: it is not the tokenizer of umT5; run: irope weights")
    if tokenizer.encode("").ids != [tokenizer.token_to_id(_END)]:
        raise WeightsError(
            f"{file} does not end a prompt with {_END}: it is not the tokenizer of umT5; run: irope weights"
        )
    return tokenizer
