"""Make batches from rows: dataset columns, packing, order by length, and the collator.

The collator also reads the teacher's distributions.

Dimension names: B rows, T tokens of a row, N tokens of the batch that have a loss, K entries of a
token.
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
from pipeline.training.teacher_rows import TeacherRows

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
COLUMNS = ("weights", "rows", "sources")  # beside input_ids and labels, one entry per token
TEACHER = ("ids", "logprobs", "tail", "exact", "known")  # in a batch as topk_ids and so on


def dataset(examples: Sequence[Example], pack_to: int | None = None) -> Dataset:
    """Return the rows as columns. `sources` holds for each token the index of its example.

    pack_to: pack several examples into rows of at most this many tokens, by best-fit decreasing
        (trl.pack_dataset).
    """
    columns: dict[str, list[Any]] = {
        name: [getattr(example, name) for example in examples]
        for name in ("input_ids", "labels", "weights", "rows")
    }
    lengths = [len(example.input_ids) for example in examples]
    columns["sources"] = [[number] * length for number, length in enumerate(lengths)]
    rows = Dataset.from_dict(columns)
    return pack_dataset(rows, pack_to, "bfd") if pack_to else rows


class Frames:
    """The teacher's distributions of the examples.

    vocabulary: translates them for a student with a trimmed vocabulary.
    soft: replaces the distribution of the answer's label.
    learns_answers: the answer's tokens are learned by cross-entropy alone.
    """

    def __init__(
        self,
        folder: TopKFolder,
        examples: Sequence[Example],
        vocabulary: Vocabulary | None = None,
        soft: SoftLabels | None = None,
        learns_answers: bool = False,
    ):
        self._folder = folder
        self._examples = [(example.frame, example.teacher_ids, example.id) for example in examples]
        self.has_frame = np.array([example.frame is not None for example in examples], bool)
        self._vocabulary = vocabulary
        self._soft = soft
        self._learns_answers = learns_answers
        self.has_alphas = soft is not None or learns_answers
        places = soft.by_sample if soft else {}
        nowhere = UNKNOWN - 1
        # by example: the row of its frame that the soft label replaces, and those of its answer
        self._soft_place = np.array(
            [places[example.id][0] if example.id in places else nowhere for example in examples]
        )
        self._answers = np.array([example.answer for example in examples]).reshape(-1, 2)

    def alphas(self, sources: NDArray[np.int64], rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the alpha of N tokens, nan for one that has none of its own.

        Token i is in row rows[i] of the frame of example sources[i]. A soft label has alpha 0,
        since the token that was written may be a wrong label.
        """
        alphas = np.full(len(sources), np.nan, np.float32)
        if self._learns_answers:
            first, end = self._answers[sources].T
            alphas[(first <= rows) & (rows < end)] = 1.0
        alphas[rows == self._soft_place[sources]] = 0.0
        return alphas

    def topk(self, number: int) -> TopK:
        """Return the distributions of the example with this index."""
        frame, teacher_ids, identifier = self._examples[number]
        assert frame is not None
        topk = self._folder.frame(frame, teacher_ids)
        if self._soft:
            topk = self._soft.topk(identifier, topk)
        return self._vocabulary.topk(topk) if self._vocabulary else topk


class Collator:
    """TRL's collator, with the `weights` (N,) of all tokens that have a loss, in their order.

    With `frames` it adds the teacher's distributions: topk_ids (N, K), topk_logprobs (N, K),
    topk_tail (N,), topk_exact (N,), topk_known (N,), and for some arms topk_alpha (N,).

    packed: put all tokens into one row. Their positions keep samples from seeing one another.
    teacher: adds what a live teacher reads beside the batch.
    """

    def __init__(
        self,
        pad_token_id: int,
        frames: Frames | None,
        packed: bool = False,
        teacher: TeacherRows | None = None,
    ):
        self._base = DataCollatorForLanguageModeling(pad_token_id=pad_token_id, padding_free=packed)
        self._frames = frames
        self._teacher = teacher

    def __call__(self, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
        batch: dict[str, Any] = self._base(rows)
        mask = _joined(rows, "labels") != IGNORED
        weights, places, sources = (_joined(rows, name)[mask] for name in COLUMNS)
        batch["weights"] = torch.from_numpy(weights.astype(np.float32))
        if self._frames is not None:
            stored = np.where(self._frames.has_frame[sources], places, UNKNOWN)
            teacher = _gather(self._frames.topk, sources, stored)
            batch |= {f"topk_{name}": getattr(teacher, name) for name in TEACHER}
            if self._frames.has_alphas:
                batch["topk_alpha"] = torch.from_numpy(self._frames.alphas(sources, stored))
        if self._teacher is not None:
            batch |= self._teacher.batch(batch["labels"], weights, places, sources)
        return batch


class ByLength(Sampler[int]):
    """Draw rows so that `batch_size` consecutive rows have about the same length.

    The order depends only on `seed` and the epoch, so all processes and a resumed run draw the same
    order.
    """

    def __init__(self, lengths: Sequence[int], batch_size: int, seed: int):
        self._lengths = lengths
        self._batch_size = batch_size
        self._seed = seed
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch of the next iteration."""
        self._epoch = epoch

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self._seed + self._epoch)
        order = get_length_grouped_indices(self._lengths, self._batch_size, generator=generator)
        return iter(order)

    def __len__(self) -> int:
        return len(self._lengths)


def stack(topks: Sequence[TopK]) -> Teacher:
    """Join the distributions of several frames into those of all their tokens."""
    lengths = [len(topk.ids) for topk in topks]
    sources = np.repeat(np.arange(len(topks)), lengths)
    return _gather(topks.__getitem__, sources, np.concatenate([*map(np.arange, lengths)]))


def stored_teacher(batch: dict[str, Any]) -> Teacher | None:
    """Return the teacher's distributions in a batch, None without them."""
    if "topk_ids" not in batch:
        return None
    return Teacher(**{name: batch.get(f"topk_{name}") for name in (*TEACHER, "alpha")})


def loss_mask(batch: dict[str, Any]) -> Tensor:
    """Return (B, T - 1) bool: True where a position predicts a token that has a loss."""
    mask: Tensor = batch["labels"][:, 1:] != IGNORED
    return mask


def _joined(rows: Sequence[dict[str, Any]], column: str) -> NDArray[Any]:
    return np.concatenate([row[column] for row in rows])


def _gather(
    topk_of: Callable[[int], TopK], sources: NDArray[np.int64], places: NDArray[np.int64]
) -> Teacher:
    """Return the distributions of N tokens.

    That of token i is row places[i] in the frame of example sources[i]. If places[i] is UNKNOWN,
    the token has none.
    """
    known = places != UNKNOWN
    topks = {number: topk_of(number) for number in dict.fromkeys(sources[known].tolist())}
    width = max((topk.ids.shape[1] for topk in topks.values()), default=1)
    ids = np.zeros((len(sources), width), np.int64)
    logprobs = np.full((len(sources), width), -np.inf, np.float32)
    tail = np.zeros(len(sources), np.float32)
    exact = np.zeros(len(sources), np.int64)
    for number, topk in topks.items():
        tokens = np.flatnonzero(known & (sources == number))
        rows = places[tokens]
        ids[tokens, : topk.ids.shape[1]] = topk.ids[rows]
        logprobs[tokens, : topk.ids.shape[1]] = topk.logprobs[rows]
        tail[tokens] = topk.tail[rows]
        exact[tokens] = topk.exact[rows]
    return Teacher(*map(torch.from_numpy, (ids, logprobs, tail, exact, known)))
