"""Filters on answers that appear too early: before the rationale, or in the input itself."""

import re
from collections.abc import Sequence

from pipeline.filters import sample_text
from pipeline.filters.measures import Batch
from pipeline.filters.verdict import Rejection
from pipeline.records import Sample
from pipeline.verifiers import scorers

OPENING = 160  # characters at the beginning of a rationale
SHOWN = 80
CONTEXT = 20  # characters shown on either side of a leaked answer
ANNOUNCEMENTS = (  # how the first words announce an answer; {} stands for the answer
    r"(?:so |okay,? |ok,? |well,? )?(?:the |my |our )?(?:final |correct |right |best )?"
    r"(?:answer|label|result|solution|class|category)"
    r"(?: here)?(?: (?:is|would be|should be|must be)|:| =)\s*[\"'*(]*{}",
    r"(?:this|that|it|the \w+(?: \w+)?) (?:is|was|would be|should be|must be) "
    r"(?:an? |the |clearly |labell?ed |classified as )*"
    r"[\"'*(]*{}[\"'*)]*,? (?:because|since|as|for|due to)\b",
    r"[\"'*(]*{}[\"'*)]*[,:;.\u2014-]? *(?:because|since|due to)\b",
    r"[\"'*(]*{}[\"'*)]*\s*(?:[:.\u2014]|\n)",
)


def answered_first(batch: Batch) -> list[Rejection | None]:
    """Reject rationales that begin with the answer, because then they do not lead to it.

    A sample whose answer comes before its rationale in the reply passes. Announcements such as "The
    answer is 36 because" are found in English only. An answer that stands alone at the beginning
    ("36.") is found in any language. The reason is answer_before_rationale, and the value is the
    beginning of the rationale.
    """
    return [_answered_first(sample) for sample in batch.samples]


def leaked(batch: Batch, fields: Sequence[str] | None) -> list[Rejection | None]:
    """Reject samples whose inputs contain the ground truth, or the answer if there is none.

    Use it only for tasks in which the answer must be worked out. In extraction the input always
    contains the answer. `fields` names the inputs to search; None means all. Reason:
    answer_in_input.
    """
    names = None if fields is None else list(fields)
    return [_leaked(sample, names) for sample in batch.samples]


def _answered_first(sample: Sample) -> Rejection | None:
    if not sample.rationale or not sample.answer or not _rationale_leads(sample):
        return None
    opening = sample.rationale.lstrip(" \n#>*_\"'")[:OPENING]
    answer = re.escape(scorers.normalise(sample.answer)).replace(r"\ ", r"\s+")
    if not answer:
        return None
    for pattern in ANNOUNCEMENTS:
        match = re.match(pattern.format(rf"(?<!\w){answer}(?!\w|[.,]\d)"), opening, re.IGNORECASE)
        if match:
            return "answer_before_rationale", match.group().strip()[:SHOWN]
    return None


def _rationale_leads(sample: Sample) -> bool:
    """Return whether the rationale comes before the answer."""
    if sample.rationale_tokens and sample.answer_tokens:
        return sample.rationale_tokens[0] < sample.answer_tokens[0]
    return sample.text.find(str(sample.rationale)) < sample.text.rfind(str(sample.answer))


def _leaked(sample: Sample, fields: list[str] | None) -> Rejection | None:
    truth = scorers.normalise(sample.seed.target or sample.answer or "")
    if not truth:
        return None
    inputs = " ".join(sample_text.input_text(sample, fields).casefold().split())
    match = re.search(rf"(?<!\w){re.escape(truth)}(?!\w|[.,]\d)", inputs)
    if not match:
        return None
    excerpt = inputs[max(0, match.start() - CONTEXT) : match.end() + CONTEXT]
    return "answer_in_input", excerpt[:SHOWN]
