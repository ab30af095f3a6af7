"""Files that survive: whole or absent, and locks that end with their process. docs/explanation/durability.md says what is promised."""

import errno
import fcntl
import gzip
import hashlib
import json
import os
import re
import socket
import time
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, TypeVar

from pipeline.errors import PipelineError
from pipeline.records import Identified

SEALED = re.compile(r"\d{5,}\.jsonl\.gz")
LOCK_POLL_SECONDS = 0.1

T = TypeVar("T", bound=Identified)


def sha256(path: Path) -> str:
    """Hex SHA-256 of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_atomic(path: Path, data: bytes | str) -> None:
    """Write a whole file so that a crash leaves the old one or the new one, never a part."""
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
    write_atomic(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise PipelineError(f"{path}:{error.lineno}: not JSON ({error.msg}); was it edited by hand?") from None


class Lock:
    """A POSIX record lock on a file: one process alone, or many that share it. It ends with the process, on a shared folder too where
    the file system keeps locks; forked children have no share in it. One object a file and process: closing another one would end it."""

    def __init__(self, path: Path):
        self.path = path
        self._file: IO[str] | None = None

    def take(self, shared: bool = False) -> bool:
        """Take the lock if it is free, or change one that is held from alone to shared. Returns whether it is held now."""
        file = self._file or self.path.open("a+")
        try:
            fcntl.lockf(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except OSError as error:
            if file is not self._file:
                file.close()
            if error.errno in (errno.EACCES, errno.EAGAIN):
                return False
            raise PipelineError(f"{self.path}: the file system keeps no locks ({error.strerror}); use another run_dir") from None
        self._file = file
        if not shared:
            file.truncate(0)
            file.write(f"{os.getpid()} on {socket.gethostname()}\n")
            file.flush()
        return True

    def release(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    @property
    def holder(self) -> str:
        """Who took it last, alone."""
        try:
            return self.path.read_text().strip() or "?"
        except OSError:
            return "?"


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock alone, waiting for it: for what takes others only moments."""
    lock = Lock(path)
    while not lock.take():
        time.sleep(LOCK_POLL_SECONDS)
    try:
        yield
    finally:
        lock.release()


def content(manifest: dict[str, Any]) -> str:
    """Digest of what a finished stage made, by its manifest."""
    return hashlib.sha256(json.dumps(manifest["files"], sort_keys=True).encode()).hexdigest()


def sealed_shards(folder: Path) -> list[Path]:
    """The finished shards of `folder`, in order."""
    return sorted((path for path in folder.glob("*.jsonl.gz") if SEALED.fullmatch(path.name)), key=lambda path: int(path.name[:-9]))


def read_lines(path: Path) -> Iterator[bytes]:
    """The lines of a sealed shard. Raises PipelineError if its checksum does not hold."""
    try:
        with gzip.open(path, "rb") as file:
            yield from file
    except (OSError, EOFError, zlib.error) as error:
        raise PipelineError(f"{path}: is damaged ({error}); pipeline verify RUN --repair has just that part made again") from None


def pack_lines(lines: Iterable[bytes]) -> bytes:
    """A sealed shard's bytes; the same lines give the same bytes."""
    return gzip.compress(b"".join(lines), compresslevel=9, mtime=0)


def read_records(folder: Path, record: type[T]) -> Iterator[T]:
    """All records of the sealed shards of `folder`, in input order."""
    for path in sealed_shards(folder):
        for number, line in enumerate(read_lines(path), start=1):
            yield record.from_line(line, f"{path}:{number}")


def write_shards(folder: Path, records: Iterable[Identified], shard_size: int = 4096) -> None:
    """Write records as sealed shards, replacing what is there. For stages that are quick to make again."""
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
