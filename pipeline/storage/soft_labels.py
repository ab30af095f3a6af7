"""Soft labels: the teacher's calibrated label probabilities, which replace those of one token.

RUN/filter/kept/soft_labels.npz is written where filter.calibrated is on. L is the number of labels,
N the number of kept samples whose label can be read. It holds

    ids       (L,)    the first token of each label
    samples   (N,)    the id of each sample
    places    (N, 2)  the position of the label's first token in the completion; the label's number
    logprobs  (N, L)  nats
"""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import compress
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import PipelineError
from pipeline.storage.arrays import DamagedError, read_arrays
from pipeline.storage.files import write_atomic
from pipeline.storage.topk import TopK

FILE = "soft_labels.npz"


@dataclass(frozen=True)
class SoftLabels:
    """Soft labels of a run: by sample id the label's position, its number, its logprobs (L,)."""

    ids: NDArray[np.int64]  # (L,)
    by_sample: Mapping[str, tuple[int, int, NDArray[np.float32]]]

    @classmethod
    def read(cls, kept: Path) -> Self:
        """Read the soft labels of a finished filter. Raises PipelineError if it wrote none."""
        try:
            arrays = read_arrays(kept / FILE)
            rows = zip(
                arrays["samples"].tolist(),
                arrays["places"].tolist(),
                arrays["logprobs"],
                strict=True,
            )
            return cls(
                arrays["ids"],
                {name: (place, label, logprobs) for name, (place, label), logprobs in rows},
            )
        except (DamagedError, KeyError, ValueError, TypeError) as error:
            remedy = "run the filter with filter.calibrated={}"
            if (kept / FILE).exists():
                remedy = "they are damaged; run pipeline filter with --redo"
            raise PipelineError(f"{kept / FILE}: no soft labels ({error}); {remedy}") from None

    def topk(self, sample: str, topk: TopK) -> TopK:
        """Return a sample's distributions, with the one at its label's position replaced.

        At that position the token that the teacher wrote gets its label's probability. The first
        tokens of the other labels get theirs, and the tail is empty. If the sample's label could
        not be read, return `topk` unchanged.
        """
        if sample not in self.by_sample:
            return topk
        place, label, logprobs = self.by_sample[sample]
        width = max(topk.ids.shape[1], len(self.ids))
        ids, values = _widened(topk.ids, width, 0), _widened(topk.logprobs, width, -np.inf)
        ids[place], values[place] = 0, -np.inf
        ids[place, : len(self.ids)] = [topk.ids[place, 0], *np.delete(self.ids, label)]
        values[place, : len(self.ids)] = [logprobs[label], *np.delete(logprobs, label)]
        tail, exact = topk.tail.copy(), topk.exact.copy()
        tail[place], exact[place] = -np.inf, len(self.ids)
        return TopK(ids, values, tail, exact)


def write(
    kept: Path,
    ids: NDArray[np.int64],
    samples: Sequence[str],
    places: NDArray[np.int32],
    logprobs: NDArray[np.float32],
) -> None:
    """Write the soft labels of the kept samples whose label can be read."""
    readable = (places[:, 0] >= 0) & ~np.isnan(logprobs).any(axis=1)
    file = io.BytesIO()
    names = np.array(list(compress(samples, readable)), str)
    np.savez_compressed(
        file, ids=ids, samples=names, places=places[readable], logprobs=logprobs[readable]
    )
    write_atomic(kept / FILE, file.getvalue())


def _widened(array: NDArray, width: int, fill: float) -> NDArray:
    """Return the array (T, K) filled up to (T, width)."""
    wide = np.full((len(array), width), fill, array.dtype)
    wide[:, : array.shape[1]] = array
    return wide
