"""Write the advice on a run as lines, and as RUN/advice.json."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from pipeline.advice import facts, rules
from pipeline.advice.facts import Facts
from pipeline.advice.rules import Advice, Prediction
from pipeline.storage.files import read_object, update_json

FILE = "advice.json"


@dataclass(frozen=True)
class Advised:
    """The facts of a run, what was predicted of them, and the advice before and after."""

    facts: Facts
    prediction: Prediction
    before: list[Advice]
    after: list[Advice]


def advise(run_dir: Path) -> Advised:
    """Return the advice on a run, and write it to RUN/advice.json.

    Raises PipelineError if the run's filter is not finished.
    """
    known = facts.read(run_dir)
    advised = Advised(known, rules.predict(known), rules.before(known), rules.after(known))
    content = {
        "prediction": asdict(advised.prediction),
        "before": [asdict(advice) for advice in advised.before],
        "after": [asdict(advice) for advice in advised.after],
    }
    update_json(run_dir / FILE, content)
    return advised


def stored(run_dir: Path) -> list[Advice]:
    """Return the advice that was written last: that after evaluation, else that before training.

    There is none if the run was never advised on.
    """
    path = run_dir / FILE
    if not path.is_file():
        return []
    content = read_object(path, "before", "after")
    return [Advice(**advice) for advice in content["after"] or content["before"]]


def lines(advised: Advised) -> Iterator[str]:
    """Yield the facts, then the advice: what was measured, or before that what to expect."""
    yield f"advice: {_summary(advised.facts)}"
    for number, advice in enumerate(advised.after or advised.before, start=1):
        yield f"  {number}. {sentence(advice)}"
        if advice.command:
            yield f"     try: {advice.command}"
    if not advised.after:
        yield f"  expected: {expectation(advised.prediction)}"


def sentence(advice: Advice) -> str:
    """Return a piece of advice with what it rests on."""
    return f"{advice.text} [{advice.evidence}]."


def expectation(prediction: Prediction) -> str:
    """Return the prediction in words."""
    reaches = "reaches" if prediction.reaches_teacher else "does not reach"
    return (
        f"the best student {reaches} its teacher's score - {rules.MARGIN:g}; "
        f"{rules.OUTCOMES[prediction.kd_against_sft]}"
    )


def _summary(known: Facts) -> str:
    parts = [f"{known.rows:,} kept samples of {known.reply_tokens:,.0f} tokens"]
    if known.accuracy:
        parts.append(f"teacher right in {known.accuracy.mean:.3f}")
    if known.surprise is not None:
        parts.append(f"{known.surprise:.3f} nats/token of surprise")
    if known.labels:
        top = max(known.labels, key=lambda label: known.labels[label])
        share = known.labels[top] / sum(known.labels.values())
        parts.append(f"{len(known.labels)} labels, most often {top} ({share:.0%})")
    if known.cut:
        parts.append(f"{known.cut:.0%} of the student's layers cut")
    return ", ".join(parts)
