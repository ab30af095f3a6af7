"""What a live teacher reads beside a batch, and which of its positions belong to the student's.

Dimension names: B rows of the student, T tokens of a row, R rows of the teacher, S tokens of such
a row, M tokens that have a loss and that the teacher reads too.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.data.encoding import IGNORED, UNKNOWN, Example


class Shared(NamedTuple):
    """The rows of a live teacher, and the positions that both models predict M tokens from.

    Attributes:
        ids: (R, S) the teacher's prompt and the completion, padded on the right.
        student: (M,) positions in the student's batch, counted over all of its (B, T).
        teacher: (M,) positions in `ids`, counted over all of its (R, S).
        weights: (M,) weights of the tokens.
        counts: tokens of each of the R rows, M in all.
    """

    ids: Tensor
    student: Tensor
    teacher: Tensor
    weights: Tensor
    counts: list[int]


class TeacherRows:
    """Makes the teacher's rows of a batch. Rows that it does not read, as of canaries, lack one."""

    def __init__(self, examples: Sequence[Example], pad_id: int):
        self._prompts = [example.teacher_prompt for example in examples]
        self._replies = [example.teacher_ids for example in examples]
        self._pad_id = pad_id

    def batch(
        self,
        labels: Tensor,
        weights: NDArray[np.float32],
        places: NDArray[np.int64],
        sources: NDArray[np.int64],
    ) -> dict[str, Any]:
        """Return the entries of a batch that `shared` reads.

        Args:
            labels: (B, T) of the student's batch.
            weights, places, sources: (N,) of its tokens that have a loss: weight, place in the
                teacher's completion or UNKNOWN, number of the example.
        """
        positions = np.flatnonzero(labels.numpy().ravel() != IGNORED) - 1
        known = (places != UNKNOWN) & np.array([bool(self._prompts[one]) for one in sources], bool)
        numbers = list(dict.fromkeys(sources[known].tolist()))
        row_of = {number: row for row, number in enumerate(numbers)}
        rows = np.array([row_of[number] for number in sources[known]], np.int64)
        ids = self._padded(numbers)
        begins = np.array([len(self._prompts[number]) for number in sources[known]], np.int64)
        entries = (
            torch.from_numpy(ids),
            torch.from_numpy(positions[known]),
            torch.from_numpy(rows * ids.shape[1] + begins + places[known] - 1),
            torch.from_numpy(weights[known].astype(np.float32)),
            np.bincount(rows, minlength=len(numbers)).tolist(),
        )
        return {_key(name): entry for name, entry in zip(Shared._fields, entries, strict=True)}

    def _padded(self, numbers: list[int]) -> NDArray[np.int64]:
        rows = [self._prompts[number] + self._replies[number] for number in numbers]
        ids = np.full((len(rows), max(map(len, rows), default=0)), self._pad_id, np.int64)
        for row, tokens in zip(ids, rows, strict=True):
            row[: len(tokens)] = tokens
        return ids


def shared(batch: dict[str, Any]) -> Shared:
    """Return the entries of a batch that `TeacherRows` made."""
    return Shared(*(batch[_key(name)] for name in Shared._fields))


def _key(name: str) -> str:
    return f"shared_{name}"
