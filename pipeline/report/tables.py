"""What results.json says, made ready to be read: the tables of models, differences, groups, calibration, memory. Any key may be absent."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from pipeline.evaluation.bootstrap import Interval
from pipeline.evaluation.format import label, shown, signed
from pipeline.execution.paths import BASE, TEACHER
from pipeline.report.facts import Bin, Cost, Estimate, Group, Point, Reliability, Table

Found = Mapping[str, Any]
Column = tuple[str, Callable[[Found], str | None]]
METRICS = {
    "rouge_l": "ROUGE-L",
    "chrf": "chrF",
    "json_valid": "valid JSON",
    "json_field_f1": "JSON field F1",
}


def at(tree: Any, *keys: str) -> Any:
    """What lies below `keys`; None where one of them is absent or null."""
    for key in keys:
        tree = tree.get(key) if isinstance(tree, Mapping) else None
    return tree


def of(found: Found) -> Interval:
    return Interval(found["mean"], found["low"], found["high"])


def words(pattern: str, *keys: str, factor: float = 1.0) -> Callable[[Found], str | None]:
    """A cell: the number below `keys`, times `factor`, by `pattern`."""

    def cell(model: Found) -> str | None:
        value = at(model, *keys)
        return None if value is None else pattern.format(value * factor)

    return cell


def interval(*keys: str) -> Callable[[Found], str | None]:
    """A cell: mean and interval below `keys`; also of a plain number there."""

    def cell(model: Found) -> str | None:
        value = at(model, *keys)
        return (
            shown(value)
            if isinstance(value, Mapping)
            else None
            if value is None
            else f"{value:.3f}"
        )

    return cell


def quality(results: Found) -> Table:
    """How good each model's answers are."""
    named = sorted(
        {name for model in results["models"].values() for name in at(model, "metrics") or {}}
    )
    return _table(
        results,
        [
            (f"{results['metric']} [95 %]", interval("score")),
            ("retained", words("{:.1%}", "retained")),
            ("agrees with teacher", words("{:.1%}", "agreement")),
            ("unreadable", words("{:,.0f}", "unreadable")),
            ("macro-F1", words("{:.3f}", "macro_f1")),
            *((METRICS.get(name, name), interval("metrics", name)) for name in named),
        ],
    )


def closeness(results: Found) -> Table:
    """How near each model's probabilities are to the truth and to the teacher's."""
    return _table(
        results,
        [
            ("calibration error", words("{:.3f}", "calibration", "ece")),
            ("Brier", words("{:.3f}", "calibration", "brier")),
            ("KL to teacher, nats/token", interval("fidelity", "kl")),
            ("top-1 as teacher", words("{:.1%}", "fidelity", "top1")),
            ("ROUGE-L to teacher", interval("fidelity", "rouge_l")),
            ("chrF to teacher", interval("fidelity", "chrf")),
        ],
    )


def cost(results: Found) -> Table:
    """What each model costs."""
    return _table(
        results,
        [
            ("parameters", words("{:,.1f}M", "parameters", factor=1e-6)),
            ("on disk", words("{:,.0f} MB", "nbytes", factor=1e-6)),
            ("tokens/s", words("{:,.0f}", "tokens_per_s")),
            ("answers/s", words("{:,.1f}", "answers_per_s")),
            ("latency p50, p95", _latency("p50_s", "p95_s")),
            ("first token p50, p95", _latency("first_token_p50_s", "first_token_p95_s")),
            ("tokens/s under load", words("{:,.0f}", "load", "tokens_per_s")),
            ("answers/s under load", words("{:,.1f}", "load", "answers_per_s")),
            ("peak memory", words("{:,.0f} MB", "load", "peak_bytes", factor=1e-6)),
            ("price of 1,000", words("{:,.4f}", "load", "price_per_1000")),
        ],
    )


def _latency(half: str, most: str) -> Callable[[Found], str | None]:
    """A cell: what half and what 95 % of the requests take at most."""

    def cell(model: Found) -> str | None:
        found = [at(model, "load", half), at(model, "load", most)]
        return (
            None if None in found else ", ".join(f"{value * 1e3:,.0f}" for value in found) + " ms"
        )

    return cell


def costs(results: Found) -> Iterator[Cost]:
    """What to draw quality against; a measure that two models have."""
    rate = (
        ("load", "answers_per_s")
        if at(results, "models", TEACHER, "load", "answers_per_s")
        else ("answers_per_s",)
    )
    for title, unit, keys, factor in (
        ("Score and size", "million parameters", ("parameters",), 1e-6),
        ("Score and speed", "answers a second", rate, 1.0),
    ):
        points = [
            Point(name, at(model, *keys) * factor, of(model["score"]))
            for name, model in results["models"].items()
            if at(model, *keys)
        ]
        if len(points) > 1:
            yield Cost(title, unit, tuple(points))


def differences(results: Found) -> list[Estimate]:
    return [
        Estimate(name, of(one), verdict_of(one))
        for name, one in (results.get("differences") or {}).items()
    ]


def verdict_of(one: Found) -> str:
    """-0.017 [-0.043, +0.007], p = 0.231: not shown"""
    said = {1: "better, shown", 0: "not shown", -1: "worse, shown"}[side(one)]
    return f"{tested(one)}: {said}"


