"""A shard while it is made: a journal that only grows, whose last line is the commit, and its sealing.

    NNNNN.journal.jsonl, NNNNN.journal.topk   grow together: a sample's frame is made durable first, then the line that points to it
    NNNNN.journal.engines                     other versions of the engine than the frames' header names, a line each
    errors/NNNNN.jsonl                        what was asked and failed
    NNNNN.topk, then NNNNN.jsonl.gz           the finished shard, in input order, renamed into place and never touched again
    NNNNN.lock                                held by the process that works on the shard

What a crash leaves behind is either whole, or a torn tail that is cut off, or damage that is set aside in quarantine/ and made again.
"""

import contextlib
import logging
import os
import shutil
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import IO, Generic, TypeVar

from pipeline.errors import PipelineError
from pipeline.records import Failed, Frame, Identified
from pipeline.storage import topk
from pipeline.storage.files import append, sync_folder, write_atomic
from pipeline.storage.locks import Lock
from pipeline.storage.shards import pack_lines

log = logging.getLogger(__name__)

COMMIT_SAMPLES = 64
COMMIT_SECONDS = 1.0

T = TypeVar("T", bound=Identified)


def sealed_path(folder: Path, number: int) -> Path:
    return folder / f"{number:05d}.jsonl.gz"


class Shard(Generic[T]):
    """One shard: `claim` it, `recover` it, `add` what is missing and `commit` now and then, `seal` it. What failed is left out of it."""

    def __init__(self, folder: Path, number: int, record: type[T]):
        self.folder, self.name, self.record = folder, f"{number:05d}", record
        self.order: Sequence[str] = ()
        self.header = b""
        self.sealed = sealed_path(folder, number)
        self.lines_path = folder / f"{self.name}.journal.jsonl"
        self.frames_path = folder / f"{self.name}.journal.topk"
        self.engines_path = folder / f"{self.name}.journal.engines"
        self.errors_path = folder / "errors" / f"{self.name}.jsonl"
        self.done: set[str] = set()
        self.failed: set[str] = set()
        self._lock = Lock(folder / f"{self.name}.lock")
        self._files: dict[Path, IO[bytes]] = {}
        self._pending: dict[Path, list[bytes]] = {}
        self._frames_end = 0
        self._committed = time.monotonic()

    def claim(self) -> bool:
        """Take the shard for this process. False if another process has it, or it is finished."""
        if self.sealed.exists() or not self._lock.take():
            return False
        if self.sealed.exists():  # finished between the look and the lock
            self.release()
            return False
        return True

    def recover(self, order: Sequence[str], header: bytes = b"") -> None:
        """Find out what is there, cut off a torn tail and set damage aside.

        `order` lists the ids that the shard will hold, in input order; `header` is what its file of frames begins with. Raises
        PipelineError if it was begun with another header; another version of the engine is noted, and the finished shard names both.
        """
        self.order, self.header = order, header
        self._check_header()
        records, end, damage = self._read_journal()
        if damage:
            self._quarantine(damage)
            write_atomic(self.lines_path, b"".join(record.to_line() for record in records))
        elif self.lines_path.exists():
            os.truncate(self.lines_path, end)
        self.done = {record.id for record in records}
        frames = [frame for frame in map(frame_of, records) if frame]
        self._frames_end = max(
            (frame.offset + frame.nbytes for frame in frames), default=len(self.header)
        )
        if self.frames_path.exists():
            os.truncate(self.frames_path, self._frames_end if frames else 0)
        self.failed = {failed.id for failed in read_failures(self.errors_path)} & (
            set(self.order) - self.done
        )
        if self.errors_path.exists():
            os.truncate(self.errors_path, self.errors_path.read_bytes().rfind(b"\n") + 1)

    def release(self) -> None:
        """Close the files and let others have the shard."""
        for file in self._files.values():
            file.close()
        self._files = {}
        self._lock.release()

    @property
    def missing(self) -> list[str]:
        return [
            identifier
            for identifier in self.order
            if identifier not in self.done and identifier not in self.failed
        ]

    @property
    def complete(self) -> bool:
        return len(self.done) + len(self.failed) == len(self.order)

    @property
    def pending(self) -> int:
        """Records that are not durable yet."""
        return len(self._pending.get(self.lines_path, ())) + len(
            self._pending.get(self.errors_path, ())
        )

    @property
    def age(self) -> float:
        """Seconds since the last commit, if anything waits for the next: answers that come seldom do not wait for one another."""
        return time.monotonic() - self._committed if self._pending else 0.0

    def add(self, record: T, frame: bytes | None = None) -> None:
        """Add one record, not yet durable; `commit` makes it so."""
        assert record.id not in self.done, record.id
        if frame is not None:
            crc32 = topk.checksum(frame, _token_ids(record))
            place = Frame(
                file=self.frames_path.name, offset=self._frames_end, nbytes=len(frame), crc32=crc32
            )
            record = record.model_copy(update={"frame": place})
            self._put(self.frames_path, frame)
            self._frames_end += len(frame)
        self._put(self.lines_path, record.to_line())
        self.done.add(record.id)

    def fail(self, failed: Failed) -> None:
        """Note that there will be no record for a request, and why."""
        self._put(self.errors_path, failed.to_line())
        self.failed.add(failed.id)

    def commit(self) -> None:
        """Make everything added so far durable, frames before lines."""
        # taken before it is written: if this is interrupted, a second call must not write it again
        pending, self._pending = self._pending, {}
        self._committed = time.monotonic()
        for path in (self.frames_path, self.lines_path, self.errors_path):
            if path in pending:
                append(self._open(path), pending[path])

    def seal(self) -> None:
        """Rewrite the journal in input order under the final name, drop it, and let the shard go."""
        self.commit()
        records = {record.id: record for record in self._read_journal()[0]}
        assert len(records) == len(self.done), (
            f"{self.lines_path}: {len(records)} records of {len(self.done)}"
        )
        journal = self.frames_path.read_bytes() if self.frames_path.exists() else b""
        header = self._header_of_all()
        frames, lines, offset = [header], [], len(header)
        for identifier in self.order:
            if identifier not in records:
                continue
            record = records[identifier]
            old = frame_of(record)
            if old:
                frames.append(journal[old.offset : old.offset + old.nbytes])
                record = record.model_copy(
                    update={
                        "frame": old.model_copy(
                            update={"file": f"{self.name}.topk", "offset": offset}
                        )
                    }
                )
                offset += old.nbytes
            lines.append(record.to_line())
        if header:
            write_atomic(self.folder / f"{self.name}.topk", b"".join(frames))
        write_atomic(self.sealed, pack_lines(lines))
        self.lines_path.unlink(missing_ok=True)
        self.frames_path.unlink(missing_ok=True)
        self.engines_path.unlink(missing_ok=True)
        # whoever locks the old file from now on finds the shard sealed
        (self.folder / f"{self.name}.lock").unlink(missing_ok=True)
        self.release()

    def _put(self, path: Path, data: bytes) -> None:
        self._pending.setdefault(path, []).append(data)

    def _open(self, path: Path) -> IO[bytes]:
        if path not in self._files:
            path.parent.mkdir(exist_ok=True)
            self._files[path] = file = path.open("ab", buffering=0)
            if path == self.frames_path and file.tell() == 0:
                append(file, [self.header])
            sync_folder(path.parent)
        return self._files[path]

    def _check_header(self) -> None:
        if not self.header or not self.frames_path.exists():
            return
        with self.frames_path.open("rb") as file:
            begun = file.read(topk.MAX_HEADER)
        if self.header.startswith(
            begun[: len(self.header)]
        ):  # the same, or torn off while it was written
            return
        old = topk.read_header(begun)
        if old:
            self._note_engine(old)
            return
        self._quarantine([f"{self.frames_path}: its header is damaged"])
        with self.frames_path.open("r+b") as file:
            append(file, [self.header])  # frames have checksums of their own

    def _note_engine(self, old: topk.Header) -> None:
        """Go on with a file that another version of the engine has begun. Raises PipelineError if more than that differs."""
        now = topk.read_header(self.header)
        if now is None or now.model_copy(update={"engine": old.engine}) != old:
            raise PipelineError(
                f"{self.frames_path}: was begun with another teacher, tokenizer or settings of the logprobs (its header differs); "
                "go on with those, or make the stage again with --redo"
            )
        known = [*old.engines, *self._other_engines()]
        if now.engine not in known:
            log.warning(
                f"{self.frames_path}: begun with {', '.join(known)}, goes on with {now.engine}; its header will say so"
            )
            write_atomic(
                self.engines_path,
                "".join(f"{engine}\n" for engine in [*self._other_engines(), now.engine]),
            )

    def _other_engines(self) -> list[str]:
        return self.engines_path.read_text().splitlines() if self.engines_path.exists() else []

    def _header_of_all(self) -> bytes:
        """The header that names every engine which had a part in the frames."""
        with contextlib.suppress(FileNotFoundError), self.frames_path.open("rb") as file:
            begun = topk.read_header(file.read(topk.MAX_HEADER))
            if begun:
                return begun.also_by(self._other_engines()).to_bytes()
        return self.header

    def _read_journal(self) -> tuple[list[T], int, list[str]]:
        """(good records, where they end, damage). Bad lines at the end are a torn tail; bad ones before good ones are damage."""
        if not self.lines_path.exists():
            return [], 0, []
        frames = self.frames_path.read_bytes() if self.frames_path.exists() else b""
        known = set(self.order)
        records: dict[str, T] = {}
        position = end = 0
        bad: list[str] = []
        damage: list[str] = []
        for number, line in enumerate(
            self.lines_path.read_bytes().splitlines(keepends=True), start=1
        ):
            position += len(line)
            where = f"{self.lines_path}:{number}"
            try:
                record = self._read_line(line, frames, where)
            except PipelineError as error:
                bad.append(str(error))
                continue
            if record.id not in known:
                raise PipelineError(
                    f"{where}: sample {record.id} belongs to no seed of this shard; make the stage again with --redo"
                )
            damage, end = [*bad], position
            records.setdefault(record.id, record)
        return list(records.values()), end, damage

    def _read_line(self, line: bytes, frames: bytes, where: str) -> T:
        if not line.endswith(b"\n"):
            raise PipelineError(f"{where}: cut off in the middle of a line")
        record = self.record.from_line(line, where)
        if not frame_holds(record, frames):
            raise PipelineError(
                f"{where}: its frame in {self.frames_path.name} is missing or damaged"
            )
        return record

    def _quarantine(self, damage: list[str]) -> None:
        for path in (self.lines_path, self.frames_path):
            archive_file(path, self.folder / "quarantine", copy=True)
        log.warning(
            f"{damage[0]}; {len(damage)} of its parts are set aside in quarantine/ and made again"
        )


