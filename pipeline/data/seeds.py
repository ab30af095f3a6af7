"""Read examples from JSONL, CSV, Parquet or a Hugging Face dataset; errors name file and line."""

import csv
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import jsonlines

from pipeline.config import Source
from pipeline.data import patterns
from pipeline.errors import PipelineError
from pipeline.records import Seed, digest
from pipeline.storage.files import sha256

# where ("file:line"), columns, the byte at which the row begins
Row = tuple[str, dict[str, Any], int | None]
CONTINUES = "and the same command continues from here"


@dataclass(frozen=True)
class Survey:
    """The number of seeds in a source, and for JSONL the byte at which every `stride`-th begins."""

    seeds: int
    stride: int
    offsets: tuple[int, ...]


def load(source: Source) -> list[Seed]:
    """Read all seeds of a source, in order.

    Raises PipelineError for a missing, malformed or empty source and for duplicate ids.
    """
    return [seed for seed, _ in _checked(source)]


class PinnedSource:
    """A source whose file must not change while a stage works on it.

    Otherwise half of the samples would belong to other seeds. `sha256` is the file's hash when the
    stage started; None: take the file as it is now.
    """

    def __init__(self, source: Source, sha256: str | None = None):
        self.source = source
        self._sha256 = sha256
        self._checked_stat: tuple[int, ...] | None = None
        self.check()

    def check(self) -> None:
        """Raise PipelineError if the file has changed.

        The file is only read if its size, time or inode differ from the last check.
        """
        if self.source.path is None:
            return
        path = Path(self.source.path)
        try:
            status = path.stat()
            stat = (status.st_size, status.st_mtime_ns, status.st_ino)
            if stat == self._checked_stat:
                return
            content = sha256(path)
        except OSError as error:
            raise PipelineError(
                f"{path}: cannot be read any more ({error.strerror}); put it back, {CONTINUES}"
            ) from None
        if content != (self._sha256 or content):
            raise PipelineError(
                f"{path}: was changed while the stage is at work on it; "
                f"put the old file back, {CONTINUES}; "
                "for the new seeds choose another run_dir, or archive this run with --redo"
            )
        self._sha256 = content
        self._checked_stat = stat


def survey(pinned: PinnedSource, stride: int) -> Survey:
    """Read all seeds once without keeping them. Raises the errors of `load`."""
    offsets = []
    count = 0
    for _, offset in _checked(pinned.source):
        if offset is not None and count % stride == 0:
            offsets.append(offset)
        count += 1
    pinned.check()
    return Survey(count, stride, tuple(offsets))


class Cursor:
    """Reads the seeds of a surveyed source by their number.

    Reading the next seeds is cheap. JSONL can also be read from the middle.
    """

    def __init__(self, pinned: PinnedSource, survey: Survey):
        self._pinned = pinned
        self._source = pinned.source
        self._survey = survey
        self._rows: Iterator[Row] = iter(())
        self._next = survey.seeds

    def take(self, first: int, last: int) -> list[Seed]:
        """Read the seeds `first` to `last` - 1. Raises PipelineError if the file has changed."""
        self._pinned.check()
        seeds = self._read(first, last)
        self._pinned.check()
        return seeds

    def _read(self, first: int, last: int) -> list[Seed]:
        last = min(last, self._survey.seeds)
        skipped = first - self._next
        if skipped < 0 or (self._survey.offsets and skipped > self._survey.stride):
            self._jump(first)
        rows = islice(self._rows, first - self._next, last - self._next)
        self._next = last
        return [_seed(self._source, where, row) for where, row, _ in rows]

    def _jump(self, number: int) -> None:
        if self._survey.offsets:
            block = number // self._survey.stride
            self._rows = _jsonl(Path(self._source.path or ""), self._survey.offsets[block])
            self._next = block * self._survey.stride
        else:
            self._rows = _rows(self._source)
            self._next = 0


def _checked(source: Source) -> Iterator[tuple[Seed, int | None]]:
    """Read every seed, and the byte at which its row begins if that is known."""
    numbers: dict[str, int] = {}
    for number, (where, row, offset) in enumerate(islice(_rows(source), source.limit)):
        seed = _seed(source, where, row)
        if seed.id in numbers:
            earlier = next(islice(_rows(source), numbers[seed.id], None))[0]
            raise PipelineError(
                f"{where}: seed id '{seed.id}' was given before, at {earlier}; "
                "give each seed an id of its own"
            )
        numbers[seed.id] = number
        yield seed, offset
    if not numbers:
        raise PipelineError(
            f"{source.path or source.dataset}: has no seeds; put at least one row in it"
        )


def load_eval(train: Iterable[Seed], source: Source, text: Callable[[Seed], str]) -> list[Seed]:
    """Read the held-out seeds.

    Raises PipelineError for a seed without ground truth, and for one that is also a training seed:
    one with the same `text`, which is the part of a seed that the student reads.
    """
    held_out = load(source)
    name = source.path or source.dataset
    known = {_folded(text(seed)): seed.id for seed in train}
    for seed in held_out:
        if seed.target is None:
            raise PipelineError(
                f"{name}: held-out seed {seed.id} has no '{source.target_field}'; "
                "evaluate needs the ground truth"
            )
        twin = known.get(_folded(text(seed)))
        if twin:
            raise PipelineError(
                f"{name}: held-out seed {seed.id} reads like training seed {twin}; "
                "remove it from one of the files"
            )
    return held_out


