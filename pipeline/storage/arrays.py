"""Read .npz files, whichever of their bytes is damaged."""

import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

ARRAY_ERRORS = (  # what numpy and zipfile raise, by the byte that is damaged
    OSError,
    ValueError,
    KeyError,
    EOFError,
    zipfile.BadZipFile,
    zlib.error,
    NotImplementedError,
    RuntimeError,
    MemoryError,
    OverflowError,
    SyntaxError,
    TypeError,
)


class DamagedError(Exception):
    """A file whose bytes are not those that were written."""


def read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """Return all arrays of an .npz file. Raises DamagedError, whichever byte is damaged."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except ARRAY_ERRORS as error:
        raise DamagedError(f"{type(error).__name__}: {error}") from None
