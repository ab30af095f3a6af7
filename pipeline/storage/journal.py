"""A shard that is being filled: records are appended to a journal, which is sealed at the end.

    NNNNN.journal.jsonl    one line a record, appended after the record's frame is durable
    NNNNN.journal.topk     the frames that these lines point to
    NNNNN.journal.engines  versions of the engine other than the one in the frames' header
    errors/NNNNN.jsonl     requests that failed
    NNNNN.topk             the frames of the sealed shard, written before its lines
    NNNNN.jsonl.gz         the sealed shard, in input order; it never changes
    NNNNN.lock             held by the process that works on the shard

A crash can leave an incomplete last record, which is cut off. If a record in the middle is damaged,
the journal is copied to quarantine/ and the record is regenerated.
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
    """Return the path of a sealed shard."""
    return folder / f"{number:05d}.jsonl.gz"


class Shard(Generic[T]):
    """One shard that is being filled.

    Call `claim`, then `recover` to read what is stored, `add` for each missing record, `commit` now
    and then, and `seal`. Failed requests are stored beside the shard, not in it.
    """

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
        """Take the shard for this process. Return False if another has it, or it is sealed."""
        if self.sealed.exists() or not self._lock.take():
            return False
        if self.sealed.exists():  # another process sealed it between the first check and the lock
            self.release()
            return False
        return True

    def recover(self, order: Sequence[str], header: bytes = b"") -> None:
        """Read the stored records, cut off an incomplete last one, copy damage to quarantine/.

        Args:
            order: the ids that the shard will hold, in input order.
            header: the first bytes of its file of frames.

        Raises PipelineError if the shard was started with another header. If only the version of
        the engine differs, it is noted, and the header of the sealed shard names both versions.
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
        """Close the files and release the shard."""
        for file in self._files.values():
            file.close()
        self._files = {}
        self._lock.release()

    @property
    def missing(self) -> list[str]:
        """The ids that have neither a record nor a failure, in input order."""
        return [name for name in self.order if name not in self.done and name not in self.failed]

    @property
    def complete(self) -> bool:
        """True if every id has a record or a failure."""
        return len(self.done) + len(self.failed) == len(self.order)

    @property
    def pending(self) -> int:
        """The number of records and failures that are not durable yet."""
        return sum(len(self._pending.get(path, ())) for path in (self.lines_path, self.errors_path))

    @property
    def age(self) -> float:
        """Seconds since the last commit if records wait for the next one, else 0."""
        return time.monotonic() - self._committed if self._pending else 0.0

    def add(self, record: T, frame: bytes | None = None) -> None:
        """Add one record. It is durable only after `commit`."""
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
        """Add a failure in place of a record. It is durable only after `commit`."""
        self._put(self.errors_path, failed.to_line())
        self.failed.add(failed.id)

    def commit(self) -> None:
        """Make everything added so far durable, frames before lines."""
        # cleared before writing: if a signal interrupts this, a second call must not write it again
        pending, self._pending = self._pending, {}
        self._committed = time.monotonic()
        for path in (self.frames_path, self.lines_path, self.errors_path):
            if path in pending:
                append(self._open(path), pending[path])

    def seal(self) -> None:
        """Write the sealed shard in input order, delete the journal and release the shard."""
        self.commit()
        records = {record.id: record for record in self._read_journal()[0]}
        assert len(records) == len(self.done), (
            f"{self.lines_path}: {len(records)} records of {len(self.done)}"
        )
        journal = self.frames_path.read_bytes() if self.frames_path.exists() else b""
        header = self._final_header()
        frames = [header]
        lines = []
        offset = len(header)
        for name in self.order:
            if name not in records:
                continue
            record = records[name]
            old = frame_of(record)
            if old:
                frames.append(journal[old.offset : old.offset + old.nbytes])
                new = old.model_copy(update={"file": f"{self.name}.topk", "offset": offset})
                record = record.model_copy(update={"frame": new})
                offset += old.nbytes
            lines.append(record.to_line())
        if header:
            write_atomic(self.folder / f"{self.name}.topk", b"".join(frames))
        write_atomic(self.sealed, pack_lines(lines))
        self.lines_path.unlink(missing_ok=True)
        self.frames_path.unlink(missing_ok=True)
        self.engines_path.unlink(missing_ok=True)
        # safe: a process that has the old lock file open sees the sealed shard once it locks it
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
        if self.header.startswith(begun[: len(self.header)]):  # equal, or torn while it was written
            return
        old = topk.read_header(begun)
        if old:
            self._note_engine(old)
            return
        self._quarantine([f"{self.frames_path}: its header is damaged"])
        with self.frames_path.open("r+b") as file:
            # writes over the damaged header; each frame behind it has a checksum of its own
            append(file, [self.header])

    def _note_engine(self, old: topk.Header) -> None:
        """Note another version of the engine. Raises PipelineError if more than that differs."""
        now = topk.read_header(self.header)
        if now is None or now.model_copy(update={"engine": old.engine}) != old:
            raise PipelineError(
                f"{self.frames_path}: was started with another teacher, tokenizer or settings of "
                "the logprobs (its header differs); put those back, or regenerate the stage with "
                "--redo"
            )
        others = self._other_engines()
        known = [*old.engines, *others]
        if now.engine not in known:
            log.warning(
                f"{self.frames_path}: started with {', '.join(known)}, continues with "
                f"{now.engine}; the header of the sealed shard will name both"
            )
            write_atomic(self.engines_path, "\n".join([*others, now.engine]) + "\n")

    def _other_engines(self) -> list[str]:
        return self.engines_path.read_text().splitlines() if self.engines_path.exists() else []

    def _final_header(self) -> bytes:
        """Return the header that names every engine that made some of the frames."""
        with contextlib.suppress(FileNotFoundError), self.frames_path.open("rb") as file:
            begun = topk.read_header(file.read(topk.MAX_HEADER))
            if begun:
                return begun.with_engines(self._other_engines()).to_bytes()
        return self.header

    def _read_journal(self) -> tuple[list[T], int, list[str]]:
        """Return (good records, the offset where they end, damage).

        Unreadable lines at the end are an incomplete write. Unreadable lines before good ones are
        damage.
        """
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
                    f"{where}: sample {record.id} belongs to no seed of this shard; "
                    "regenerate the stage with --redo"
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
        """Copy the journal to quarantine/ and print the first damage."""
        for path in (self.lines_path, self.frames_path):
            archive_file(path, self.folder / "quarantine", copy=True)
        log.warning(
            f"{damage[0]}; {len(damage)} damaged parts are copied to quarantine/ and regenerated"
        )


