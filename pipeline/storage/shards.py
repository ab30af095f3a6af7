"""Sealed shards: gzipped JSON lines that never change."""

import gzip
import re
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypeVar

from pipeline.errors import PipelineError
from pipeline.records import Identified
from pipeline.storage.files import write_atomic

SEALED = re.compile(r"\d{5,}\.jsonl\.gz")
T = TypeVar("T", bound=Identified)


def sealed_shards(folder: Path) -> list[Path]:
    """Return the sealed shards of `folder`, in order."""
    return sorted(
        (path for path in folder.glob("*.jsonl.gz") if SEALED.fullmatch(path.name)),
        key=lambda path: int(path.name[:-9]),
    )


def read_lines(path: Path) -> Iterator[bytes]:
    """Yield the lines of a sealed shard. Raises PipelineError if its checksum does not hold."""
    try:
        with gzip.open(path, "rb") as file:
            yield from file
    except (OSError, EOFError, zlib.error) as error:
        raise PipelineError(
            f"{path}: is damaged ({error}); pipeline verify RUN --repair regenerates just that part"
        ) from None


def pack_lines(lines: Iterable[bytes]) -> bytes:
    """Return the bytes of a sealed shard; the same lines give the same bytes."""
    return gzip.compress(b"".join(lines), compresslevel=9, mtime=0)


def read_records(folder: Path, record: type[T]) -> Iterator[T]:
    """Yield all records of the sealed shards of `folder`, in input order."""
    for path in sealed_shards(folder):
        for number, line in enumerate(read_lines(path), start=1):
            yield record.from_line(line, f"{path}:{number}")


def write_shards(folder: Path, records: Iterable[Identified], shard_size: int = 4096) -> None:
    """Write records as sealed shards, replacing those of `folder`. For stages that run quickly."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in sealed_shards(folder):
        old.unlink()
    lines: list[bytes] = []
    number = 0
    for record in records:
        lines.append(record.to_line())
        if len(lines) == shard_size:
            write_atomic(folder / f"{number:05d}.jsonl.gz", pack_lines(lines))
            lines, number = [], number + 1
    if lines or number == 0:
        write_atomic(folder / f"{number:05d}.jsonl.gz", pack_lines(lines))
