"""Files that survive: whole or absent, one writer each, and journals whose last line is the commit.

A shard is made as a journal (`00000.journal.jsonl`, with `00000.journal.topk` beside it where there are logprobs) that only
grows, and is sealed by rewriting it in input order under its final name. The sealed `.jsonl` is renamed into place last: if it
is there, the shard is done and is never touched again.
"""

import fcntl
import hashlib
import json
import os
import re
import time
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Generic, TypeVar

from pipeline.errors import PipelineError
from pipeline.records import Frame, Identified

COMMIT_SAMPLES = 64
COMMIT_SECONDS = 1.0
SEALED = re.compile(r"\d{5}\.jsonl")

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


def write_json(path: Path, value: Any) -> None:
    write_atomic(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise PipelineError(f"{path}:{error.lineno}: not JSON ({error.msg}); was it edited by hand?") from None


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold `folder` for this process alone. A POSIX record lock: it ends with the process, and forked children have no share in it."""
    with (folder / "lock").open("a+") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.seek(0)
            raise PipelineError(f"{folder}: process {file.read().strip() or '?'} is at work here; wait for it, or end it") from None
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield


def sealed_shards(folder: Path) -> list[Path]:
    """The finished shards of `folder`, in order."""
    return sorted(path for path in folder.glob("*.jsonl") if SEALED.fullmatch(path.name))


def read_records(folder: Path, record: type[T]) -> Iterator[T]:
    """All records of the sealed shards of `folder`, in input order."""
    for path in sealed_shards(folder):
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
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
            write_atomic(folder / f"{number:05d}.jsonl", b"".join(lines))
            lines, number = [], number + 1
    if lines or number == 0:
        write_atomic(folder / f"{number:05d}.jsonl", b"".join(lines))


class Shard(Generic[T]):
    """One shard while it is being made.

    `order` lists the ids it will hold, in input order. A record may carry a `frame` into a binary file beside the lines: the frame is
    made durable first, the line after it, so a line that is there has its frame. `begin` says what that file begins with.
    """

    def __init__(self, folder: Path, number: int, order: Sequence[str], record: type[T]):
        self.folder, self.name, self.order, self.record = folder, f"{number:05d}", order, record
        self.header = b""
        self.sealed = folder / f"{self.name}.jsonl"
        self.lines_path = folder / f"{self.name}.journal.jsonl"
        self.frames_path = folder / f"{self.name}.journal.topk"
        self.done: set[str] = set()
        self._lines: IO[bytes] | None = None
        self._frames: IO[bytes] | None = None
        self._pending_lines: list[bytes] = []
        self._pending_frames: list[bytes] = []
        self._frames_end = 0
        self._oldest = 0.0

    @property
    def complete(self) -> bool:
        return len(self.done) == len(self.order)

    def recover(self) -> None:
        """Find out what is already there; cut a torn tail back to the last whole line and its frame."""
        if self.sealed.exists():
            self.done = set(self.order)
            self._remove_journal()
            return
        records, lines_end = self._read_journal()
        self.done = {record.id for record in records}
        self._frames_end = max((frame.offset + frame.nbytes for frame in map(_frame, records) if frame), default=0)
        if self.lines_path.exists():
            os.truncate(self.lines_path, lines_end)
        if self.frames_path.exists():
            os.truncate(self.frames_path, self._frames_end)

    def begin(self, header: bytes) -> None:
        """Set what the file of frames begins with; refuse one that was begun otherwise. To be called before the first frame."""
        self.header = header
        if not self.frames_path.exists() or self.frames_path.stat().st_size == 0:
            return
        with self.frames_path.open("rb") as file:
            if file.read(len(header)) != header:
                raise PipelineError(
                    f"{self.frames_path}: was begun with another teacher, tokenizer or engine version (its header differs); "
                    "go on with that one, or make the stage again with --redo"
                )

    def append(self, record: T, frame: bytes | None = None) -> None:
        """Add one record, not yet durable; `commit` makes it so."""
        assert record.id not in self.done, record.id
        if frame is not None:
            self._frames_end = self._frames_end or len(self.header)
            place = Frame(file=self.frames_path.name, offset=self._frames_end, nbytes=len(frame), crc32=zlib.crc32(frame))
            record = record.model_copy(update={"frame": place})
            self._pending_frames.append(frame)
            self._frames_end += len(frame)
        if not self._pending_lines:
            self._oldest = time.monotonic()
        self._pending_lines.append(record.to_line())
        self.done.add(record.id)

    @property
    def pending(self) -> int:
        """Records that are not durable yet."""
        return len(self._pending_lines)

    @property
    def age(self) -> float:
        """Seconds for which the oldest of them has waited."""
        return time.monotonic() - self._oldest if self._pending_lines else 0.0

    def commit(self) -> None:
        """Make everything appended so far durable, frames before lines."""
        if not self._pending_lines:
            return
        # taken before they are written: if this is interrupted, a second call must not write them again
        lines, self._pending_lines = self._pending_lines, []
        frames, self._pending_frames = self._pending_frames, []
        if self._lines is None:
            self._open()
        if frames:
            assert self._frames is not None
            _append(self._frames, frames)
        assert self._lines is not None
        _append(self._lines, lines)

    def seal(self) -> None:
        """Rewrite the journal in input order under the final name, then drop it."""
        self.commit()
        self.close()
        by_id = {record.id: record for record in self._read_journal()[0]}
        assert set(by_id) == set(self.order), f"{self.lines_path}: {len(by_id)} records of {len(self.order)}"
        lines = []
        journal = self.frames_path.read_bytes() if self.frames_path.exists() else b""
        offset = min((frame.offset for frame in map(_frame, by_id.values()) if frame), default=0)
        frames = [journal[:offset]]  # the header
        for identifier in self.order:
            record = by_id[identifier]
            old = _frame(record)
            if old:
                frames.append(journal[old.offset : old.offset + old.nbytes])
                new = old.model_copy(update={"file": f"{self.name}.topk", "offset": offset})
                record = record.model_copy(update={"frame": new})
                offset += old.nbytes
            lines.append(record.to_line())
        if journal:
            write_atomic(self.folder / f"{self.name}.topk", b"".join(frames))
        write_atomic(self.sealed, b"".join(lines))
        self._remove_journal()

    def close(self) -> None:
        for file in (self._lines, self._frames):
            if file is not None:
                file.close()
        self._lines = self._frames = None

    def _open(self) -> None:
        self._lines = self.lines_path.open("ab", buffering=0)
        if self.header:
            self._frames = self.frames_path.open("ab", buffering=0)
            if self._frames.tell() == 0:
                self._frames.write(self.header)
        sync_folder(self.folder)

    def _read_journal(self) -> tuple[list[T], int]:
        """The journal's good records and where they end. Bad lines are a torn tail if nothing good follows, else damage."""
        if not self.lines_path.exists():
            return [], 0
        frames = self.frames_path.read_bytes() if self.frames_path.exists() else b""
        known = set(self.order)
        records: dict[str, T] = {}
        position = end = 0
        torn: str | None = None
        for number, line in enumerate(self.lines_path.read_bytes().splitlines(keepends=True), start=1):
            position += len(line)
            where = f"{self.lines_path}:{number}"
            try:
                record = self._read_line(line, frames, where)
            except PipelineError as error:
                torn = torn or str(error)
                continue
            if torn:
                raise PipelineError(
                    f"{torn}; good lines follow it, so this is damage and not a torn tail: remove that line to have it made again"
                )
            if record.id not in known:
                raise PipelineError(f"{where}: sample {record.id} belongs to no seed of this shard; make the stage again with --redo")
            records.setdefault(record.id, record)
            end = position
        return list(records.values()), end

    def _read_line(self, line: bytes, frames: bytes, where: str) -> T:
        if not line.endswith(b"\n"):
            raise PipelineError(f"{where}: cut off in the middle of a line")
        record = self.record.from_line(line, where)
        frame = _frame(record)
        if frame and zlib.crc32(frames[frame.offset : frame.offset + frame.nbytes]) != frame.crc32:
            raise PipelineError(f"{where}: its frame in {self.frames_path.name} is missing or damaged")
        return record

    def _remove_journal(self) -> None:
        self.lines_path.unlink(missing_ok=True)
        self.frames_path.unlink(missing_ok=True)


def commit_if_due(shards: Iterable[Shard[T]]) -> None:
    """Keep to the promise: at most COMMIT_SAMPLES samples or COMMIT_SECONDS at risk, over all shards."""
    shards = list(shards)
    if sum(shard.pending for shard in shards) >= COMMIT_SAMPLES or any(shard.age >= COMMIT_SECONDS for shard in shards):
        for shard in shards:
            shard.commit()


def _frame(record: Identified) -> Frame | None:
    return getattr(record, "frame", None)


def _append(file: IO[bytes], parts: list[bytes]) -> None:
    data = memoryview(b"".join(parts))
    while data:
        data = data[file.write(data) :]
    os.fsync(file.fileno())
