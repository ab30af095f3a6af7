"""What a teacher thinks of the labels once its prompt's bias is taken off, in the place of what it thought of the answer's token.

RUN/filter/kept/soft_labels.npz, written where filter.calibrated is on: `ids` (L,) the first token of each label; for each kept sample with
a readable label `samples` (N,) its id, `places` (N, 2) the token of the completion that tells its label, and the label's number, `logprobs`
(N, L) nats.
"""

import io
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import PipelineError
from pipeline.storage.files import write_atomic
from pipeline.storage.topk import TopK

FILE = "soft_labels.npz"


@dataclass(frozen=True)
class SoftLabels:
    """`of`: for each sample, by its id, the token that tells its label, the label's number, and the labels' logprobs (L,)."""

    ids: NDArray[np.int64]  # (L,)
    of: Mapping[str, tuple[int, int, NDArray[np.float32]]]

    @classmethod
    def read(cls, kept: Path) -> Self:
        """Those of a finished filter. Raises PipelineError if it wrote none."""
        try:
            with np.load(kept / FILE, allow_pickle=False) as arrays:
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
        except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
            raise PipelineError(
                f"{kept / FILE}: no soft labels ({error}); run the filter with filter.calibrated={{}}"
            ) from None

    def topk(self, sample: str, topk: TopK) -> TopK:
        """The sample's distributions with that of its label's token replaced: the token written stands for its own label, the others are
        where they are told apart, nothing is tail. Unchanged where the label could not be read."""
        if sample not in self.of:
            return topk
        place, label, logprobs = self.of[sample]
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
    """Write the soft labels of the kept samples; those of which the label cannot be read are left out."""
    readable = (places[:, 0] >= 0) & ~np.isnan(logprobs).any(axis=1)
    file = io.BytesIO()
    names = np.array([name for name, there in zip(samples, readable, strict=True) if there], str)
    np.savez_compressed(
        file, ids=ids, samples=names, places=places[readable], logprobs=logprobs[readable]
    )
    write_atomic(kept / FILE, file.getvalue())


def _widened(array: NDArray, width: int, fill: float) -> NDArray:
    """(T, width)"""
    wide = np.full((len(array), width), fill, array.dtype)
    wide[:, : array.shape[1]] = array
    return wide
