"""Filters on the form of a reply: is it whole, of a sane length, an answer at all, and readable."""

import re
from collections.abc import Sequence

from pipeline import scoring
from pipeline.filters.verdict import Verdict
from pipeline.records import Sample

REFUSALS = re.compile(
    r"^\W*(?:i'?m sorry|i am sorry|sorry,? but|i apologi[sz]e|i can(?:no|')t (?:help|assist|answer|provide|comply|fulfil|do that)"
    r"|i(?:'m| am) (?:unable|not able) to|as an ai\b|i(?:'m| am) an? (?:ai|language model)|i won't (?:be able|help|assist))",
    re.IGNORECASE,
)
VALUE_CHARS = 80


def finished(samples: Sequence[Sample]) -> list[Verdict | None]:
    """cut_at_length: the reply ran into max_tokens. not_finished: the engine ended it for another reason."""
    verdicts: dict[str, Verdict | None] = {"stop": None, "length": Verdict("cut_at_length", "length")}
    return [verdicts.get(s.finish_reason, Verdict("not_finished", s.finish_reason)) for s in samples]


def length(samples: Sequence[Sample], least: int, most: int | None) -> list[Verdict | None]:
    """too_short, too_long: completion tokens."""

    def judge(tokens: int) -> Verdict | None:
        if tokens < least:
            return Verdict("too_short", tokens)
        return Verdict("too_long", tokens) if most is not None and tokens > most else None

    return [judge(s.usage.completion_tokens) for s in samples]


def refusal(samples: Sequence[Sample]) -> list[Verdict | None]:
    """refused: the reply opens, or its answer does, with the words of a refusal."""

    def judge(sample: Sample) -> Verdict | None:
        match = REFUSALS.match(sample.text) or REFUSALS.match(sample.answer or "")
        return Verdict("refused", match.group().strip()) if match else None

    return [judge(s) for s in samples]


def parseable(samples: Sequence[Sample], reasoned: Sequence[bool], metric: str, labels: Sequence[str] | None) -> list[Verdict | None]:
    """no_answer, no_rationale, not_a_label, not_a_number: what the prompt asked for cannot be read out of the reply.

    `reasoned`: for each prompt, by number, whether it asks for a rationale.
    """
    known = {scoring.normalise(label) for label in labels or ()}

    def judge(sample: Sample) -> Verdict | None:
        if sample.answer is None:
            return Verdict("no_answer", sample.text[:VALUE_CHARS])
        if metric == "label" and scoring.normalise(sample.answer) not in known:
            return Verdict("not_a_label", sample.answer[:VALUE_CHARS])
        if metric == "numeric" and scoring.number(sample.answer) is None:
            return Verdict("not_a_number", sample.answer[:VALUE_CHARS])
        if reasoned[sample.prompt] and sample.rationale is None:
            return Verdict("no_rationale", sample.text[:VALUE_CHARS])
        return None

    return [judge(s) for s in samples]
