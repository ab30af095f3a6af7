"""Reject samples with held-out texts: evaluation data and benchmarks must not be trained on."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.config import Source
from pipeline.data import seeds
from pipeline.errors import PipelineError
from pipeline.filters.decontamination.matcher import CHANGED, Index, Text
from pipeline.filters.decontamination.words import length_in_words, words
from pipeline.filters.measures import Batch, Measure
from pipeline.filters.sample_text import flatten, input_text, reply_parts
from pipeline.filters.verdict import Verdict
from pipeline.records import Sample, Seed, digest

VALUE_CHARS, NAME_CHARS = 80, 40

Item = tuple[str, str]  # name, such as "eval q17", and text
Finding = tuple[float, str, str]  # score, 1 if verbatim; name of the item; excerpt of the sample


def overlaps(
    batch: Batch, sources: Sequence[tuple[str, Mapping[str, Any]]], texts: str
) -> list[Finding | None]:
    """Return the nearest held-out text in each sample's inputs or reply.

    Args:
        sources: a name for the items of each source, and its config section.
        texts: the digest of all held-out texts that `measure` computed.
    """
    index = _index(tuple((name, Source(**source)) for name, source in sources), texts)
    parts: list[tuple[int, Text]] = []
    for row, sample in enumerate(batch.samples):
        parts += [(row, text) for text in _parts(sample)]
    distinct = list(dict.fromkeys(text for _, text in parts))
    hits = dict(zip(distinct, index.find(distinct), strict=True))
    findings: list[Finding | None] = [None] * len(batch.samples)
    for row, text in parts:
        hit, best = hits[text], findings[row]
        if hit is not None and (best is None or hit.score >= best[0]):
            findings[row] = (hit.score, index.names[hit.item], hit.excerpt(text))
    return findings


def contaminated(
    rows: NDArray[np.int64], findings: Sequence[Finding | None], near: float
) -> dict[int, Verdict]:
    """Reject samples that hold a held-out text.

    Reasons: holds_held_out for a text verbatim, or a long run of its words; near_held_out for one
    with a few words changed, of score `near` or more. The value names the text and quotes the
    sample.
    """
    verdicts = {}
    for row in rows.tolist():
        finding = findings[row]
        if finding is not None and finding[0] >= near:
            score, name, excerpt = finding
            reason = "holds_held_out" if score == 1 else "near_held_out"
            verdicts[row] = Verdict(reason, _value(name, excerpt))
    return verdicts


def measure(eval_seeds: Source, others: Sequence[Source] = ()) -> Measure:
    """Return `overlaps` with a task's held-out seeds and other files.

    It is another measure as soon as one of their texts changes.
    """
    sources = [("eval", eval_seeds)]
    sources += [(Path(other.path or other.dataset or "").stem, other) for other in others]
    settings = [(name, source.model_dump(exclude_defaults=True)) for name, source in sources]
    texts = digest([list(held_out(name, source)) for name, source in sources])
    return Measure(overlaps, {"sources": settings, "texts": texts})


def held_out(name: str, source: Source) -> Iterator[Item]:
    """Yield all texts of a source that must not be trained on.

    They are each row's inputs together, and long inputs and targets by themselves; of a plain text
    file (.txt) each line. What several rows share, such as an instruction, counts only as a part of
    the whole. Raises PipelineError for a source that cannot be read.
    """
    if source.path is not None and Path(source.path).suffix == ".txt":
        yield from _lines(name, Path(source.path))
        return
    rows = seeds.load(source)
    counts = Counter(text for row in rows for text in set(_fields(row)))
    for row in rows:
        yield f"{name} {row.id}", flatten(row.inputs)
        for text in _fields(row):
            if counts[text] == 1 and length_in_words(words(text)) >= CHANGED:
                yield f"{name} {row.id}", text


def _lines(name: str, path: Path) -> Iterator[Item]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise PipelineError(
            f"{path}: cannot be read as UTF-8 text ({error}); "
            "the config names it among the held-out texts"
        ) from None
    for number, line in enumerate(lines, start=1):
        yield f"{name}:{number}", line


def _fields(row: Seed) -> list[str]:
    """Return the row's inputs, if there are several, and its target."""
    fields = [flatten(value) for value in row.inputs.values()] if len(row.inputs) > 1 else []
    return fields if row.target is None else [*fields, row.target]


def _value(name: str, excerpt: str) -> str:
    name = _shortened(name, NAME_CHARS)
    room = VALUE_CHARS - len(name) - len(": ''")
    return f"{name}: '{_shortened(excerpt, room)}'"


def _shortened(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"


@lru_cache(1)
def _index(sources: tuple[tuple[str, Source], ...], texts: str) -> Index:
    items = [list(held_out(name, source)) for name, source in sources]
    if digest(items) != texts:
        changed = ", ".join(source.path or source.dataset or "" for _, source in sources)
        raise PipelineError(
            f"filter: one of the held-out texts ({changed}) changed while the filter ran; "
            "give the same command again"
        )
    return Index(chain.from_iterable(items))


def _parts(sample: Sample) -> Iterator[Text]:
    """Yield inputs and reply; rationale and answer only if the reply does not contain them."""
    yield Text(input_text(sample), inputs=True)
    for part in reply_parts(sample):
        yield Text(part)