def sweep(folder: Path) -> None:
    """Remove journals and locks of sealed shards, which a killed process may leave behind."""
    for path in [*folder.glob("*.journal.*"), *folder.glob("[0-9]*.lock")]:
        if sealed_path(folder, int(path.name.split(".")[0])).exists():
            path.unlink(missing_ok=True)


def archive_file(path: Path, folder: Path, copy: bool = False) -> None:
    """Move or copy a file into `folder`, with "+" after its name if that is taken."""
    if not path.exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / path.name
    while target.exists():
        target = target.with_name(target.name + "+")
    (shutil.copy2 if copy else shutil.move)(path, target)


def read_failures(path: Path) -> list[Failed]:
    """Return the failures of one file, without a last line that a crash tore off."""
    if not path.exists():
        return []
    lines = path.read_bytes().splitlines(keepends=True)
    return [
        Failed.from_line(line, f"{path}:{number}")
        for number, line in enumerate(lines, start=1)
        if line.endswith(b"\n")
    ]


def commit_if_due(shards: Iterable[Shard[T]]) -> None:
    """Commit all shards if COMMIT_SAMPLES records wait in all, or one has waited COMMIT_SECONDS."""
    shards = list(shards)
    if sum(shard.pending for shard in shards) >= COMMIT_SAMPLES or any(
        shard.age >= COMMIT_SECONDS for shard in shards
    ):
        for shard in shards:
            shard.commit()


def frame_holds(record: Identified, data: bytes) -> bool:
    """Return whether a record's frame, if it has one, is in `data` and matches its checksum."""
    frame = frame_of(record)
    if frame is None:
        return True
    content = data[frame.offset : frame.offset + frame.nbytes]
    return topk.checksum(content, _token_ids(record)) == frame.crc32


def _token_ids(record: Identified) -> Sequence[int]:
    return getattr(record, "token_ids", None) or ()


def frame_of(record: Identified) -> Frame | None:
    """Return the frame of a record, or None for a kind of record without frames."""
    return getattr(record, "frame", None)
