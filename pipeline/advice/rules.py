"""The rules: from the facts of a run to advice, and to a prediction that can be checked.

The limits below are provisional. Each rule names what it rests on; docs/results.md keeps count of
the predictions.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from pipeline.advice.facts import Facts
from pipeline.config import Arm
from pipeline.evaluation import baseline
from pipeline.evaluation.format import shown, signed
from pipeline.evaluation.results_model import Difference, Results
from pipeline.execution.paths import TEACHER
from pipeline.filters.confidence.calibration_effect import STRONG
from pipeline.students.rounds import AT_ONCE
from pipeline.training.schedule import WIDTH, schedule

MARGIN = 0.03  # a student this near to its teacher has reached it
WEAK = 0.6  # score of a teacher that is too weak to learn from
SURE, UNSURE = 0.05, 0.3  # nats/token of surprise: below, KD adds nothing; above, it does
FEW_ROWS, FEW_PER_LABEL = 300, 30
DEEP_CUT = 1 / AT_ONCE  # of the layers, in one step
FEW_STEPS = 60
LONG = 200  # tokens of a reply
EVIDENCE = "docs/explanation/what-kd-can-do.md"
RESULTS = "docs/results.md"
PRUNING = f"NVIDIA's pruning guides, in {EVIDENCE}"

Against = Literal["better", "equal", "worse"]
OUTCOMES = {
    "better": "KD is better than SFT",
    "equal": "KD and SFT do not differ significantly",
    "worse": "KD is worse than SFT",
}


@dataclass(frozen=True)
class Advice:
    """One thing to know: what is so, what it rests on, and the command to try, if there is one.

    `kind` names the rule.
    """

    kind: str
    text: str
    evidence: str
    command: str | None = None


@dataclass(frozen=True)
class Prediction:
    """What is expected of a finished run.

    reaches_teacher: the best student scores at least the teacher's score minus MARGIN.
    kd_against_sft: by score; for free text by the divergence from the teacher.
    """

    reaches_teacher: bool
    kd_against_sft: Against


def before(facts: Facts) -> list[Advice]:
    """Return the advice before training, the most important first."""
    return [advice for rule in BEFORE for advice in rule(facts)]


def after(facts: Facts) -> list[Advice]:
    """Return the advice after evaluation; none if the run is not evaluated."""
    if facts.results is None or TEACHER not in facts.results.models:
        return []
    return [advice for rule in AFTER for advice in rule(facts, facts.results)]


def predict(facts: Facts) -> Prediction:
    """Return what to expect of training with the run's settings.

    KD is expected to be better where it learns calibrated labels of a biased prompt, or where a
    teacher that is unsure writes free text.
    """
    is_deep = facts.cut > DEEP_CUT and not facts.healed
    too_little = facts.rows < FEW_ROWS / 2 or _planned_steps(facts) < FEW_STEPS / 2
    return Prediction(not is_deep and not too_little, _kd_against_sft(facts))


def _kd_against_sft(facts: Facts) -> Against:
    if _learns_calibrated(facts):
        return "better"
    is_free_text = facts.config.evaluate.fidelity is not None
    if is_free_text and (facts.surprise or 0.0) >= SURE:
        return "better"
    return "equal"


def _deep_cut(facts: Facts) -> Iterator[Advice]:
    if facts.cut > DEEP_CUT and not facts.healed:
        yield Advice(
            "deep_cut",
            f"The student lacks {facts.cut:.0%} of the layers. At most a third can be cut in one "
            "step without further training; expect a student far below its teacher. Keep all "
            "layers (a short prompt already saves most of the cost), or heal the student",
            f"{RESULTS}; {PRUNING}",
            "pipeline train CONFIG student.keep_layers=null student.layers=null --redo",
        )


def _weak_teacher(facts: Facts) -> Iterator[Advice]:
    if facts.accuracy and facts.accuracy.high < WEAK and not _is_biased(facts):
        yield Advice(
            "weak_teacher",
            f"The teacher is right in {shown(facts.accuracy)} of the kept samples. A student "
            "learns its mistakes too: improve the prompt or take a larger teacher first",
            EVIDENCE,
        )


def _biased_prompt(facts: Facts) -> Iterator[Advice]:
    if not _is_biased(facts):
        return
    text = (
        f"The teacher's prompt favours some labels: calibration would change {facts.bias:.0%} of "
        "them. KD on the calibrated probabilities can be far better than SFT on the text"
    )
    if _learns_calibrated(facts):
        yield Advice("biased_prompt", f"{text}; an arm here learns them", RESULTS)
    else:
        command = "pipeline train CONFIG train.arms.kd.soft_labels=true"
        yield Advice("biased_prompt", text, RESULTS, command)


def _surprise(facts: Facts) -> Iterator[Advice]:
    if facts.surprise is None:
        yield Advice(
            "no_logprobs",
            "There are no token probabilities, so only SFT is possible",
            "docs/how-to/sft-or-kd.md",
        )
    elif facts.surprise < SURE and not _is_biased(facts):
        yield Advice(
            "sft_enough",
            f"The teacher is sure of its text ({facts.surprise:.3f} nats/token), so its "
            "probabilities say little beside it: SFT is enough, and needs less disk",
            RESULTS,
        )
    elif facts.surprise >= UNSURE:
        yield Advice(
            "kd_closer",
            f"The teacher is unsure of its text ({facts.surprise:.2f} nats/token): KD will come "
            "nearer to its probabilities than SFT. That shows in free text; a label may be as good "
            "by either",
            RESULTS,
        )


def _few_rows(facts: Facts) -> Iterator[Advice]:
    rare = [label for label, count in facts.labels.items() if count < FEW_PER_LABEL]
    if facts.rows < FEW_ROWS:
        yield Advice(
            "few_rows",
            f"Only {facts.rows:,} samples are kept. More inputs help more than any setting; they "
            "need no labels",
            RESULTS,
            "pipeline ablate CONFIG",
        )
    elif rare:
        yield Advice(
            "rare_labels",
            f"Fewer than {FEW_PER_LABEL} samples have the label {', '.join(sorted(rare))}: a "
            "student hardly learns them. Add inputs for which they are right",
            "not measured here",
        )


def _few_steps(facts: Facts) -> Iterator[Advice]:
    steps = _planned_steps(facts)
    if steps < FEW_STEPS:
        epochs = round(FEW_STEPS / max(steps, 1) + 0.5)
        yield Advice(
            "few_steps",
            f"An arm has {steps:,} optimiser steps, which is little",
            RESULTS,
            f"pipeline train CONFIG train.epochs={epochs} --redo",
        )


def _long_replies(facts: Facts) -> Iterator[Advice]:
    if facts.reply_tokens > LONG:
        yield Advice(
            "long_replies",
            f"Replies have {facts.reply_tokens:,.0f} tokens on average. Small students learn short "
            "rationales better, and their own mistakes add up over long text, which training on "
            "the student's own text would address (not available yet)",
            f"arXiv 2502.12143, in {EVIDENCE}",
        )


def _nothing_learned(facts: Facts, results: Results) -> Iterator[Advice]:
    for text in baseline.warnings(results):
        yield Advice("nothing_learned", text, f"{results.held_out:,} held-out examples")


def _short_of_teacher(facts: Facts, results: Results) -> Iterator[Advice]:
    best = _best(results)
    difference = results.differences.get(f"{best} - {TEACHER}")
    if best is None or difference is None:
        return
    if difference.mean >= -MARGIN:
        yield Advice(
            "reached",
            f"{best} reaches its teacher: {best} - teacher is {signed(difference)}",
            f"{results.held_out:,} held-out examples",
        )
        return
    cause, command = _cause(facts, best)
    yield Advice(
        "short",
        f"{best}, the best student, falls short of its teacher: {signed(difference)}. {cause}",
        f"{results.held_out:,} held-out examples",
        command,
    )


def _cause(facts: Facts, best: str) -> tuple[str, str | None]:
    """Return the most probable cause of a student that falls short, and what to try."""
    steps, run = facts.steps.get(best, 0), facts.config.run_dir
    if facts.cut > DEEP_CUT and not facts.healed:
        command = (
            f"pipeline run CONFIG student.keep_layers=null student.layers=null run_dir={run}-whole"
        )
        return f"Most probably because {facts.cut:.0%} of its layers were cut", command
    if best in facts.falling or steps < FEW_STEPS:
        command = f"pipeline run CONFIG train.epochs=4 run_dir={run}-longer"
        return f"Most probably because it was trained for only {steps:,} steps", command
    if facts.rows < FEW_ROWS:
        return f"Most probably because it had only {facts.rows:,} rows; add inputs", None
    return "No cause is evident; look at its wrong answers in the report", None


def _methods(facts: Facts, results: Results) -> Iterator[Advice]:
    for name, difference in results.differences.items():
        if results.methods(name) != ("kd", "sft"):
            continue
        measured, expected = difference.kl or difference, _kd_against_sft(facts)
        found = outcome(difference)
        unit = " nats/token" if difference.kl else ""
        was = "as expected" if found == expected else f"{expected} was expected"
        yield Advice(
            "methods",
            f"{OUTCOMES[found]} ({name}: {signed(measured)}{unit}), {was}",
            f"{results.held_out:,} held-out examples",
            _sharper(facts, name) if found == "worse" else None,
        )


def _sharper(facts: Facts, difference: str) -> str:
    arm = difference.partition(" - ")[0]
    return f"pipeline run CONFIG train.arms.{arm}.alpha=0.9 run_dir={facts.config.run_dir}-hard"


def _best(results: Results) -> str | None:
    arms = [name for name in results.models if results.models[name].method]
    return max(arms, key=lambda name: results.models[name].score.mean, default=None)


def outcome(difference: Difference) -> Against:
    """Return how KD compares with SFT by a measured difference, kd - sft.

    If the divergence from the teacher was measured, it decides; there less is better.
    """
    sign = difference.sign if difference.kl is None else -difference.kl.sign
    signs: dict[int, Against] = {1: "better", 0: "equal", -1: "worse"}
    return signs[sign]


def _is_biased(facts: Facts) -> bool:
    return facts.bias is not None and facts.bias >= STRONG


def _learns_calibrated(facts: Facts) -> bool:
    return _is_biased(facts) and any(map(_uses_soft_labels, facts.config.train.arms.values()))


def _uses_soft_labels(arm: Arm) -> bool:
    return arm.method == "kd" and arm.soft_labels is not False


def _planned_steps(facts: Facts) -> int:
    """Return the fewest optimiser steps of an arm, as trained or as planned."""
    if facts.steps:
        return min(facts.steps.values())
    train = facts.config.train
    plans = [schedule(train, arm, facts.rows, WIDTH, False) for arm in train.arms.values()]
    steps = [plan.epochs * facts.rows / (plan.batch_size * train.accumulate) for plan in plans]
    return round(min(steps))


BEFORE: tuple[Callable[[Facts], Iterator[Advice]], ...] = (
    _deep_cut,
    _weak_teacher,
    _biased_prompt,
    _surprise,
    _few_rows,
    _few_steps,
    _long_replies,
)
AFTER: tuple[Callable[[Facts, Results], Iterator[Advice]], ...] = (
    _nothing_learned,
    _short_of_teacher,
    _methods,
)
