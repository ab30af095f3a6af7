"""Filters that hold an answer against the truth."""

from collections.abc import Sequence

from pipeline.filters.columns import Batch
from pipeline.filters.verdict import Objection
from pipeline.records import Sample
from pipeline.scoring import SCORERS


def correct(batch: Batch, metric: str, labels: Sequence[str] | None) -> list[Objection | None]:
    """wrong_answer: differs from the seed's ground truth. Samples of seeds without one are kept."""

    def judge(sample: Sample) -> Objection | None:
        if sample.seed.target is None:
            return None
        score = SCORERS[metric](sample.answer, sample.seed.target, labels)
        return None if score.value == 1.0 else ("wrong_answer", f"{sample.answer} ({score.explanation})")

    return [judge(s) for s in batch.samples]
