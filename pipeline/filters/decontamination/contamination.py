"""Reject samples with held-out texts: evaluation data and benchmarks must not be trained on."""

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.config import Source
from pipeline.data import seeds
from pipeline.errors import PipelineError
from pipeline.filters.decontamination.matcher import (
    CHANGED,
    COMMON_TEXTS,
    Index,
    Text,
    common_words,
)
from pipeline.filters.decontamination.words import length_in_words, words
from pipeline.filters.measures import Batch, Measure
from pipeline.filters.sample_text import flatten, input_text, reply_parts
from pipeline.filters.verdict import Verdict
from pipeline.records import Sample, Seed, digest

VALUE_CHARS, NAME_CHARS = 80, 40
# what separates keys and values in a record, words of its longest value, and distinct words
RECORD = re.compile(r"[{}\[\]\"<>|=:;\t\n]|,(?!\s)")
VALUE_WORDS, RECORD_WORDS = 4, 26
# targets of which less than this share has a word of its own are closed, if there are this many
CLOSED, CLOSED_TARGETS = 0.1, 10
OWN_WORDS = 2  # of an input that counts by itself
BACKGROUND = 2000  # training examples that tell what the texts of the task share

Item = tuple[str, str]  # name, such as "eval q17", and text
Finding = tuple[float, str, str]  # score, 1 if verbatim; name of the item; excerpt of the sample


def overlaps(
    batch: Batch,
    sources: Sequence[tuple[str, Mapping[str, Any]]],
    texts: str,
    shared: Sequence[str] = (),
) -> list[Finding | None]:
    """Return the nearest held-out text in each sample's inputs or reply.

    Args:
        sources: a name for the items of each source, and its config section.
        texts: the digest of all held-out texts that `measure` computed.
        shared: the words that many training examples have.
    """
    named = tuple((name, Source(**source)) for name, source in sources)
    index = _index(named, texts, tuple(shared))
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


def measure(
    eval_seeds: Source, others: Sequence[Source] = (), training: Source | None = None
) -> Measure:
    """Return `overlaps` with a task's held-out seeds and other files.

    What many `training` examples share is no contamination. It is another measure as soon as one
    of the texts changes.
    """
    sources = [("eval", eval_seeds)]
    sources += [(Path(other.path or other.dataset or "").stem, other) for other in others]
    settings = [(name, source.model_dump(exclude_defaults=True)) for name, source in sources]
    shared = [] if training is None else _shared_words(training)
    texts = digest([list(held_out(name, source, shared)) for name, source in sources])
    return Measure(overlaps, {"sources": settings, "texts": texts, "shared": shared})


def held_out(name: str, source: Source, shared: Iterable[str] = ()) -> Iterator[Item]:
    """Yield all texts of a source that must not be trained on.

    They are each row's inputs together, and long inputs and targets by themselves; of a plain text
    file (.txt) each line. What several rows share, such as an instruction, counts only as a part of
    the whole. Raises PipelineError for a source that cannot be read.
    """
    if source.path is not None and Path(source.path).suffix == ".txt":
        yield from _lines(name, Path(source.path))
        return
    rows = seeds.load(source)
    known = frozenset(shared)
    fields = list(_fields(rows, known))
    counts = Counter(text for texts in fields for text in set(texts))
    for row, texts in zip(rows, fields, strict=True):
        yield f"{name} {row.id}", flatten(row.inputs)
        for text in texts:
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


def _fields(rows: Sequence[Seed], shared: frozenset[str]) -> Iterator[list[str]]:
    """Yield each row's inputs, if there are several, and its target, unless they are closed.

    An input is closed if nearly all its words are shared by many rows, as of a list of options. One
    or two rows alone cannot tell, so their inputs count only together.
    """
    closed = _are_closed([str(row.target) for row in rows if row.target is not None])
    columns: dict[str, list[set[str]]] = {}
    for row in rows:
        for name, value in row.inputs.items():
            columns.setdefault(name, []).append(set(words(flatten(value))))
    common = {name: shared | common_words(texts) for name, texts in columns.items()}
    can_tell = bool(shared) or len(rows) >= COMMON_TEXTS
    for row in rows:
        fields = []
        if len(row.inputs) > 1 and can_tell:
            for name, value in row.inputs.items():
                text = flatten(value)
                if len(set(words(text)) - common[name]) >= OWN_WORDS:
                    fields.append(text)
        yield fields if closed or row.target is None else [*fields, *_open_parts(row.target)]


def _open_parts(target: Any) -> list[str]:
    """Return what a target says in its own words: of a record, each of its values by itself.

    Keys, and values out of a short list, are in right answers to other examples as well.
    """
    text = str(target)
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    if isinstance(value, (dict, list)):
        return [part for part in flatten(value).split("\n") if part]
    segments = [words(segment) for segment in RECORD.split(text)]
    distinct = {word for segment in segments for word in segment}
    is_record = len(distinct) < RECORD_WORDS and max(map(len, segments)) <= VALUE_WORDS
    return [] if is_record else [text]


def _are_closed(targets: Sequence[str]) -> bool:
    """Return whether targets are made of a closed set of words, as labels and records are.

    Then hardly any has a word that no other has, and equal answers tell nothing.
    """
    counts = Counter(word for target in targets for word in set(words(target)))
    new = sum(any(counts[word] == 1 for word in set(words(target))) for target in targets)
    return len(targets) >= CLOSED_TARGETS and new < CLOSED * len(targets)


def _value(name: str, excerpt: str) -> str:
    name = _shortened(name, NAME_CHARS)
    room = VALUE_CHARS - len(name) - len(": ''")
    return f"{name}: '{_shortened(excerpt, room)}'"


def _shortened(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"


@lru_cache(1)
def _index(sources: tuple[tuple[str, Source], ...], texts: str, shared: tuple[str, ...]) -> Index:
    items = [list(held_out(name, source, shared)) for name, source in sources]
    if digest(items) != texts:
        changed = ", ".join(source.path or source.dataset or "" for _, source in sources)
        raise PipelineError(
            f"filter: one of the held-out texts ({changed}) changed while the filter ran; "
            "give the same command again"
        )
    return Index(chain.from_iterable(items), shared)


def _shared_words(training: Source) -> list[str]:
    rows = seeds.first(training, BACKGROUND)
    return sorted(common_words([set(words(flatten(row.inputs))) for row in rows]))


def _parts(sample: Sample) -> Iterator[Text]:
    """Yield inputs and reply; rationale and answer only if the reply does not contain them."""
    yield Text(input_text(sample), inputs=True)
    for part in reply_parts(sample):
        yield Text(part)