def sweep(folder: Path) -> None:
    """Remove what a kill left behind of shards that it had just finished."""
    for path in [*folder.glob("*.journal.*"), *folder.glob("[0-9]*.lock")]:
        if sealed_path(folder, int(path.name.split(".")[0])).exists():
            path.unlink(missing_ok=True)


def archive_file(path: Path, folder: Path, copy: bool = False) -> None:
    """Keep a file, or a copy of it, in `folder`, under another name if there is one of its name already."""
    if not path.exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / path.name
    while target.exists():
        target = target.with_name(target.name + "+")
    (shutil.copy2 if copy else shutil.move)(path, target)


def read_failures(path: Path) -> list[Failed]:
    """The failures noted in one file, without a line that a crash tore off."""
    if not path.exists():
        return []
    lines = path.read_bytes().splitlines(keepends=True)
    return [
        Failed.from_line(line, f"{path}:{number}")
        for number, line in enumerate(lines, start=1)
        if line.endswith(b"\n")
    ]


def commit_if_due(shards: Iterable[Shard[T]]) -> None:
    """Keep to the promise: at most COMMIT_SAMPLES samples or COMMIT_SECONDS at risk, over all shards."""
    shards = list(shards)
    if sum(shard.pending for shard in shards) >= COMMIT_SAMPLES or any(
        shard.age >= COMMIT_SECONDS for shard in shards
    ):
        for shard in shards:
            shard.commit()


def frame_holds(record: Identified, data: bytes) -> bool:
    """Whether a record's frame, if it has one, is in `data` and holds its checksum."""
    frame = frame_of(record)
    return (
        frame is None
        or topk.checksum(data[frame.offset : frame.offset + frame.nbytes], _token_ids(record))
        == frame.crc32
    )


def _token_ids(record: Identified) -> Sequence[int]:
    return getattr(record, "token_ids", None) or ()


def frame_of(record: Identified) -> Frame | None:
    return getattr(record, "frame", None)
