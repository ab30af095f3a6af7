"""Whether a student is good enough to ship, by thresholds of the config on the figures of results.json."""

from collections.abc import Iterator, Mapping
from typing import Any

from pipeline.config import Config, Gate
from pipeline.errors import PipelineError


def failed(config: Config, results: Mapping[str, Any]) -> list[str]:
    """A line for each threshold that the judged student misses; empty if it passes, or if there is no gate.

    Raises PipelineError if the gate names a model that was not evaluated, or a figure that was not measured.
    """
    gate = config.evaluate.gate
    if gate is None:
        return []
    name = gate.arm or next(iter(config.train.arms))
    for one in (name, gate.over):
        if one is not None and one not in results["models"]:
            raise PipelineError(
                f"evaluate.gate: there is no model '{one}'; there are {', '.join(results['models'])}"
            )
    return [f"gate: {name}: {line}" for line in _lines(config, results, name)]


def _lines(config: Config, results: Mapping[str, Any], name: str) -> Iterator[str]:
    gate, model = config.evaluate.gate, results["models"][name]
    assert gate is not None
    bound = "low" if gate.certain else "mean"
    said = "low end of the interval" if gate.certain else "score"
    if gate.score is not None and model["score"][bound] < gate.score:
        yield f"{said} {model['score'][bound]:.3f}, less than evaluate.gate.score={gate.score:g}"
    if gate.retained is not None and (model["retained"] or 0.0) < gate.retained:
        yield f"keeps {model['retained'] or 0.0:.1%} of the teacher, less than evaluate.gate.retained={gate.retained:g}"
    if gate.over is not None and not results["gate"][bound] > gate.margin:
        yield f"minus {gate.over} is {results['gate'][bound]:+.3f} ({said}), not above evaluate.gate.margin={gate.margin:g}"
    if gate.gap is not None and (model["gap"] or 0.0) > gate.gap:
        widest = f"{results['models']['teacher']['gap'] or 0.0:.3f}"
        yield f"its groups are {model['gap']:.3f} apart, more than evaluate.gate.gap={gate.gap:g} (the teacher's: {widest})"
    yield from _beyond(gate, model, name)


def _beyond(gate: Gate, model: Mapping[str, Any], name: str) -> Iterator[str]:
    """Figures that are measured only where that is asked for, and may be so high at most."""
    for key, most, inside, needs in (
        ("p95_s", gate.p95_s, "load", "set evaluate.load, such as {}"),
        (
            "price_per_1000",
            gate.price_per_1000,
            "load",
            "set evaluate.load, such as {}, and evaluate.price_per_hour",
        ),
        (
            "ece",
            gate.ece,
            "calibration",
            "its answers were kept without their probabilities, so evaluate it with --redo",
        ),
    ):
        found = (model.get(inside) or {}).get(key)
        if most is None:
            continue
        if found is None:
            raise PipelineError(
                f"evaluate.gate.{key}: was not measured for {name}; {needs}, and give pipeline evaluate again"
            )
        if found > most:
            yield f"{key} is {found:.4g}, more than evaluate.gate.{key}={most:g}"
