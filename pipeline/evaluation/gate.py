"""The release gate: compare the figures of results.json with the thresholds of the config."""

from collections.abc import Iterator

from pipeline.config import Config, Gate
from pipeline.errors import PipelineError
from pipeline.evaluation.results_model import Load, ModelFigures, Results
from pipeline.evaluation.small_samples import FLOOR, LEVEL, TOO_FEW
from pipeline.execution.paths import TEACHER

LOAD = "set evaluate.load, such as {}"
PRICE = f"{LOAD}, and evaluate.price_per_hour"
CONFIDENCE = "its answers were kept without their probabilities, so evaluate it with --redo"


def failed(config: Config, results: Results) -> list[str]:
    """Return a line for each threshold that the gated student misses; empty without a gate.

    Raises PipelineError if the gate names a model that was not evaluated, or a figure that was not
    measured.
    """
    gate = config.evaluate.gate
    if gate is None:
        return []
    name = gate.arm or next(iter(config.train.arms))
    for model in (name, gate.over):
        if model is not None and model not in results.models:
            raise PipelineError(
                f"evaluate.gate: there is no model '{model}'; there are {', '.join(results.models)}"
            )
    lines = [*_below(gate, results, name), *_above(gate, results.models[name], name)]
    return [f"gate: {name}: {line}" for line in lines]


def _below(gate: Gate, results: Results, name: str) -> Iterator[str]:
    """Yield a line for each missed threshold on a figure that every run has."""
    model = results.models[name]
    if gate.certain and results.held_out < FLOOR:
        yield f"evaluate.gate.certain: {results.held_out} is {TOO_FEW}"
    bound = "low end of the interval" if gate.certain else "score"
    score = model.score.low if gate.certain else model.score.mean
    if gate.score is not None and score < gate.score:
        yield f"{bound} {score:.3f}, less than evaluate.gate.score={gate.score:g}"
    retained = model.retained or 0.0
    if gate.retained is not None and retained < gate.retained:
        bar = f"evaluate.gate.retained={gate.retained:g}"
        yield f"keeps {retained:.1%} of the teacher's score, less than {bar}"
    if gate.over is not None and results.gate is not None:
        lead = results.gate.low if gate.certain else results.gate.mean
        if lead <= gate.margin:
            bar = f"evaluate.gate.margin={gate.margin:g}"
            yield f"minus {gate.over} is {lead:+.3f} ({bound}), not above {bar}"
        elif gate.certain and gate.margin >= 0 and (p := _p(results, name, gate.over)) >= LEVEL:
            yield f"minus {gate.over} is not significant, p = {p:.3f} (evaluate.gate.certain)"
    gap = model.gap or 0.0
    if gate.gap is not None and gap > gate.gap:
        bar, teacher = f"evaluate.gate.gap={gate.gap:g}", results.models[TEACHER].gap or 0.0
        yield f"its groups are {gap:.3f} apart, more than {bar} (the teacher's: {teacher:.3f})"


def _p(results: Results, name: str, over: str) -> float:
    """Return p of the difference of two models; 0 if this pair was not tested, which passes."""
    tested = [results.differences.get(pair) for pair in (f"{name} - {over}", f"{over} - {name}")]
    return next((pair.p for pair in tested if pair and pair.p is not None), 0.0)


def _above(gate: Gate, model: ModelFigures, name: str) -> Iterator[str]:
    """Yield a line for each exceeded maximum of a figure that only some runs measure."""
    load = model.load or Load()
    ece = model.calibration.ece if model.calibration else None
    for key, most, figure, remedy in (
        ("p95_s", gate.p95_s, load.p95_s, LOAD),
        ("price_per_1000", gate.price_per_1000, load.price_per_1000, PRICE),
        ("ece", gate.ece, ece, CONFIDENCE),
    ):
        if most is None:
            continue
        if figure is None:
            raise PipelineError(
                f"evaluate.gate.{key}: was not measured for {name}; {remedy}, "
                "and run pipeline evaluate again"
            )
        if figure > most:
            yield f"{key} is {figure:.4g}, more than evaluate.gate.{key}={most:g}"
