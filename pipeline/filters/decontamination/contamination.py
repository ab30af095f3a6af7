"""Filter on held-out texts: what the student is judged by, or any other benchmark, must not be among what it learns from."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.config import Source
from pipeline.data import seeds
from pipeline.errors import PipelineError
from pipeline.filters.decontamination.matcher import CHANGED, Index, Text
from pipeline.filters.decontamination.words import units, words
from pipeline.filters.measures import Batch, Measure
from pipeline.filters.sample_text import flatten, input_text
from pipeline.filters.verdict import Verdict
from pipeline.records import Sample, Seed, digest

VALUE_CHARS, NAME_CHARS = 80, 40

Item = tuple[str, str]  # name, such as "eval q17", and text
Finding = tuple[float, str, str]  # score, 1 if verbatim; name of the item; span of the sample


def overlaps(
    batch: Batch, sources: Sequence[tuple[str, Mapping[str, Any]]], texts: str
) -> list[Finding | None]:
    """What each sample's prompt inputs or reply hold of the held-out texts.

    Args:
        sources: a name for the items of each, and its section.
        texts: digest of all held-out texts, as `measure` found it.
    """
    index = _index(tuple((name, Source(**source)) for name, source in sources), texts)
    parts = [(row, text) for row, sample in enumerate(batch.samples) for text in _parts(sample)]
    found: list[Finding | None] = [None] * len(batch.samples)
    distinct = list(dict.fromkeys(text for _, text in parts))
    hits = dict(zip(distinct, index.find(distinct), strict=True))
    for row, text in parts:
        if (hit := hits[text]) is not None:
            one = (hit.score, index.names[hit.item], hit.span(text))
            found[row] = max(one, found[row] or one, key=lambda finding: finding[0])
    return found


def contaminated(
    left: NDArray[np.int64], found: Sequence[Finding | None], near: float
) -> dict[int, Verdict]:
    """holds_held_out: a held-out text, or a long run of its words. near_held_out: one with a few words changed, by its score."""
    verdicts = {}
    for row in left:
        finding = found[row]
        if finding is not None and finding[0] >= near:
            score, name, span = finding
            verdicts[int(row)] = Verdict(
                "holds_held_out" if score == 1 else "near_held_out", _shown(name, span)
            )
    return verdicts


def measure(eval_seeds: Source, others: Sequence[Source] = ()) -> Measure:
    """`overlaps` with the held-out seeds of a task and other files; another measure as soon as one of their texts changes."""
    named = [
        ("eval", eval_seeds),
        *((Path(one.path or one.dataset or "").stem, one) for one in others),
    ]
    settings = [(name, source.model_dump(exclude_defaults=True)) for name, source in named]
    return Measure(
        overlaps,
        {
            "sources": settings,
            "texts": digest([list(held_out(name, source)) for name, source in named]),
        },
    )


def held_out(name: str, source: Source) -> Iterator[Item]:
    """Everything of a source that must not be learnt from: each row's inputs together, and long ones and targets by themselves.

    Of a plain text file (.txt) each line is one text. What several rows share, such as an instruction, is looked for only as a part of
    the whole. Raises PipelineError for a source that cannot be read.
    """
    if source.path is not None and Path(source.path).suffix == ".txt":
        yield from _lines(name, Path(source.path))
        return
    rows = seeds.load(source)
    single = Counter(text for row in rows for text in set(_single(row)))
    for row in rows:
        yield f"{name} {row.id}", flatten(row.inputs)
        yield from (
            (f"{name} {row.id}", text)
            for text in _single(row)
            if single[text] == 1 and units(words(text)) >= CHANGED
        )


def _lines(name: str, path: Path) -> Iterator[Item]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise PipelineError(
            f"{path}: cannot be read as UTF-8 text ({error}); the config names it among the held-out texts"
        ) from None
    yield from ((f"{name}:{number}", line) for number, line in enumerate(lines, start=1))


def _single(row: Seed) -> list[str]:
    inputs = [flatten(value) for value in row.inputs.values()] if len(row.inputs) > 1 else []
    return inputs + ([row.target] if row.target is not None else [])


def _shown(name: str, span: str) -> str:
    name = name if len(name) <= NAME_CHARS else name[: NAME_CHARS - 1] + "…"
    room = VALUE_CHARS - len(name) - len(": ''")
    return f"{name}: '{span if len(span) <= room else span[: room - 1] + '…'}'"


@lru_cache(1)
def _index(sources: tuple[tuple[str, Source], ...], texts: str) -> Index:
    items = [list(held_out(name, source)) for name, source in sources]
    if digest(items) != texts:
        changed = ", ".join(source.path or source.dataset or "" for _, source in sources)
        raise PipelineError(
            f"filter: one of the held-out texts was changed while it is at work ({changed}); give the command again"
        )
    return Index(item for of in items for item in of)


def _parts(sample: Sample) -> Iterator[Text]:
    """Inputs and reply; rationale and answer by themselves only if the reply has them in other words."""
    yield Text(input_text(sample), inputs=True)
    yield Text(sample.text)
    yield from (
        Text(part)
        for part in (sample.rationale, sample.answer)
        if part is not None and part not in sample.text
    )
