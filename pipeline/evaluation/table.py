"""The table of results that `pipeline evaluate` prints."""

from collections.abc import Mapping
from typing import Any

from pipeline.evaluation import baseline
from pipeline.evaluation.format import label, lay_out, shown, tested
from pipeline.evaluation.pairs import methods_compared
from pipeline.evaluation.results_model import Difference, Fidelity, ModelFigures, Repeats, Results
from pipeline.evaluation.small_samples import FLOOR, TOO_FEW

LAST = ("parameters", "on disk", "answers/s", "p95 latency")


def table(results: Results, train: Mapping[str, Any] | None = None) -> str:
    """Return a row per model, then the kd - sft differences; results.json has the others.

    `train` is the section `train` of the run's config. Without it, all arms count as trained with
    equal settings.
    """
    lines = [f"{line}." for line in baseline.warnings(results)]
    lines += lay_out(_rows(results), "right")
    lines += [_repeats_line(name, group) for name, group in results.repeats.items()]
    basis = f"paired, {results.held_out} held-out examples"
    if results.repeats:
        basis += ", over repeats"
    for name, unequal in methods_compared(results, train or {}).items():
        caution = f"; not the method alone, they differ in {', '.join(unequal)}" if unequal else ""
        lines.append(_difference_line(name, results.differences[name], basis) + caution)
    if results.held_out < FLOOR:
        lines.append(f"({results.held_out} is {TOO_FEW})")
    if results.note:
        lines.append(f"({results.note})")
    return "\n".join(lines)


def _rows(results: Results) -> list[list[str]]:
    """Return the head and a row per model; a figure that no model has gets no column."""
    score = f"{results.metric} [95 %]"
    rows = [
        {"model": label(name), score: shown(model.score), **_cells(model)}
        for name, model in results.models.items()
    ]
    named = dict.fromkeys(column for row in rows for column in row)
    columns = [column for column in named if column not in LAST] + list(LAST)
    return [columns, *([row.get(column, "-") for column in columns] for row in rows)]


def _cells(model: ModelFigures) -> dict[str, str]:
    """Return the cells of a model by column; a figure that the model lacks is left out."""
    cells = {"retained": "-" if model.retained is None else f"{model.retained:.1%}"}
    for name, interval in model.metrics.items():
        cells[name] = f"{interval.mean:.3f}"
    if model.calibration:
        cells["ece"] = f"{model.calibration.ece:.3f}"
    fidelity = model.fidelity or Fidelity()
    if fidelity.kl:
        cells["KL"] = f"{fidelity.kl.mean:.3f}"
        cells["top-1"] = f"{fidelity.top1:.1%}"
    if fidelity.chrf:
        cells["chrF to teacher"] = f"{fidelity.chrf.mean:.3f}"
    if model.parameters:
        cells["parameters"] = f"{model.parameters / 1e6:,.1f}M"
    if model.nbytes:
        cells["on disk"] = f"{model.nbytes / 1e6:,.0f} MB"
    if model.answers_per_s:
        cells["answers/s"] = f"{model.answers_per_s:,.1f}"
    if model.load and model.load.p95_s is not None:
        cells["p95 latency"] = f"{model.load.p95_s:.2f} s"
    return cells


def _repeats_line(name: str, group: Repeats) -> str:
    retained = f", {group.retained:.1%} retained" if group.retained is not None else ""
    return (
        f"{name}, mean of {len(group.each)} repeats: {shown(group.score)}, "
        f"from {min(group.each):.3f} to {max(group.each):.3f}{retained}"
    )


def _difference_line(name: str, difference: Difference, basis: str) -> str:
    fidelity = f"; KL {tested(difference.kl)}" if difference.kl else ""
    return f"{name}: {tested(difference)}{fidelity}, {basis}"
