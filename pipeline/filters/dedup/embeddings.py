"""What a text means, as a vector: a small encoder's hidden states, averaged over its tokens (Reimers & Gurevych 2019, Sentence-BERT)."""

import multiprocessing
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import PipelineError
from pipeline.filters.dedup.duplicates import texts
from pipeline.filters.measures import Batch, Measure
from pipeline.models import resolve

TOGETHER = 16  # windows of text that go through the model at a time


def measure(of: str, model: str, revision: str | None = None, max_tokens: int = 256) -> Measure:
    """Vectors of reply or input, found again when the model is another one under the same name."""
    resolve.check(model)
    identity = resolve.identity(model, revision)
    return Measure(
        embedded,
        {
            "of": of,
            "model": model,
            "revision": revision,
            "max_tokens": max_tokens,
            "identity": identity,
        },
    )


def embedded(
    batch: Batch, of: str, model: str, revision: str | None, max_tokens: int, identity: str
) -> NDArray[np.float16]:
    """Unit vectors of reply or input (`duplicates.texts`), (N, hidden). Longer texts are read in windows of `max_tokens`."""
    tokenizer, encoder = _loaded(resolve.model_path(model), revision)
    cut: Any = tokenizer(
        texts(batch, of), truncation=True, max_length=max_tokens, return_overflowing_tokens=True
    )
    sums = np.zeros((len(batch.samples), encoder.config.hidden_size), np.float32)
    np.add.at(
        sums, cut["overflow_to_sample_mapping"], _summed(tokenizer, encoder, cut["input_ids"])
    )
    unit: NDArray[np.float16] = (
        sums / np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-12)
    ).astype(np.float16)
    return unit


def _summed(tokenizer: Any, encoder: Any, windows: Sequence[list[int]]) -> NDArray[np.float32]:
    """The sum of each window's hidden states, (windows, hidden). Windows of like lengths go together, so few tokens are padding."""
    import torch

    found = np.zeros((len(windows), encoder.config.hidden_size), np.float32)
    order = np.argsort([len(ids) for ids in windows], kind="stable")
    for some in np.split(order, range(TOGETHER, len(order), TOGETHER)):
        inputs = tokenizer.pad({"input_ids": [windows[row] for row in some]}, return_tensors="pt")
        with torch.inference_mode():
            hidden = encoder(**inputs).last_hidden_state  # (B, T, H)
        found[some] = (hidden * inputs["attention_mask"][..., None]).sum(1).numpy()
    return found


@lru_cache(1)
def _loaded(path: str, revision: str | None) -> tuple[Any, Any]:
    """Tokenizer and encoder, in float32 on the CPU."""
    import torch
    from transformers import AutoModel, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    if multiprocessing.parent_process():  # the other cores have processes of their own
        torch.set_num_threads(1)
    options: dict[str, Any] = {"revision": revision, "trust_remote_code": False}
    try:
        encoder = AutoModel.from_pretrained(
            path, dtype=torch.float32, use_safetensors=True, **options
        )
        return AutoTokenizer.from_pretrained(path, **options), encoder.eval()
    except (OSError, ValueError) as error:
        first = str(error).strip().splitlines()[0]
        raise PipelineError(
            f"{path}: no encoder can be loaded from it ({first}); give a folder with safetensors, or a hub id"
        ) from None
