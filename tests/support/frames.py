"""Stored token probabilities for the samples of a test."""

import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pipeline.records import Frame, Sample
from pipeline.storage.topk import Header, TopKFolder, checksum, encode

# (token, probability): the written token, then the others by falling probability.
Distribution = list[tuple[int, float]]
HEADER = Header(
    stage="generate",
    teacher="t",
    revision=None,
    tokenizer="h",
    chat_template=None,
    vocab_size=500,
    k=4,
    mass=1.0,
    threshold=0.0,
    logprobs_mode="raw_logprobs",
    head_dtype="float32",
    engine="fake 1",
)


def framed(
    folder: Path, samples: Sequence[Sample], distributions: Sequence[Sequence[Distribution]]
) -> tuple[list[Sample], TopKFolder]:
    """Return the samples with token ids and frames in a new file, and the folder of frames.

    The mass missing in a distribution is its tail.
    """
    name = f"{zlib.crc32(repr(distributions).encode())}.topk"
    data = HEADER.to_bytes()
    made = []
    for sample, tokens in zip(samples, distributions, strict=True):
        width = max((len(entries) for entries in tokens), default=1)
        ids = np.zeros((len(tokens), width), np.int32)
        logprobs = np.full((len(tokens), width), -np.inf, np.float32)
        for row, entries in enumerate(tokens):
            ids[row, : len(entries)] = [token for token, _ in entries]
            logprobs[row, : len(entries)] = np.log([probability for _, probability in entries])
        frame = encode(ids, logprobs, HEADER, 0)
        written = ids[:, 0].tolist()
        place = Frame(
            file=name, offset=len(data), nbytes=len(frame), crc32=checksum(frame, written)
        )
        made.append(sample.model_copy(update={"token_ids": written, "frame": place}))
        data += frame
    (folder / name).write_bytes(data)
    return made, TopKFolder(folder)
