"""The trimmed vocabulary of a student: the teacher's tokens that were kept, and their new ids.

Dimension names: T tokens of a completion, K entries of a token, V the teacher's vocabulary.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import PipelineError
from pipeline.storage.files import read_json, write_json
from pipeline.storage.topk import TopK

FILE = "vocabulary.json"  # beside the student's weights
LEFT_OUT = -1


@dataclass(frozen=True)
class Vocabulary:
    """The kept tokens. Token `kept[i]` of the teacher is token i of the student.

    Attributes:
        tokenizer: hash of the original tokenizer, with which stored ids are compared.
        kept: original ids, in ascending order.
    """

    tokenizer: str
    kept: tuple[int, ...]

    @classmethod
    def read(cls, folder: str | Path) -> "Vocabulary | None":
        """Read the vocabulary of a model's folder; None for a whole vocabulary or a hub id."""
        path = Path(folder) / FILE
        if not path.is_file():
            return None
        content = read_json(path)
        return cls(content["tokenizer"], tuple(content["kept"]))

    def write(self, folder: Path) -> None:
        """Write the vocabulary beside the student's weights."""
        write_json(folder / FILE, {"tokenizer": self.tokenizer, "kept": list(self.kept)})

    def ids(self, teacher_ids: Sequence[int]) -> list[int]:
        """Return the student's ids of tokens. Raises PipelineError if one was not kept."""
        ids = self._student_ids(np.asarray(teacher_ids, np.int64))
        if (ids == LEFT_OUT).any():
            missing = int(teacher_ids[int(np.argmax(ids == LEFT_OUT))])
            raise PipelineError(
                f"student.trim_vocabulary: token {missing} is not among the {len(self.kept):,} "
                "that the student kept; the rows have changed since the student was built: "
                "build it again with pipeline train --redo"
            )
        return [int(token) for token in ids]

    def teacher_ids(self, ids: Sequence[int]) -> list[int]:
        """Return the teacher's ids of the student's tokens."""
        return [self.kept[token] for token in ids]

    def topk(self, topk: TopK) -> TopK:
        """Return the distributions over the student's tokens.

        The probability of entries that were not kept is added to the tail.
        Raises PipelineError if a sampled token (column 0) was not kept.
        """
        self.ids(topk.ids[:, 0].tolist())
        ids = self._student_ids(topk.ids)  # (T, K)
        live = topk.logprobs != -np.inf
        live[:, 0] = True  # a sampled token keeps its column even at probability 0
        kept = live & (ids != LEFT_OUT)
        probabilities = np.exp(topk.logprobs, dtype=np.float64)
        lost = np.where(live & ~kept, probabilities, 0.0).sum(axis=1)  # (T,)
        is_exact = np.arange(ids.shape[1]) < topk.exact[:, None]
        width = int(kept.sum(axis=1).max(initial=1))
        order = np.argsort(~kept, axis=1, kind="stable")[:, :width]
        filled = np.take_along_axis(kept, order, axis=1)
        logprobs = np.take_along_axis(topk.logprobs, order, axis=1)
        with np.errstate(divide="ignore"):
            tail = np.log(np.exp(topk.tail, dtype=np.float64) + lost)
        return TopK(
            ids=np.where(filled, np.take_along_axis(ids, order, axis=1), 0),
            logprobs=np.where(filled, logprobs, -np.inf).astype(np.float32),
            tail=np.minimum(tail, 0.0).astype(np.float32),
            exact=(kept & is_exact).sum(axis=1),
        )

    @cached_property
    def _table(self) -> NDArray[np.int64]:
        """Return the student's id by original id, (V + 1,); the last entry is for ids beyond V."""
        table = np.full(self.kept[-1] + 2, LEFT_OUT, np.int64)
        table[list(self.kept)] = np.arange(len(self.kept))
        return table

    def _student_ids(self, ids: NDArray[np.int64]) -> NDArray[np.int64]:
        return self._table[np.clip(ids, 0, len(self._table) - 1)]
