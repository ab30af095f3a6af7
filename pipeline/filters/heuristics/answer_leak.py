"""Filters on an answer that is there too early: before the rationale that should lead to it, or in the question itself."""

import re
from collections.abc import Sequence

from pipeline.filters import sample_text
from pipeline.filters.measures import Batch
from pipeline.filters.verdict import Rejection
from pipeline.records import Sample
from pipeline.verifiers import scorers

OPENING = 160  # characters at the beginning of a rationale
SHOWN = 80
ANNOUNCED = (  # how an answer is given away in the first words; {} is the answer
    r"(?:so |okay,? |ok,? |well,? )?(?:the |my |our )?(?:final |correct |right |best )?(?:answer|label|result|solution|class|category)"
    r"(?: here)?(?: (?:is|would be|should be|must be)|:| =)\s*[\"'*(]*{}",
    r"(?:this|that|it|the \w+(?: \w+)?) (?:is|was|would be|should be|must be) (?:an? |the |clearly |labell?ed |classified as )*"
    r"[\"'*(]*{}[\"'*)]*,? (?:because|since|as|for|due to)\b",
    r"[\"'*(]*{}[\"'*)]*[,:;.\u2014-]? *(?:because|since|due to)\b",
    r"[\"'*(]*{}[\"'*)]*\s*(?:[:.\u2014]|\n)",
)


def answered_first(batch: Batch) -> list[Rejection | None]:
    """answer_before_rationale: the rationale opens with the answer ("The answer is 36 because"), and what follows only defends it.

    Prompts that ask for the answer first and reasons after it are passed. The words looked for are English; an answer that stands by
    itself at the beginning ("36.") is found in any language. The value: the opening.
    """
    return [_answered_first(sample) for sample in batch.samples]


def leaked(batch: Batch, fields: Sequence[str] | None) -> list[Rejection | None]:
    """answer_in_input: one of the seed's inputs (those of `fields`, or all) says the ground truth, or the answer where there is none.

    Only for tasks whose answer is to be worked out: in extraction it is always there, and a label is often a plain word.
    """
    return [_leaked(sample, None if fields is None else list(fields)) for sample in batch.samples]


def _answered_first(sample: Sample) -> Rejection | None:
    if not sample.rationale or not sample.answer or not _leads(sample):
        return None
    opening = sample.rationale.lstrip(" \n#>*_\"'")[:OPENING]
    answer = re.escape(scorers.normalise(sample.answer)).replace(r"\ ", r"\s+")
    if not answer:
        return None
    for shape in ANNOUNCED:
        match = re.match(shape.format(rf"(?<!\w){answer}(?!\w|[.,]\d)"), opening, re.IGNORECASE)
        if match:
            return "answer_before_rationale", match.group().strip()[:SHOWN]
    return None


def _leads(sample: Sample) -> bool:
    """Whether the rationale comes before the answer."""
    if sample.rationale_tokens and sample.answer_tokens:
        return sample.rationale_tokens[0] < sample.answer_tokens[0]
    return sample.text.find(str(sample.rationale)) < sample.text.rfind(str(sample.answer))


def _leaked(sample: Sample, fields: list[str] | None) -> Rejection | None:
    truth = scorers.normalise(sample.seed.target or sample.answer or "")
    given = " ".join(sample_text.input_text(sample, fields).casefold().split())
    match = re.search(rf"(?<!\w){re.escape(truth)}(?!\w|[.,]\d)", given) if truth else None
    return (
        ("answer_in_input", given[max(0, match.start() - 20) : match.end() + 20][:SHOWN])
        if match
        else None
    )
