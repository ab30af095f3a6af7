"""The conclusion at the top of the report, for readers who know no statistics.

With a gate it says what the gate decided. Without one it says how much quality the best student
keeps, at which cost, and which differences are not significant.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pipeline.evaluation import baseline
from pipeline.evaluation.format import label, shown, tested
from pipeline.evaluation.pairs import methods_compared
from pipeline.evaluation.results_model import Difference, ModelFigures, Results
from pipeline.evaluation.small_samples import FLOOR, TOO_FEW
from pipeline.execution.paths import BASE, TEACHER
from pipeline.report.facts import Verdict
from pipeline.report.tables import SIGNIFICANCE, gaps, load_speed, significance


def unfinished(done: int, parts: int) -> Verdict:
    """Return the conclusion of a run that has no results yet."""
    return Verdict(
        None,
        "No verdict yet: this run is not finished",
        (f"{done} of {parts} parts are done; what exists so far is below.",),
    )


def verdict(results: Results, gated: str | None, train: Mapping[str, Any] | None = None) -> Verdict:
    """Return the conclusion; `gated` is the arm that the gate checks, None without a gate.

    `train` is the section `train` of the run's config. Without it, all arms count as trained with
    equal settings.
    """
    best = best_arm(results)
    if best is None:
        teacher = shown(results.models[TEACHER].score)
        return Verdict(None, "No student was evaluated", (f"The teacher scores {teacher}.",))
    warnings = list(baseline.warnings(results))
    title = next((line for line in warnings if line.startswith(f"{best} ")), None)
    sentences = [f"{line}." for line in warnings if line != title]
    sentences += [] if title is None else [f"{_title(results, best)}."]
    title = title or _title(results, best)
    sentences += _sentences(results, best, train or {})
    figures = tuple(_figures(results, best))
    missed = results.verdicts
    if missed is None:
        return Verdict(None, title, tuple(sentences), (), figures)
    student = gated if gated in results.models else "the student"
    decision = (
        f"Do not ship {student}: it misses the gate"
        if missed
        else f"Ship {student}: it passes the gate"
    )
    return Verdict(not missed, decision, (f"{title}.", *sentences), tuple(missed), figures)


def best_arm(results: Results) -> str | None:
    """Return the arm with the highest score; if several have it, the first of them."""
    arms = [name for name in results.models if name not in (TEACHER, BASE)]
    return max(arms, key=lambda name: results.models[name].score.mean, default=None)


def _title(results: Results, best: str) -> str:
    model, teacher = results.models[best], results.models[TEACHER]
    if model.retained is None:
        title = f"{best} scores {model.score.mean:.3f}"
    else:
        title = f"{best} keeps {model.retained:.1%} of the teacher's score"
    size, speed = _relative_size(model, teacher), _relative_speed(model, teacher)
    gains = [f"{size:.0%} of its size"] if size and round(size, 2) < 1 else []
    gains += [f"{speed:.1f} times its speed"] if speed else []
    return f"{title}, at {' and '.join(gains)}" if gains else title


def _sentences(results: Results, best: str, train: Mapping[str, Any]) -> Iterator[str]:
    models = results.models
    scores = [
        f"On {results.held_out:,} held-out examples {best} scores {shown(models[best].score)}"
    ]
    for name, title in ((TEACHER, "the teacher"), (BASE, "the base student")):
        if name in models:
            scores.append(f"{title} {shown(models[name].score)}")
    yield ", ".join(scores) + "."
    if results.held_out < FLOOR:
        yield f"{results.held_out} is {TOO_FEW}."
    yield from _runners_up(results, best)
    for name, unequal in methods_compared(results, train).items():
        yield _kd_and_sft(name, results.differences[name], results, unequal)
    if to_teacher := results.differences.get(f"{best} - {TEACHER}"):
        shows = significance(results, to_teacher)
        yield (
            f"{best} minus the teacher, paired by held-out example, is {tested(to_teacher)}: "
            f"{shows}."
        )
    yield from (line for line in gaps(results) if line.startswith(f"{best}: "))


def _runners_up(results: Results, best: str) -> Iterator[str]:
    """Name the arms that may be as good as the best one.

    An arm that is significantly worse by a paired difference is not named. Any other arm is
    named if the interval of its score overlaps with that of the best arm.
    """
    behind = _behind(results, best)
    low = results.models[best].score.low
    close = [
        name
        for name, model in results.models.items()
        if name not in (TEACHER, BASE, best, *behind) and model.score.high >= low
    ]
    if close:
        others = "that" if len(close) == 1 else "those"
        yield (
            f"{best} has the highest score of the arms, but its interval overlaps with {others} "
            f"of {', '.join(close)}: the scores alone show no significant lead."
        )


def _behind(results: Results, best: str) -> list[str]:
    """Return the models that are significantly worse than the best arm."""
    behind = []
    for name, difference in results.differences.items():
        first, _, second = name.partition(" - ")
        if first == best and difference.sign > 0:
            behind.append(second)
        if second == best and difference.sign < 0:
            behind.append(first)
    return behind


def _kd_and_sft(name: str, difference: Difference, results: Results, unequal: Sequence[str]) -> str:
    """Say if KD is significantly better than SFT, by interval and p.

    If the arms also differ in other settings, the sentence compares the arms, not the methods.
    """
    figures = f"{name} is {tested(difference)}, paired by held-out example"
    if results.held_out < FLOOR:
        return f"KD and SFT cannot be compared: {figures}."
    if unequal:
        first, _, second = name.partition(" - ")
        return (
            f"{first} and {second} do not compare KD with SFT, because they also differ in "
            f"{', '.join(unequal)}: {figures}, {SIGNIFICANCE[difference.sign]}."
        )
    verdict = {
        1: "KD is significantly better than SFT",
        0: "KD and SFT show no significant difference",
        -1: "KD is significantly worse than SFT",
    }[difference.sign]
    return f"{verdict} (95 %): {figures}."


def _figures(results: Results, best: str) -> Iterator[tuple[str, str]]:
    """Yield (text, value) of the main figures."""
    model, teacher = results.models[best], results.models[TEACHER]
    if model.retained is not None:
        yield f"of the teacher's {results.metric} score kept by {best}", f"{model.retained:.1%}"
    interval = f"{model.score.low:.3f} to {model.score.high:.3f}"
    yield f"{results.metric} score of {best}, {interval}", f"{model.score.mean:.3f}"
    if size := _relative_size(model, teacher):
        yield f"of the teacher's {(teacher.parameters or 0) / 1e6:,.1f}M parameters", f"{size:.0%}"
    if speed := _relative_speed(model, teacher):
        yield "as many answers a second as the teacher", f"{speed:.1f}x"
    price, teacher_price = _price(model), _price(teacher)
    if price and teacher_price:
        yield (
            f"is the price of 1,000 answers; the teacher's {teacher_price:,.4f}",
            f"{price:,.4f}",
        )
    if model.agreement is not None:
        yield f"of {label(best)}'s answers are the teacher's", f"{model.agreement:.1%}"


def _relative_size(model: ModelFigures, teacher: ModelFigures) -> float | None:
    return _ratio(model.parameters, teacher.parameters)


def _relative_speed(model: ModelFigures, teacher: ModelFigures) -> float | None:
    """Return answers/s divided by the teacher's, under load if that was measured for both."""
    under_load = _ratio(load_speed(model), load_speed(teacher))
    return under_load or _ratio(model.answers_per_s, teacher.answers_per_s)


def _ratio(own: float | None, teacher: float | None) -> float | None:
    return own / teacher if own and teacher else None


def _price(model: ModelFigures) -> float | None:
    return model.load.price_per_1000 if model.load else None