def tested(one: Found) -> str:
    """-0.017 [-0.043, +0.007], p = 0.231"""
    p = one.get("p")
    return signed(one) + ("" if p is None else ", p < 0.001" if p < 0.001 else f", p = {p:.3f}")


def side(one: Found) -> int:
    """1 or -1 if the whole interval lies on that side of 0, else 0."""
    return int(one["low"] > 0) - int(one["high"] < 0)


def groups(results: Found) -> Iterator[Group]:
    """Each slice with the score of every model that has it."""
    models = results["models"]
    for name, first in (at(models, TEACHER, "groups") or {}).items():
        scores = [
            Estimate(model, of(found["groups"][name]), shown(found["groups"][name]))
            for model, found in models.items()
            if at(found, "groups", name)
        ]
        yield Group(name, first["held_out"], tuple(scores))


def gaps(results: Found) -> Iterator[str]:
    """A sentence a model: how far its best and worst group are apart, and whether that is the teacher's doing."""
    models = results["models"]
    teacher = at(models, TEACHER, "gap")
    if teacher is None or len(models[TEACHER]["groups"]) < 2:
        return
    yield f"The teacher's best and worst group are {_apart(models[TEACHER])}."
    for name, model in models.items():
        if name not in (TEACHER, BASE) and model.get("gap") is not None:
            yield f"{name}: its best and worst group are {_apart(model)}: {_inherited(model, models[TEACHER])}."


def _apart(model: Found) -> str:
    worst, best = _ends(model["groups"])
    return f"{model['gap']:.3f} apart ({best}, {worst})"


def _inherited(model: Found, teacher: Found) -> str:
    """A gap is told from another one only beyond the noise of the two groups that it lies between."""
    gap, own, noise = model["gap"], teacher["gap"], _noise(model["groups"])
    if gap - own > noise:
        return f"amplified, the teacher's own are {own:.3f} apart"
    if own - gap > noise:
        return f"narrowed, the teacher's own are {own:.3f} apart"
    if gap <= noise:
        return f"no gap is shown, the intervals of the groups are as wide (the teacher's own: {own:.3f})"
    return f"inherited, the teacher's own are {own:.3f} apart and the intervals do not tell these from those"


def _ends(found: Mapping[str, Found]) -> tuple[str, str]:
    names = sorted(found, key=lambda name: float(found[name]["mean"]))
    return names[0], names[-1]


def _noise(found: Mapping[str, Found]) -> float:
    """Half the width of the interval of the difference of the two outermost groups, which hold different seeds."""
    halves = [(found[name]["high"] - found[name]["low"]) / 2 for name in _ends(found)]
    return float(sum(half**2 for half in halves) ** 0.5)


def reliability(results: Found) -> Iterator[Reliability]:
    for name, model in results["models"].items():
        found = at(model, "calibration")
        if at(found, "bins"):
            bins = tuple(
                Bin(one["confidence"], one["accuracy"], one["count"]) for one in found["bins"]
            )
            yield Reliability(
                name,
                f"calibration error {found['ece']:.3f} over {found['answers']:,} answers",
                bins,
            )


def memorisation(results: Found) -> tuple[Table | None, Table | None]:
    """(training rows beside rows never seen, planted canaries), where they were looked for."""
    columns: list[Column] = []
    for side, name in (("trained", "training rows"), ("unseen", "rows not trained on")):
        columns += [
            (name, words("{:,.0f}", "memorisation", side, "rows")),
            (f"{name}: verbatim", words("{:.1%}", "memorisation", side, "verbatim")),
            (f"{name}: longest, tokens", words("{:,.0f}", "memorisation", side, "longest")),
        ]
    rows = _table(results, columns)
    canaries = [
        (label(name), str(canary["text"]), f"{canary['exposure']:.1f}")
        for name, model in results["models"].items()
        for canary in at(model, "memorisation", "canaries") or []
    ]
    return rows if rows.rows else None, Table(
        ("model", "canary", "exposure, bits"), tuple(canaries)
    ) if canaries else None


def elsewhere(results: Found) -> Table | None:
    """lm-eval's tasks: a row a task and metric, a column a model."""
    asked = {
        name: model["lm_eval"] for name, model in results["models"].items() if at(model, "lm_eval")
    }
    keys = dict.fromkeys(
        (task, metric)
        for tasks in asked.values()
        for task, metrics in tasks.items()
        for metric in metrics
    )
    rows = [
        (f"{task}: {metric}", *(_measured(at(tasks, task, metric)) for tasks in asked.values()))
        for task, metric in keys
    ]
    return Table(("task", *map(label, asked)), tuple(rows)) if rows else None


def _measured(found: Found | None) -> str:
    if found is None or found.get("value") is None:
        return "-"
    return f"{found['value']:.3f}" + (
        "" if found.get("stderr") is None else f" ± {found['stderr']:.3f}"
    )


def _table(results: Found, columns: Sequence[Column]) -> Table:
    """A row a model, a column for whatever at least one of them has."""
    cells = [
        (head, [cell(model) for model in results["models"].values()]) for head, cell in columns
    ]
    there = [(head, values) for head, values in cells if any(value is not None for value in values)]
    rows = (
        [
            (label(name), *(values[number] or "-" for _, values in there))
            for number, name in enumerate(results["models"])
        ]
        if there
        else []
    )
    return Table(("model", *(head for head, _ in there)), tuple(rows))
