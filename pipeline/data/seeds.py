"""Reading seeds: JSONL, CSV, Parquet or a Hugging Face dataset, with an error that names file and line."""

import csv
import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import jsonlines

from pipeline.config import Source
from pipeline.errors import PipelineError
from pipeline.records import Seed, digest
from pipeline.storage.files import sha256

Row = tuple[
    str, dict[str, Any], int | None
]  # where ("file:line"), columns, byte at which it begins
GOES_ON = "and the same command continues from here"


@dataclass(frozen=True)
class Survey:
    """What one reading of a whole source found out: how many seeds, and for JSONL at which byte every `stride`-th begins."""

    seeds: int
    stride: int
    offsets: tuple[int, ...]


def load(source: Source) -> list[Seed]:
    """All seeds of a source, in order. Raises PipelineError for a missing, malformed or empty source and for ids given twice."""
    return [seed for seed, _ in _checked(source)]


class PinnedSource:
    """A source whose file must stay what it was when the stage was begun, or half of the samples would be those of other seeds.

    `sha256` is of the file as it was then; None: as it is now.
    """

    def __init__(self, source: Source, sha256: str | None = None):
        self.source = source
        self._sha256 = sha256
        self._seen: tuple[int, ...] | None = None
        self.check()

    def check(self) -> None:
        """Raise PipelineError if the file has changed. It is only read if it looks as if it had."""
        if self.source.path is None:
            return
        path = Path(self.source.path)
        try:
            found = path.stat()
            looks = (found.st_size, found.st_mtime_ns, found.st_ino)
            if looks == self._seen:
                return
            content = sha256(path)
        except OSError as error:
            raise PipelineError(
                f"{path}: cannot be read any more ({error.strerror}); put it back, {GOES_ON}"
            ) from None
        if content != (self._sha256 or content):
            raise PipelineError(
                f"{path}: was changed while the stage is at work on it; put back what it was, {GOES_ON}; "
                "for the new seeds choose another run_dir, or set this run aside with --redo"
            )
        self._sha256, self._seen = content, looks


def survey(pinned: PinnedSource, stride: int) -> Survey:
    """Read all seeds once, keeping none. Raises what `load` raises."""
    offsets = []
    number = -1
    for number, (_, offset) in enumerate(_checked(pinned.source)):
        if offset is not None and number % stride == 0:
            offsets.append(offset)
    pinned.check()
    return Survey(number + 1, stride, tuple(offsets))


class Cursor:
    """The seeds of a surveyed source by their number, read where they are needed. Reading on is cheap; JSONL can be jumped into."""

    def __init__(self, pinned: PinnedSource, survey: Survey):
        self._pinned, self._source, self._survey = pinned, pinned.source, survey
        self._rows: Iterator[Row] = iter(())
        self._next = survey.seeds

    def take(self, first: int, last: int) -> list[Seed]:
        """Seeds first to last - 1. Raises PipelineError if the file has changed since it was surveyed."""
        self._pinned.check()
        found = self._read(first, last)
        self._pinned.check()
        return found

    def _read(self, first: int, last: int) -> list[Seed]:
        last = min(last, self._survey.seeds)
        behind = first - self._next
        if behind < 0 or (self._survey.offsets and behind > self._survey.stride):
            self._jump(first)
        rows = islice(self._rows, first - self._next, last - self._next)
        self._next = last
        return [_seed(self._source, where, row) for where, row, _ in rows]

    def _jump(self, to: int) -> None:
        block = to // self._survey.stride
        if self._survey.offsets:
            self._rows = _jsonl(Path(self._source.path or ""), self._survey.offsets[block])
            self._next = block * self._survey.stride
        else:
            self._rows, self._next = _rows(self._source), 0


def _checked(source: Source) -> Iterator[tuple[Seed, int | None]]:
    """Every seed, and where its row begins if that is known."""
    seen: dict[str, int] = {}
    for number, (where, row, offset) in enumerate(islice(_rows(source), source.limit)):
        seed = _seed(source, where, row)
        if seed.id in seen:
            earlier = next(islice(_rows(source), seen[seed.id], None))[0]
            raise PipelineError(
                f"{where}: seed id '{seed.id}' was given before, at {earlier}; give each seed an id of its own"
            )
        seen[seed.id] = number
        yield seed, offset
    if not seen:
        raise PipelineError(
            f"{source.path or source.dataset}: has no seeds; put at least one row in it"
        )


