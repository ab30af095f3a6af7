"""From rows to batches: columns for the trainer, packing, and the collator that reads the teacher's distributions frame by frame.

Dimension names: B rows, T tokens of a row, N tokens of the batch that bear a loss, K entries of a token.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Sampler
from transformers.trainer_pt_utils import get_length_grouped_indices
from trl import pack_dataset
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

from pipeline.data.encoding import IGNORED, UNKNOWN, Example
from pipeline.data.vocabulary import Vocabulary
from pipeline.losses.distillation import Teacher
from pipeline.storage.soft_labels import SoftLabels
from pipeline.storage.topk import TopK, TopKFolder

BODY_INPUTS = (
    "input_ids",
    "attention_mask",
    "position_ids",
    "cu_seq_lens_q",
    "cu_seq_lens_k",
    "max_length_q",
    "max_length_k",
    "seq_idx",
)
COLUMNS = ("weights", "rows", "sources")  # beside input_ids and labels, one entry a token


def dataset(examples: Sequence[Example], pack_to: int | None = None) -> Dataset:
    """The rows as columns; `sources` says of every token which example it is from. `pack_to`: several examples a row, up to so many tokens,
    by best fit decreasing (trl.pack_dataset)."""
    columns: dict[str, list[Any]] = {
        "input_ids": [example.input_ids for example in examples],
        "labels": [example.labels for example in examples],
        "weights": [example.weights for example in examples],
        "rows": [example.rows for example in examples],
        "sources": [[number] * len(example.input_ids) for number, example in enumerate(examples)],
    }
    rows = Dataset.from_dict(columns)
    return pack_dataset(rows, pack_to, "bfd") if pack_to else rows


class Frames:
    """The distributions of the examples, by their number in the dataset; `vocabulary` translates them for a student with one of its own,
    `soft` replaces that of the answer's label."""

    def __init__(
        self,
        folder: TopKFolder,
        examples: Sequence[Example],
        vocabulary: Vocabulary | None = None,
        soft: SoftLabels | None = None,
    ):
        self._folder, self._vocabulary, self._soft = folder, vocabulary, soft
        self._places = [(example.frame, example.teacher_ids, example.id) for example in examples]

    def topk(self, number: int) -> TopK:
        frame, teacher_ids, identifier = self._places[number]
        assert frame is not None
        topk = self._folder.frame(frame, teacher_ids)
        topk = self._soft.topk(identifier, topk) if self._soft else topk
        return self._vocabulary.topk(topk) if self._vocabulary else topk


class Collator:
    """TRL's collator, and for all tokens of the batch that bear a loss, in their order, `weights` (N,) and with `frames` what the teacher
    thought of them: topk_ids (N, K), topk_logprobs (N, K), topk_tail (N,), topk_exact (N,), topk_known (N,).

    `packed`: one row of all tokens, whose positions say where a sample begins, so that none sees another.
    """

    def __init__(self, pad_token_id: int, frames: Frames | None, packed: bool = False):
        self._base = DataCollatorForLanguageModeling(pad_token_id=pad_token_id, padding_free=packed)
        self._frames = frames

    def __call__(self, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
        batch: dict[str, Any] = self._base(rows)
        bearing = np.concatenate([row["labels"] for row in rows]) != IGNORED
        weights, places, sources = (
            np.concatenate([row[name] for row in rows])[bearing] for name in COLUMNS
        )
        batch["weights"] = torch.from_numpy(weights.astype(np.float32))
        if self._frames is not None:
            batch |= {
                f"topk_{name}": tensor
                for name, tensor in vars(_gather(self._frames.topk, sources, places)).items()
            }
        return batch


class ByLength(Sampler[int]):
    """Rows so that every `batch_size` in a row are of about one length, in an order drawn from `seed` and the epoch alone: whoever goes on
    in a later epoch, and every process, draws the same one."""

    def __init__(self, lengths: Sequence[int], batch_size: int, seed: int):
        self._lengths, self._batch_size, self._seed, self._epoch = lengths, batch_size, seed, 0

    def set_epoch(self, epoch: int) -> None:
        self._epoch = epoch

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self._seed + self._epoch)
        return iter(
            get_length_grouped_indices(self._lengths, self._batch_size, generator=generator)
        )

    def __len__(self) -> int:
        return len(self._lengths)


def stack(topks: Sequence[TopK]) -> Teacher:
    """All tokens of several frames, one frame behind another."""
    lengths = [len(topk.ids) for topk in topks]
    return _gather(
        topks.__getitem__,
        np.repeat(np.arange(len(topks)), lengths),
        np.concatenate([np.arange(length) for length in lengths]),
    )


def _gather(
    frame: Callable[[int], TopK], sources: NDArray[np.int64], places: NDArray[np.int64]
) -> Teacher:
    """The distributions of N tokens, each row `places` of the frame of example `sources`."""
    known = places != UNKNOWN
    topks = {number: frame(number) for number in dict.fromkeys(sources[known].tolist())}
    shape = (len(sources), max((topk.ids.shape[1] for topk in topks.values()), default=1))
    ids, logprobs = np.zeros(shape, np.int64), np.full(shape, -np.inf, np.float32)
    tail, exact = np.zeros(len(sources), np.float32), np.zeros(len(sources), np.int64)
    for number, topk in topks.items():
        at = np.flatnonzero(known & (sources == number))
        of, width = places[at], topk.ids.shape[1]
        ids[at, :width], logprobs[at, :width], tail[at], exact[at] = (
            topk.ids[of],
            topk.logprobs[of],
            topk.tail[of],
            topk.exact[of],
        )
    return Teacher(*(torch.from_numpy(array) for array in (ids, logprobs, tail, exact, known)))


def stored_teacher(batch: dict[str, Any]) -> Teacher | None:
    """The distributions that a batch brings."""
    if "topk_ids" not in batch:
        return None
    return Teacher(
        *(batch[f"topk_{name}"] for name in ("ids", "logprobs", "tail", "exact", "known"))
    )


def loss_mask(batch: dict[str, Any]) -> Tensor:
    """(B, T - 1) bool: which positions predict a token that bears a loss."""
    mask: Tensor = batch["labels"][:, 1:] != IGNORED
    return mask
