"""Results of an ablation: the value of curation, the data-size curve, and their text."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.ablation.plan import CURATED, RANDOM, Plan
from pipeline.evaluation.bootstrap import Interval, bootstrap_repeats, bootstrap_sum
from pipeline.evaluation.format import shown, signed
from pipeline.evaluation.results import FAKE
from pipeline.execution import manifest
from pipeline.records import Scored
from pipeline.stages import evaluate, train
from pipeline.stages import filter as filter_stage
from pipeline.storage.files import read_json
from pipeline.storage.shards import read_records

NEARLY_ALL = (
    0.95  # share of the samples above which the kept ones and a random subset are much the same
)


def results(planned: Plan) -> dict[str, Any]:
    """Everything that results.json holds, from what is on disk."""
    folder = planned.folder
    runs = {group: _values(folder, names) for group, names in planned.groups.items()}
    counts = manifest.read_manifest(folder, filter_stage.NAME)["counts"]
    engines = {
        str(read_json(folder / evaluate.NAME / name / "cost.json")["engine"])
        for name in planned.arms
    }
    return {
        "metric": planned.config.task.metric,
        "held_out": runs[CURATED].shape[1],
        "arm": planned.method_of,
        "repeats": len(runs[CURATED]),
        "samples": counts["samples"],
        "kept": counts["kept"],
        "sets": {
            group: {
                "arms": planned.groups[group],
                "rows": [
                    manifest.read_manifest(folder, f"{train.NAME}/{name}")["counts"]["rows"]
                    for name in planned.groups[group]
                ],
                "score": dataclasses.asdict(bootstrap_repeats(values)),
                "each": values.mean(1).tolist(),
            }
            for group, values in runs.items()
        },
        "curation": dataclasses.asdict(bootstrap_repeats(runs[CURATED], runs[RANDOM])),
        "curve": curve({share: runs[group] for group, share in planned.shares.items()})
        if len(planned.shares) > 1
        else None,
        "note": FAKE if any(engine.startswith("fake") for engine in engines) else None,
    }


def curve(runs: Mapping[float, NDArray[np.float64]]) -> dict[str, Any]:
    """How the score, (R, I) for each share of the data, grows with it: the least-squares slope of the sets' means over log2(share), so per
    doubling, and the difference between all and the largest share below."""
    shares = sorted(runs, reverse=True)
    doublings = np.log2(shares)
    offsets = doublings - doublings.mean()
    slope = bootstrap_sum(
        [runs[share] for share in shares], (offsets / (offsets**2).sum()).tolist()
    )
    return {
        "shares": shares,
        "per_doubling": dataclasses.asdict(slope),
        "last_step": dataclasses.asdict(bootstrap_repeats(runs[shares[0]], runs[shares[1]])),
    }


def report(found: Mapping[str, Any]) -> str:
    """The results as the terminal shows them."""
    head = ("trained on", "rows", f"{found['metric']} [95 %]", "each repeat")
    rows = [head, *(_row(group, one) for group, one in found["sets"].items())]
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    lines.insert(1, "-" * max(map(len, lines)))
    lines.append(
        f"({found['arm']}, {found['repeats']} training seeds each, as many steps in every set, {found['held_out']} held-out seeds)"
    )
    lines += said(found)
    return "\n".join([*lines, *([f"({found['note']})"] if found["note"] else [])])


def said(found: Mapping[str, Any]) -> list[str]:
    """What follows from the results, in words."""
    return [_curation(found), *([_more(found["curve"])] if found["curve"] else [])]


def _values(folder: Path, names: Sequence[str]) -> NDArray[np.float64]:
    """(R, I): the score of every held-out seed, sorted by its id, in each repeat."""
    answers = [
        {
            one.seed_id: one.score.value
            for one in read_records(folder / evaluate.NAME / name, Scored)
        }
        for name in names
    ]
    assert all(answer.keys() == answers[0].keys() for answer in answers)
    return np.array([[answer[seed] for seed in sorted(answer)] for answer in answers], np.float64)


def _row(group: str, one: Mapping[str, Any]) -> tuple[str, ...]:
    name, percent = (
        (CURATED, group.removeprefix(CURATED).replace("_", "."))
        if group.startswith(CURATED)
        else (group, "")
    )
    each = ", ".join(f"{mean:.3f}" for mean in one["each"])
    return (
        f"{name}, {percent} %" if percent else name,
        f"{round(np.mean(one['rows'])):,}",
        shown(one["score"]),
        each,
    )


def _curation(found: Mapping[str, Any]) -> str:
    """What curation is worth, and how far the comparison can be trusted to show it."""
    gain, kept = Interval(**found["curation"]), found["kept"] / found["samples"]
    verdict = {
        1: "shown",
        0: "not shown, the interval holds 0",
        -1: "shown to do harm; see what filter took (RUN/filter/rejected)",
    }[_sign(gain)]
    near = (
        ": the two sets are nearly the same, and the comparison can show little"
        if kept > NEARLY_ALL
        else ""
    )
    return (
        f"curation is worth {signed(found['curation'])} over a random subset of the same size: {verdict}\n"
        f"  filter kept {found['kept']:,} of {found['samples']:,} samples ({kept:.1%}), which is their share in a random subset too{near}"
    )


def _more(found: Mapping[str, Any]) -> str:
    """Whether more data would help, as far as the curve can say."""
    slope, last = Interval(**found["per_doubling"]), Interval(**found["last_step"])
    step = f"the last step, from {found['shares'][1]:.4g} of the samples to all, gave {signed(found['last_step'])}"
    if _sign(slope) < 0:
        verdict = "no, fewer did better"
    elif _sign(slope) == 0:
        verdict = f"not shown, the interval holds 0; more than {slope.high:+.3f} for twice the data lies outside it"
    elif _sign(last) > 0:
        verdict = f"likely, if the curve goes on as it did; {step}"
    else:
        verdict = f"not shown, though it has helped so far; {step}"
    return f"each doubling of the kept samples is worth {signed(found['per_doubling'])}\n  would more data help? {verdict}"


def _sign(interval: Interval) -> int:
    """1 or -1 if the whole interval lies on that side of 0, else 0."""
    return int(interval.low > 0) - int(interval.high < 0)