def load_eval(train: Iterable[Seed], source: Source, text: Callable[[Seed], str]) -> list[Seed]:
    """The held-out seeds. Refuses seeds without ground truth, and those that also stand among the training seeds.

    Two seeds are the same if `text`, what the student sees of them, is; columns that it does not see cannot tell them apart.
    """
    held_out = load(source)
    name = source.path or source.dataset
    known = {_folded(text(seed)): seed.id for seed in train}
    for seed in held_out:
        if seed.target is None:
            raise PipelineError(
                f"{name}: held-out seed {seed.id} has no '{source.target_field}'; evaluate needs the ground truth"
            )
        twin = known.get(_folded(text(seed)))
        if twin:
            raise PipelineError(
                f"{name}: held-out seed {seed.id} reads like training seed {twin}; take it out of one of them"
            )
    return held_out


def identities(source: Source) -> dict[str, str]:
    """Of a hub dataset a digest of its seeds, since its name does not tell its content. (A file is hashed as a file.)"""
    return {"seeds": digest([seed.model_dump() for seed in load(source)])} if source.dataset else {}


def _folded(text: str) -> str:
    return " ".join(text.casefold().split())


def _seed(source: Source, where: str, row: dict[str, Any]) -> Seed:
    inputs = {
        key: value
        for key, value in row.items()
        if key not in (source.id_field, source.target_field, source.group_field)
    }
    if not inputs:
        raise PipelineError(
            f"{where}: has no input columns, only {', '.join(row) or 'nothing'}; give the prompt something to render"
        )
    try:
        json.dumps(row, ensure_ascii=False, default=str).encode()
    except UnicodeEncodeError:
        raise PipelineError(
            f"{where}: holds half of a surrogate pair (a character that was cut in two); remove it"
        ) from None
    group = row.get(source.group_field)
    given = row.get(source.id_field)
    return Seed(
        id=str(given) if given is not None else f"seed-{digest(inputs)}",
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
    match = re.search(source.target_pattern, str(value))
    if match is None:
        raise PipelineError(
            f"{where}: target_pattern {source.target_pattern!r} is not found in '{str(value)[-60:]}'; correct the pattern"
        )
    return match.group(1).strip()


def _rows(source: Source) -> Iterator[Row]:
    if source.dataset:
        return _dataset(source)
    path = Path(source.path or "")
    readers = {".jsonl": _jsonl, ".csv": _csv, ".parquet": _parquet}
    if path.suffix not in readers:
        raise PipelineError(
            f"{path}: seeds are read from {', '.join(readers)}; or give dataset: for one from the hub"
        )
    if not path.is_file():
        raise PipelineError(f"{path}: no such file of seeds; the config names it under task")
    return readers[path.suffix](path)


def _jsonl(path: Path, begin: int = 0) -> Iterator[Row]:
    """From the byte `begin` on; line numbers count from there."""
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
                yield f"{path}:{number}" + (f" after byte {begin}" if begin else ""), row, before
                before = after
        except jsonlines.InvalidLineError as error:
            raise PipelineError(
                f"{path}:{error.lineno}: not a JSON object ({str(error).split(' (line')[0]}); correct or remove the line"
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
                        f"{where}: has another number of columns than the header; quote commas inside a field"
                    )
                yield where, row, None
        except csv.Error as error:
            raise PipelineError(f"{path}:{reader.line_num}: not CSV ({error})") from None
        except UnicodeDecodeError as error:
            raise _not_utf8(path, error) from None


def _not_utf8(path: Path, error: UnicodeDecodeError) -> PipelineError:
    """Reading is buffered, so the line of the bad byte is counted anew."""
    data = path.read_bytes()
    try:
        data.decode()
        start = 0
    except UnicodeDecodeError as again:
        start = again.start
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
    except (
        Exception
    ) as error:  # the hub's client has no common error; all of them mean that there are no seeds
        raise PipelineError(
            f"dataset {source.dataset}: cannot be loaded ({str(error).splitlines()[0]}); check its name, split and the network"
        ) from None
    for number, row in enumerate(rows, start=1):
        yield f"{source.dataset}[{source.split}]:{number}", _plain(row), None


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    """The row as JSON has it, so that ids do not depend on where a row was read from."""
    plain: dict[str, Any] = json.loads(json.dumps(row, default=str))
    return plain
