"""Sentence embeddings: the hidden states of a small encoder, averaged over the tokens of a text
(Reimers & Gurevych 2019, Sentence-BERT).
"""

import multiprocessing
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import PipelineError
from pipeline.filters.dedup.duplicates import Part, compared_texts
from pipeline.filters.measures import Batch, Measure
from pipeline.models import resolve

BATCH_SIZE = 16  # windows of text that the model reads at a time


def measure(part: Part, encoder: str, max_tokens: int = 256) -> Measure:
    """Return the measure of embeddings. It is computed again if the encoder's files change."""
    model, revision = _model_and_revision(encoder)
    resolve.check(model)
    settings = {
        "part": part,
        "model": model,
        "revision": revision,
        "max_tokens": max_tokens,
        "identity": resolve.identity(model, revision),
    }
    return Measure(embed, settings)


def identities(encoder: str) -> dict[str, str]:
    """Return an identity of the encoder, which changes when its files do."""
    return {f"encoder {encoder}": resolve.identity(*_model_and_revision(encoder))}


def _model_and_revision(encoder: str) -> tuple[str, str | None]:
    """Split ID@REVISION. A package or a folder is not split, since its name may contain @."""
    if encoder.startswith("package:") or Path(encoder).exists():
        return encoder, None
    model, _, revision = encoder.partition("@")
    return model, revision or None


def embed(
    batch: Batch, part: Part, model: str, revision: str | None, max_tokens: int, identity: str
) -> NDArray[np.float16]:
    """Return unit vectors (N, H) of the replies or inputs.

    Longer texts are read in windows of `max_tokens`. `identity` is not used here, but as a setting
    of the measure it changes the name of the cached column.
    """
    tokenizer, encoder = _load(resolve.model_path(model), revision)
    windows: Any = tokenizer(
        compared_texts(batch, part),
        truncation=True,
        max_length=max_tokens,
        return_overflowing_tokens=True,
    )
    sums = np.zeros((len(batch.samples), encoder.config.hidden_size), np.float32)
    hidden = _sum_hidden_states(tokenizer, encoder, windows["input_ids"])
    np.add.at(sums, windows["overflow_to_sample_mapping"], hidden)
    norms = np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-12)
    unit: NDArray[np.float16] = (sums / norms).astype(np.float16)
    return unit


def _sum_hidden_states(
    tokenizer: Any, encoder: Any, windows: Sequence[list[int]]
) -> NDArray[np.float32]:
    """Return the sum of each window's hidden states, (windows, H)."""
    import torch

    sums = np.zeros((len(windows), encoder.config.hidden_size), np.float32)
    # Windows of similar length go together, which saves padding.
    order = np.argsort([len(ids) for ids in windows], kind="stable")
    for rows in np.split(order, range(BATCH_SIZE, len(order), BATCH_SIZE)):
        inputs = tokenizer.pad({"input_ids": [windows[row] for row in rows]}, return_tensors="pt")
        with torch.inference_mode():
            hidden = encoder(**inputs).last_hidden_state  # (B, T, H)
        sums[rows] = (hidden * inputs["attention_mask"][..., None]).sum(1).numpy()
    return sums


@lru_cache(1)
def _load(path: str, revision: str | None) -> tuple[Any, Any]:
    """Return tokenizer and encoder, in float32 on the CPU."""
    import torch
    from transformers import AutoModel, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    if multiprocessing.parent_process():  # each other core has a worker process
        torch.set_num_threads(1)
    options: dict[str, Any] = {"revision": revision, "trust_remote_code": False}
    try:
        encoder = AutoModel.from_pretrained(
            path, dtype=torch.float32, use_safetensors=True, **options
        )
        return AutoTokenizer.from_pretrained(path, **options), encoder.eval()
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise PipelineError(
            f"{path}: no encoder can be loaded from it ({reason}); "
            "give a folder with safetensors, or a hub id"
        ) from None