def files(source: Source) -> list[Path]:
    """Return the file of the seeds, if they come from one."""
    return [Path(source.path)] if source.path else []


def identities(source: Source) -> dict[str, str]:
    """Return a digest of a hub dataset's seeds, for fingerprints; a file is hashed as a file."""
    if not source.dataset:
        return {}
    return {"seeds": digest([seed.model_dump() for seed in load(source)])}


def _folded(text: str) -> str:
    return " ".join(text.casefold().split())


def _seed(source: Source, where: str, row: dict[str, Any]) -> Seed:
    fields = (source.id_field, source.target_field, source.group_field)
    inputs = {key: value for key, value in row.items() if key not in fields}
    if not inputs:
        raise PipelineError(
            f"{where}: has no input columns, only {', '.join(row) or 'nothing'}; "
            "give the prompt something to render"
        )
    try:
        json.dumps(row, ensure_ascii=False, default=str).encode()
    except UnicodeEncodeError:
        raise PipelineError(
            f"{where}: holds half of a surrogate pair, a character that was cut in two; remove it"
        ) from None
    group = row.get(source.group_field)
    identifier = row.get(source.id_field)
    return Seed(
        id=f"seed-{digest(inputs)}" if identifier is None else str(identifier),
        inputs=inputs,
        target=_target(source, where, row),
        group=None if group is None else str(group),
    )


def _target(source: Source, where: str, row: dict[str, Any]) -> str | None:
    value = row.get(source.target_field)
    if value is None or value == "":
        return None
    if source.target_pattern is None:
        return str(value)
    match = patterns.search(source.target_pattern, str(value), where)
    if match is None:
        raise PipelineError(
            f"{where}: target_pattern {source.target_pattern!r} is not found in "
            f"'{str(value)[-60:]}'; correct the pattern"
        )
    return match.group(1).strip()


def _rows(source: Source) -> Iterator[Row]:
    if source.dataset:
        return _dataset(source)
    path = Path(source.path or "")
    readers = {".jsonl": _jsonl, ".csv": _csv, ".parquet": _parquet}
    if path.suffix not in readers:
        raise PipelineError(
            f"{path}: seeds are read from {', '.join(readers)}; "
            "for a dataset from the hub set dataset:"
        )
    if not path.is_file():
        raise PipelineError(f"{path}: no such file of seeds; the config names it under task")
    return readers[path.suffix](path)


def _jsonl(path: Path, begin: int = 0) -> Iterator[Row]:
    """Read rows from the byte `begin` on; line numbers count from there."""
    with path.open("rb") as file:
        file.seek(begin)
        after = before = begin

        def lines() -> Iterator[str]:
            nonlocal after
            for line in file:
                after += len(line)
                yield line.decode("utf-8-sig" if after == len(line) else "utf-8")

        try:
            for number, row in enumerate(jsonlines.Reader(lines()).iter(type=dict), start=1):
                where = f"{path}:{number}"
                yield f"{where} after byte {begin}" if begin else where, row, before
                before = after
        except jsonlines.InvalidLineError as error:
            reason = str(error).split(" (line")[0]
            raise PipelineError(
                f"{path}:{error.lineno}: not a JSON object ({reason}); correct or remove the line"
            ) from None
        except UnicodeDecodeError as error:
            raise _not_utf8(path, error) from None


def _csv(path: Path) -> Iterator[Row]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, strict=True)
        try:
            for row in reader:
                where = f"{path}:{reader.line_num}"
                if None in row or None in row.values():
                    raise PipelineError(
                        f"{where}: has another number of columns than the header; "
                        "quote commas inside a field"
                    )
                yield where, row, None
        except csv.Error as error:
            raise PipelineError(f"{path}:{reader.line_num}: not CSV ({error})") from None
        except UnicodeDecodeError as error:
            raise _not_utf8(path, error) from None


def _not_utf8(path: Path, error: UnicodeDecodeError) -> PipelineError:
    """Find the line of the bad byte, which buffered reading does not tell."""
    data = path.read_bytes()
    start = 0
    try:
        data.decode()
    except UnicodeDecodeError as whole_file_error:
        start = whole_file_error.start
    line = data[:start].count(b"\n") + 1
    return PipelineError(f"{path}:{line}: not UTF-8 ({error.reason}); save the file as UTF-8")


def _parquet(path: Path) -> Iterator[Row]:
    from pyarrow import ArrowException
    from pyarrow.parquet import ParquetFile

    try:
        number = 0
        for batch in ParquetFile(path).iter_batches():
            for row in batch.to_pylist():
                number += 1
                yield f"{path}:{number}", _plain(row), None
    except (ArrowException, OSError) as error:
        raise PipelineError(f"{path}: not Parquet ({error})") from None


def _dataset(source: Source) -> Iterator[Row]:
    from datasets import load_dataset

    try:
        rows = load_dataset(
            source.dataset, source.name, split=source.split, revision=source.revision
        )
    except Exception as error:  # the hub's client raises errors without a common base
        raise PipelineError(
            f"dataset {source.dataset}: cannot be loaded ({str(error).splitlines()[0]}); "
            "check its name, split and the network"
        ) from None
    for number, row in enumerate(rows, start=1):
        yield f"{source.dataset}[{source.split}]:{number}", _plain(row), None


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    """Convert the row to JSON values, so that ids do not depend on the kind of file."""
    plain: dict[str, Any] = json.loads(json.dumps(row, default=str))
    return plain
