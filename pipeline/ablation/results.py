"""Compute the results of an ablation: the value of curation and the data-size curve."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.ablation.plan import CURATED, RANDOM, Plan
from pipeline.ablation.results_model import AblationResults, Curve, TrainingSetScores
from pipeline.evaluation.bootstrap import bootstrap_repeats, bootstrap_sum
from pipeline.evaluation.format import lay_out, shown, signed
from pipeline.evaluation.results import FAKE
from pipeline.evaluation.small_samples import FLOOR, TOO_FEW, UNIT
from pipeline.execution import manifest
from pipeline.records import Scored
from pipeline.stages import evaluate, train
from pipeline.stages import filter as filter_stage
from pipeline.storage.files import read_json
from pipeline.storage.shards import read_records

NEARLY_ALL = 0.95  # if filter kept a larger share, a random subset is nearly the same set


def results(plan: Plan) -> AblationResults:
    """Compute all figures from the files of the trained and evaluated arms."""
    folder = plan.folder
    runs = {group: _values(folder, names) for group, names in plan.groups.items()}
    counts = manifest.read_manifest(folder, filter_stage.NAME)["counts"]
    engines = [
        str(read_json(folder / evaluate.NAME / name / "cost.json")["engine"]) for name in plan.arms
    ]
    is_fake = any(engine.startswith("fake") for engine in engines)
    by_share = {share: runs[group] for group, share in plan.shares.items()}
    return AblationResults(
        metric=plan.config.task.metric,
        held_out=runs[CURATED].shape[1],
        arm=plan.method_of,
        repeats=len(runs[CURATED]),
        samples=counts["samples"],
        kept=counts["kept"],
        sets={
            group: TrainingSetScores(
                arms=plan.groups[group],
                rows=_rows(folder, plan.groups[group]),
                score=bootstrap_repeats(values, scale=UNIT),
                each=values.mean(1).tolist(),
            )
            for group, values in runs.items()
        },
        curation=bootstrap_repeats(runs[CURATED], runs[RANDOM], scale=UNIT),
        curve=curve(by_share) if len(by_share) > 1 else None,
        note=FAKE if is_fake else None,
    )


def curve(runs: Mapping[float, NDArray[np.float64]]) -> Curve:
    """Return how the score grows with the share of the data; `runs` has scores (R, I) by share.

    `per_doubling` is the least-squares slope of the mean score of each set over log2(share).
    `last_step` is the score on all data minus the score on the next smaller share.
    """
    shares = sorted(runs, reverse=True)
    doublings = np.log2(shares)
    offsets = doublings - doublings.mean()
    weights = offsets / (offsets**2).sum()
    return Curve(
        shares=shares,
        per_doubling=bootstrap_sum([runs[share] for share in shares], weights.tolist(), scale=UNIT),
        last_step=bootstrap_repeats(runs[shares[0]], runs[shares[1]], scale=UNIT),
    )


def report(results: AblationResults) -> str:
    """Return the table and the conclusions that `pipeline ablate` prints."""
    head = ("trained on", "rows", f"{results.metric} [95 %]", "each repeat")
    rows = [_cells(name, trained) for name, trained in results.sets.items()]
    lines = lay_out([head, *rows], "left")
    lines.append(
        f"({results.arm}, {results.repeats} training seeds each, as many steps in every set, "
        f"{results.held_out} held-out examples)"
    )
    lines += conclusions(results)
    if results.note:
        lines.append(f"({results.note})")
    return "\n".join(lines)


def conclusions(results: AblationResults) -> Iterator[str]:
    """Yield the sentences that say what the results show."""
    if results.held_out < FLOOR:
        yield f"{results.held_out} is {TOO_FEW}"
    yield from _curation(results)
    if results.curve:
        yield from _more_data(results.curve)


def _rows(folder: Path, arms: Sequence[str]) -> list[int]:
    return [manifest.read_manifest(folder, f"{train.NAME}/{arm}")["counts"]["rows"] for arm in arms]


def _values(folder: Path, arms: Sequence[str]) -> NDArray[np.float64]:
    """Return the scores (R, I) of these arms on every held-out example, sorted by example id."""
    runs = []
    for arm in arms:
        answers = read_records(folder / evaluate.NAME / arm, Scored)
        runs.append({answer.seed_id: answer.score.value for answer in answers})
    assert all(run.keys() == runs[0].keys() for run in runs)
    order = sorted(runs[0])
    return np.array([[run[example] for example in order] for run in runs], np.float64)


def _cells(group: str, trained: TrainingSetScores) -> tuple[str, ...]:
    percent = group.removeprefix(CURATED).replace("_", ".") if group.startswith(CURATED) else ""
    return (
        f"{CURATED}, {percent} %" if percent else group,
        f"{round(np.mean(trained.rows)):,}",
        shown(trained.score),
        ", ".join(f"{mean:.3f}" for mean in trained.each),
    )


def _curation(results: AblationResults) -> Iterator[str]:
    """Yield the gain by curation, and a caution if the two sets are nearly the same."""
    verdict = {
        1: "significant (95 %)",
        0: "no significant difference, the interval holds 0",
        -1: "significantly worse; see what filter rejected (RUN/filter/rejected)",
    }[results.curation.sign]
    yield (
        f"curation is worth {signed(results.curation)} over a random subset of the same size: "
        f"{verdict}"
    )
    kept = results.kept / results.samples
    caution = ""
    if kept > NEARLY_ALL:
        caution = "; the two sets are nearly the same, so the comparison can show little"
    yield (
        f"  filter kept {results.kept:,} of {results.samples:,} samples ({kept:.1%}), "
        f"which is their share in a random subset too{caution}"
    )


def _more_data(curve: Curve) -> Iterator[str]:
    """Yield whether more data would help, as far as the curve can say."""
    slope, last = curve.per_doubling, curve.last_step
    step = f"the last step, from {curve.shares[1]:.4g} of the samples to all, gave {signed(last)}"
    if slope.sign < 0:
        verdict = "no, fewer did better"
    elif slope.sign == 0:
        verdict = (
            "no significant difference, the interval holds 0; "
            f"more than {slope.high:+.3f} for twice the data is outside it"
        )
    elif last.sign > 0:
        verdict = f"likely, if the curve continues; {step}"
    else:
        verdict = f"not significant, though it has helped so far; {step}"
    yield f"each doubling of the kept samples is worth {signed(slope)}"
    yield f"  would more data help? {verdict}"
