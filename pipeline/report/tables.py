"""Tables and chart data of the report, from results.json.

A figure that no model has gets no column. A results.json of an older version has fewer figures.
"""

from collections.abc import Callable, Iterator, Mapping

from pipeline.evaluation.bootstrap import Interval
from pipeline.evaluation.format import label, shown, tested
from pipeline.evaluation.results_model import (
    Difference,
    Fidelity,
    GroupScore,
    Load,
    ModelFigures,
    Results,
    TaskMetric,
)
from pipeline.evaluation.small_samples import FLOOR, TOO_FEW
from pipeline.execution.paths import BASE, TEACHER
from pipeline.report.facts import Cost, Estimate, Group, Point, Reliability, Table

Cells = dict[str, str | None]  # by column; None where the model lacks the figure
METRICS = {
    "rouge_l": "ROUGE-L",
    "chrf": "chrF",
    "json_valid": "valid JSON",
    "json_field_f1": "JSON field F1",
}
SIGNIFICANCE = {
    1: "significantly better (95 %)",
    0: "no significant difference (95 %)",
    -1: "significantly worse (95 %)",
}


def significance(results: Results, difference: Difference) -> str:
    """Return if a difference is significant, in words, or that there are too few examples."""
    return TOO_FEW if results.held_out < FLOOR else SIGNIFICANCE[difference.sign]


def quality(results: Results) -> Table:
    """Return the table of the quality of each model's answers."""
    named = sorted({name for model in results.models.values() for name in model.metrics})

    def cells(model: ModelFigures) -> Cells:
        return {
            f"{results.metric} [95 %]": shown(model.score),
            "retained": _number("{:.1%}", model.retained),
            "agrees with teacher": _number("{:.1%}", model.agreement),
            "unreadable": _number("{:,.0f}", model.unreadable),
            "macro-F1": _number("{:.3f}", model.macro_f1),
            **{METRICS.get(name, name): _interval(model.metrics.get(name)) for name in named},
        }

    return _table(results, cells)


def closeness(results: Results) -> Table:
    """Return the table of each model's calibration and closeness to the teacher."""
    return _table(results, _closeness)


def _closeness(model: ModelFigures) -> Cells:
    calibration, fidelity = model.calibration, model.fidelity or Fidelity()
    return {
        "calibration error": _number("{:.3f}", calibration.ece if calibration else None),
        "Brier": _number("{:.3f}", calibration.brier if calibration else None),
        "KL to teacher, nats/token": _interval(fidelity.kl),
        "top-1 as teacher": _number("{:.1%}", fidelity.top1),
        "ROUGE-L to teacher": _interval(fidelity.rouge_l),
        "chrF to teacher": _interval(fidelity.chrf),
    }


def cost(results: Results) -> Table:
    """Return the table of each model's size, speed, latency, memory and price."""
    return _table(results, _cost)


def _cost(model: ModelFigures) -> Cells:
    load = model.load or Load()
    return {
        "parameters": _number("{:,.1f}M", model.parameters, 1e-6),
        "on disk": _number("{:,.0f} MB", model.nbytes, 1e-6),
        "tokens/s": _number("{:,.0f}", model.tokens_per_s),
        "answers/s": _number("{:,.1f}", model.answers_per_s),
        "latency p50, p95": _milliseconds(load.p50_s, load.p95_s),
        "first token p50, p95": _milliseconds(load.first_token_p50_s, load.first_token_p95_s),
        "tokens/s under load": _number("{:,.0f}", load.tokens_per_s),
        "answers/s under load": _number("{:,.1f}", load.answers_per_s),
        "peak memory": _number("{:,.0f} MB", load.peak_bytes, 1e-6),
        "price of 1,000": _number("{:,.4f}", load.price_per_1000),
    }


def costs(results: Results) -> Iterator[Cost]:
    """Yield the charts of score against size and speed; each needs figures of two models."""
    sizes = {name: model.parameters for name, model in results.models.items()}
    if cost := _points(results, "Score and size", "million parameters", sizes, 1e-6):
        yield cost
    speeds = {name: load_speed(model) for name, model in results.models.items()}
    if not speeds.get(TEACHER):
        speeds = {name: model.answers_per_s for name, model in results.models.items()}
    if cost := _points(results, "Score and speed", "answers a second", speeds):
        yield cost


def load_speed(model: ModelFigures) -> float | None:
    """Return answers/s under the stated load."""
    return model.load.answers_per_s if model.load else None


def _points(
    results: Results,
    title: str,
    unit: str,
    values: Mapping[str, float | None],
    factor: float = 1.0,
) -> Cost | None:
    points = [
        Point(name, value * factor, results.models[name].score)
        for name, value in values.items()
        if value
    ]
    return Cost(title, unit, tuple(points)) if len(points) > 1 else None


def differences(results: Results) -> list[Estimate]:
    """Return each paired difference with its significance in words."""
    return [
        Estimate(name, difference, f"{tested(difference)}: {significance(results, difference)}")
        for name, difference in results.differences.items()
    ]


def groups(results: Results) -> Iterator[Group]:
    """Yield each group of held-out examples with the score of every model that has it."""
    if TEACHER not in results.models:
        return
    for name, first in results.models[TEACHER].groups.items():
        scores = [
            Estimate(model_name, model.groups[name], shown(model.groups[name]))
            for model_name, model in results.models.items()
            if name in model.groups
        ]
        yield Group(name, first.held_out, tuple(scores))


