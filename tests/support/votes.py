"""Answers of several samples to the same example."""

import numpy as np
from numpy.typing import NDArray

from pipeline.filters.hashing import text_key


def keys(*texts: str | None) -> NDArray[np.uint64]:
    """Return the hash key of each text."""
    return np.array([text_key(text) for text in texts], np.uint64)


SEEDS = keys("a", "a", "a", "a", "b", "b", "c")
ANSWERS = keys("1", "1", "1", "2", "1", "2", None)
