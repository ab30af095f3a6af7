"""The vocabulary of a student that has fewer tokens than its teacher: which of them it kept, and under which ids.

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
    """Tokens of a tokenizer that were kept. Token `kept[i]` of the original is token i of the student.

    Attributes:
        tokenizer: hash of the original tokenizer, which stored ids are held against.
        kept: original ids, rising.
    """

    tokenizer: str
    kept: tuple[int, ...]

    @classmethod
    def read(cls, folder: str | Path) -> "Vocabulary | None":
        """That of the model in `folder`; None for a model whose vocabulary is whole (or a hub id)."""
        path = Path(folder) / FILE
        if not path.is_file():
            return None
        found = read_json(path)
        return cls(found["tokenizer"], tuple(found["kept"]))

    def write(self, folder: Path) -> None:
        write_json(folder / FILE, {"tokenizer": self.tokenizer, "kept": list(self.kept)})

    def ids(self, teacher_ids: Sequence[int]) -> list[int]:
        """The student's ids of tokens. Raises PipelineError if one of them was not kept."""
        ids = self._student_ids(np.asarray(teacher_ids, np.int64))
        if (ids == LEFT_OUT).any():
            missing = int(teacher_ids[int(np.argmax(ids == LEFT_OUT))])
            raise PipelineError(
                f"student.trim_vocabulary: token {missing} is not among the {len(self.kept):,} that the student kept; "
                "the rows have changed since it was made: make it again with pipeline train --redo"
            )
        return [int(token) for token in ids]

    def topk(self, topk: TopK) -> TopK:
        """The same distributions over the student's tokens: the mass of entries that were not kept goes to the tail.

        Raises PipelineError if a sampled token (column 0) was not kept.
        """
        self.ids(topk.ids[:, 0].tolist())
        ids = self._student_ids(topk.ids)  # (T, K)
        live = topk.logprobs != -np.inf
        live[:, 0] = True  # a sampled token keeps its column even at probability 0
        stays = live & (ids != LEFT_OUT)
        lost = np.where(live & ~stays, np.exp(topk.logprobs, dtype=np.float64), 0.0).sum(
            axis=1
        )  # (T,)
        is_exact = np.arange(ids.shape[1]) < topk.exact[:, None]
        order = np.argsort(~stays, axis=1, kind="stable")[
            :, : int(stays.sum(axis=1).max(initial=1))
        ]
        stays_there = np.take_along_axis(stays, order, axis=1)
        with np.errstate(divide="ignore"):
            tail = np.log(np.exp(topk.tail, dtype=np.float64) + lost)
        return TopK(
            ids=np.where(stays_there, np.take_along_axis(ids, order, axis=1), 0),
            logprobs=np.where(
                stays_there, np.take_along_axis(topk.logprobs, order, axis=1), -np.inf
            ).astype(np.float32),
            tail=np.minimum(tail, 0.0).astype(np.float32),
            exact=(stays & is_exact).sum(axis=1),
        )

    @cached_property
    def _table(self) -> NDArray[np.int64]:
        """(V + 1,): student id by original id; the last stands for ids beyond."""
        table = np.full(self.kept[-1] + 2, LEFT_OUT, np.int64)
        table[list(self.kept)] = np.arange(len(self.kept))
        return table

    def _student_ids(self, ids: NDArray[np.int64]) -> NDArray[np.int64]:
        return self._table[np.clip(ids, 0, len(self._table) - 1)]