def gaps(results: Results) -> Iterator[str]:
    """Yield a sentence per model that compares the gap between its groups with the teacher's."""
    teacher = results.models.get(TEACHER)
    if teacher is None or teacher.gap is None or len(teacher.groups) < 2:
        return
    yield f"The teacher's best and worst group are {_apart(teacher, teacher.gap)}."
    for name, model in results.models.items():
        if name not in (TEACHER, BASE) and model.gap is not None:
            gap = _apart(model, model.gap)
            inherited = _inherited(model.gap, teacher.gap, _noise(model.groups))
            if min(group.held_out for group in model.groups.values()) < FLOOR:
                inherited = f"a group has {TOO_FEW}"
            yield f"{name}: its best and worst group are {gap}: {inherited}."


def _apart(model: ModelFigures, gap: float) -> str:
    worst, best = _extremes(model.groups)
    return f"{gap:.3f} apart ({best}, {worst})"


def _inherited(gap: float, teacher_gap: float, noise: float) -> str:
    """Compare two gaps; they count as different if their difference is above `noise`."""
    teacher = f"the teacher's own are {teacher_gap:.3f} apart"
    if gap - teacher_gap > noise:
        return f"amplified, {teacher}"
    if teacher_gap - gap > noise:
        return f"narrowed, {teacher}"
    if gap <= noise:
        return (
            "no significant gap, the intervals of the groups are as wide "
            f"(the teacher's own: {teacher_gap:.3f})"
        )
    return f"inherited, {teacher}, no significant difference"


def _extremes(groups: Mapping[str, GroupScore]) -> tuple[str, str]:
    """Return the names of the worst and the best group."""
    names = sorted(groups, key=lambda name: groups[name].mean)
    return names[0], names[-1]


def _noise(groups: Mapping[str, GroupScore]) -> float:
    """Return half the width of the interval of (best - worst); the groups are independent."""
    halves = [(groups[name].high - groups[name].low) / 2 for name in _extremes(groups)]
    return float(sum(half**2 for half in halves) ** 0.5)


def reliability(results: Results) -> Iterator[Reliability]:
    """Yield the reliability curve of each model whose answers have confidences."""
    for name, model in results.models.items():
        calibration = model.calibration
        if calibration and calibration.bins:
            error = f"calibration error {calibration.ece:.3f}"
            text = f"{error} over {calibration.answers:,} answers"
            yield Reliability(name, text, tuple(calibration.bins))


def memorisation(results: Results) -> Table | None:
    """Return how much each model repeats of training rows and unseen rows; None if unmeasured."""
    rows = _table(results, _memorisation)
    return rows if rows.rows else None


def _memorisation(model: ModelFigures) -> Cells:
    if model.memorisation is None:
        return {}
    cells: Cells = {}
    for name, repetition in (
        ("training rows", model.memorisation.trained),
        ("rows not trained on", model.memorisation.unseen),
    ):
        cells[name] = _number("{:,.0f}", repetition.rows)
        cells[f"{name}: verbatim"] = _number("{:.1%}", repetition.verbatim)
        cells[f"{name}: longest, tokens"] = _number("{:,.0f}", repetition.longest)
    return cells


def canaries(results: Results) -> Table | None:
    """Return the planted canaries with their exposure; None if it was not measured."""
    rows = [
        (label(name), canary.text, f"{canary.exposure:.1f}")
        for name, model in results.models.items()
        if model.memorisation
        for canary in model.memorisation.canaries
    ]
    return Table(("model", "canary", "exposure, bits"), tuple(rows)) if rows else None


def lm_eval(results: Results) -> Table | None:
    """Return lm-eval's tasks: a row per task and metric, a column per model."""
    measured = {name: model.lm_eval for name, model in results.models.items() if model.lm_eval}
    keys = dict.fromkeys(
        (task, metric)
        for tasks in measured.values()
        for task, metrics in tasks.items()
        for metric in metrics
    )
    rows = []
    for task, metric in keys:
        cells = [_task_metric(tasks.get(task, {}).get(metric)) for tasks in measured.values()]
        rows.append((f"{task}: {metric}", *cells))
    return Table(("task", *map(label, measured)), tuple(rows)) if rows else None


def _task_metric(metric: TaskMetric | None) -> str:
    if metric is None:
        return "-"
    error = "" if metric.stderr is None else f" ± {metric.stderr:.3f}"
    return f"{metric.value:.3f}{error}"


def _number(pattern: str, value: float | None, factor: float = 1.0) -> str | None:
    return None if value is None else pattern.format(value * factor)


def _interval(interval: Interval | None) -> str | None:
    return None if interval is None else shown(interval)


def _milliseconds(half: float | None, most: float | None) -> str | None:
    """Return the text of two latencies in milliseconds, such as p50 and p95."""
    if half is None or most is None:
        return None
    return f"{half * 1e3:,.0f}, {most * 1e3:,.0f} ms"


def _table(results: Results, cells: Callable[[ModelFigures], Cells]) -> Table:
    """Return a row per model and a column for each figure that at least one model has."""
    rows = {name: cells(model) for name, model in results.models.items()}
    named = dict.fromkeys(column for row in rows.values() for column in row)
    columns = [name for name in named if any(row.get(name) is not None for row in rows.values())]
    if not columns:
        return Table(("model",), ())
    body = [
        (label(name), *(row.get(column) or "-" for column in columns)) for name, row in rows.items()
    ]
    return Table(("model", *columns), tuple(body))
