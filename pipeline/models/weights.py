"""Load weights, and measure them without loading."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import PipelineError


@dataclass(frozen=True)
class Size:
    """The size of a model: its parameters, and the bytes of its weight files."""

    parameters: int  # tied weights are stored, and counted, once
    nbytes: int


def load_weights(path: str, revision: str | None, dtype: Any, **options: Any) -> Any:
    """Load a causal language model with transformers.

    `path` is a folder or a hub id, `dtype` a torch type or "auto". Raises PipelineError.
    """
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    try:
        return AutoModelForCausalLM.from_pretrained(
            path, revision=revision, dtype=dtype, trust_remote_code=False, **options
        )
    except (OSError, ValueError) as error:
        raise not_loaded(path, "weights cannot be loaded", error) from None


def cpu_has_bfloat16() -> bool:
    """Return True if this CPU has instructions for bfloat16; without them it is many times slower
    than float32."""
    import torch

    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def load_config(path: str, revision: str | None) -> Any:
    """Load the model's configuration with transformers. Raises PipelineError."""
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(path, revision=revision, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise not_loaded(path, "config cannot be read", error) from None


def size_of(path: str, revision: str | None) -> Size | None:
    """Measure a model by its folder or hub id; None if its files are not on this machine."""
    folder = _folder(path, revision)
    files = sorted(folder.glob("*.safetensors")) if folder else []
    if not files:
        return None
    from safetensors import safe_open

    parameters = 0
    for file in files:
        with safe_open(str(file), framework="numpy") as tensors:
            for key in tensors.keys():  # noqa: SIM118
                parameters += math.prod(tensors.get_slice(key).get_shape())
    return Size(parameters, sum(file.stat().st_size for file in files))


def not_loaded(path: str, problem: str, error: Exception) -> PipelineError:
    """Return the error of a model whose files transformers cannot load."""
    first = str(error).strip().splitlines()[0]
    return PipelineError(
        f"{path}: its {problem} ({first}); check the name, or fetch it to a folder first"
    )


def _folder(path: str, revision: str | None) -> Path | None:
    if Path(path).is_dir():
        return Path(path)
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return Path(snapshot_download(path, revision=revision, local_files_only=True))
    except LocalEntryNotFoundError:
        return None
