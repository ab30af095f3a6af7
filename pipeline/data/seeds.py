"""Read examples from JSONL, CSV, Parquet or a Hugging Face dataset; errors name file and line."""

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from pipeline.config import Source
from pipeline.data import patterns
from pipeline.data.rows import Row, read_jsonl, read_rows, target_text
from pipeline.errors import PipelineError
from pipeline.records import Seed, digest
from pipeline.storage.files import sha256

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


def first(source: Source, count: int) -> list[Seed]:
    """Read the first `count` seeds, or all if there are fewer. Raises PipelineError as `load`."""
    return [seed for seed, _ in islice(_checked(source), count)]


def places(source: Source) -> list[str]:
    """Return for each seed of a source where it stands, as "file:line"."""
    return [where for where, _, _ in islice(read_rows(source), source.limit)]


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
            self._rows = read_jsonl(Path(self._source.path or ""), self._survey.offsets[block])
            self._next = block * self._survey.stride
        else:
            self._rows = read_rows(self._source)
            self._next = 0


def _checked(source: Source) -> Iterator[tuple[Seed, int | None]]:
    """Read every seed, and the byte at which its row begins if that is known."""
    numbers: dict[str, int] = {}
    for number, (where, row, offset) in enumerate(islice(read_rows(source), source.limit)):
        seed = _seed(source, where, row)
        if seed.id in numbers:
            raise _repeated(source, where, seed, row, numbers[seed.id])
        numbers[seed.id] = number
        yield seed, offset
    if not numbers:
        raise PipelineError(
            f"{source.path or source.dataset}: has no seeds; put at least one row in it"
        )


def _repeated(
    source: Source, where: str, seed: Seed, row: dict[str, Any], number: int
) -> PipelineError:
    """Return the error for a row whose id is that of row `number`; count rows that are equal."""
    earlier = next(islice(read_rows(source), number, None))[0]
    if row.get(source.id_field) is not None:
        return PipelineError(
            f"{where}: seed id '{seed.id}' was given before, at {earlier}; "
            "give each seed an id of its own"
        )
    ids = [_seed(source, at, other).id for at, other, _ in islice(read_rows(source), source.limit)]
    return PipelineError(
        f"{where}: seed id '{seed.id}' was given before, as the row has the same inputs as "
        f"{earlier} and no '{source.id_field}'; {len(ids) - len(set(ids)):,} rows in all repeat "
        "the inputs of an earlier one; remove them, or give each row an id"
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
    text = target_text(row.get(source.target_field), f"{where}: {source.target_field}")
    if text is None or source.target_pattern is None:
        return text
    match = patterns.search(source.target_pattern, text, where)
    if match is None:
        raise PipelineError(
            f"{where}: target_pattern {source.target_pattern!r} is not found in "
            f"'{text[-60:]}'; correct the pattern"
        )
    return match.group(1).strip()
