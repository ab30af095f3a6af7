"""Write files so that a crash leaves them whole or absent: see docs/explanation/durability.md."""

import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any

from pipeline.errors import PipelineError

OBJECTS = frozenset({"config", "fingerprint", "counts", "files", "versions"})


def sha256(path: Path) -> str:
    """Return the hex SHA-256 of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_atomic(path: Path, data: bytes | str) -> None:
    """Write a whole file; a crash leaves the old one or the new one, never a part."""
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("wb") as file:
        file.write(data.encode() if isinstance(data, str) else data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make renames in `folder` durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def append(file: IO[bytes], parts: Iterable[bytes]) -> None:
    """Add bytes to an unbuffered file and make them durable."""
    data = memoryview(b"".join(parts))
    while data:
        data = data[file.write(data) :]
    os.fsync(file.fileno())


def write_json(path: Path, value: Any) -> None:
    """Write a value as an indented JSON file, atomically."""
    write_atomic(path, _json_text(value))


def update_json(path: Path, value: Any) -> None:
    """Write a JSON file, unless it already holds exactly this value."""
    text = _json_text(value)
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        write_atomic(path, text)


def _json_text(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def read_json(path: Path) -> Any:
    """Return the content of a JSON file. Raises PipelineError with the line if it is not JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise PipelineError(
            f"{path}:{error.lineno}: not JSON ({error.msg}); was it edited by hand?"
        ) from None
    except (UnicodeDecodeError, RecursionError) as error:
        raise PipelineError(f"{path}: not JSON ({error}); was it edited by hand?") from None


def read_object(path: Path, *keys: str) -> dict[str, Any]:
    """Return a JSON object that has these keys; those in OBJECTS are objects themselves.

    Raises PipelineError if the file holds something else.
    """
    value = read_json(path)
    missing = keys[:1]
    if isinstance(value, dict):
        missing = tuple(
            key
            for key in keys
            if key not in value or (key in OBJECTS and not isinstance(value[key], dict))
        )
    if missing or not isinstance(value, dict):
        what = f"has no usable '{missing[0]}'" if missing else "is no JSON object"
        raise PipelineError(
            f"{path}: {what}; was it edited by hand? Put it back, or remove it and regenerate the "
            "stage with --redo"
        )
    return value


def content(manifest: dict[str, Any]) -> str:
    """Return the digest of a finished part's outputs, from its manifest."""
    return hashlib.sha256(json.dumps(manifest["files"], sort_keys=True).encode()).hexdigest()
