"""A damaged file of a run is one line that says what to do, whichever byte is damaged."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import PipelineError
from pipeline.storage import samples, soft_labels
from pipeline.storage.files import read_json, read_object, write_json
from pipeline.storage.soft_labels import SoftLabels


def kept(folder: Path) -> Path:
    """Write numbers and soft labels as filter does."""
    write_json(folder / "manifest.json", {"files": {"a": {"sha256": "0"}}})
    samples.keep(folder / "kept", np.arange(40), folder)
    soft_labels.write(
        folder / "kept",
        np.array([5, 6]),
        ["a/0", "b/0"],
        np.array([[0, 1], [2, 0]], np.int32),
        np.log(np.array([[0.5, 0.5], [0.9, 0.1]], np.float32)),
    )
    return folder / "kept"


@pytest.mark.parametrize(
    ("name", "read", "advice"),
    [
        (samples.ROWS, samples.kept_rows, "run pipeline filter with --redo"),
        (soft_labels.FILE, SoftLabels.read, "run pipeline filter with --redo"),
    ],
)
def test_any_flipped_byte_is_a_user_error(
    tmp_path: Path, name: str, read: Callable[[Path], object], advice: str
) -> None:
    """zlib.error, struct.error and others reached the user as a traceback."""
    folder = kept(tmp_path)
    whole, words = (folder / name).read_bytes(), []
    for place in range(len(whole)):
        for flip in (0xFF, 0x01):
            damaged = bytearray(whole)
            damaged[place] ^= flip
            (folder / name).write_bytes(damaged)
            try:
                read(folder)
            except PipelineError as error:
                words.append(str(error))
    assert len(words) > len(whole)  # fields such as times may be anything
    assert all(advice in line for line in words)


@pytest.mark.parametrize("length", [0, 1, 50, 200])
def test_cut_files_are_a_user_error(tmp_path: Path, length: int) -> None:
    """A copy that was cut short must not end in a traceback."""
    folder = kept(tmp_path)
    for name, read in ((samples.ROWS, samples.kept_rows), (soft_labels.FILE, SoftLabels.read)):
        (folder / name).write_bytes((folder / name).read_bytes()[:length])
        with pytest.raises(PipelineError, match="--redo"):
            read(folder)


@pytest.mark.parametrize(
    "content", [b"[]", b"null", b"7", b'"x"', b"{}", b'{"config": []}', b"\xff\xfe", b"[" * 9999]
)
def test_json_of_another_shape_is_a_user_error(tmp_path: Path, content: bytes) -> None:
    """A begun.json that held [] gave a TypeError."""
    path = tmp_path / "begun.json"
    path.write_bytes(content)
    with pytest.raises(PipelineError, match=r"begun\.json"):
        read_object(path, "config")


def test_json_objects_are_read(tmp_path: Path) -> None:
    """The check must not refuse what a stage wrote."""
    path = tmp_path / "begun.json"
    write_json(path, {"config": {}, "seconds": 1})
    assert read_object(path, "config", "seconds") == read_json(path) == {"config": {}, "seconds": 1}
