"""ablate: what curation is worth, and whether more data would help, by students trained on it and on less or other data.

RUN/ablate is a run folder of its own: it shares RUN/generate and RUN/filter by links, and its arms are repeats of one arm of the config on
the kept samples, on as many drawn at random from all, and on shares of the kept ones. Every arm makes as many optimiser steps, so that sets
differ in their samples and not in how long was trained on them. Repeat n has training seed n, which also draws its samples.
"""

import dataclasses
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.config import Arm, Config, load
from pipeline.errors import PipelineError
from pipeline.evaluation.bootstrap import Interval, bootstrap_repeats, bootstrap_sum
from pipeline.evaluation.format import shown, signed
from pipeline.evaluation.results import FAKE
from pipeline.execution import contract, fingerprint, manifest, runner
from pipeline.execution.progress import clock
from pipeline.records import Scored
from pipeline.stages import evaluate, train
from pipeline.stages import filter as filter_stage
from pipeline.storage.files import read_json, write_json
from pipeline.storage.locks import Lock
from pipeline.storage.shards import read_records

NAME = "ablate"
CURATED, RANDOM = "curated", "random"
SHARED = ("generate", "filter")
NEARLY_ALL = 0.95  # share of the samples above which the kept ones and a random subset are much the same

Do = Callable[[str, str], object]  # runs one arm of a stage, in a process of its own: ("train", "curated-0")


@dataclass(frozen=True)
class Plan:
    """What is trained: `config` is that of RUN/ablate, `overrides` make it of the run's own, `groups` are names of arms, by set and repeat;
    `shares` says how much of the kept samples each curated set has."""

    config: Config
    overrides: list[str]
    method_of: str
    groups: dict[str, list[str]]
    shares: dict[str, float]

    @property
    def folder(self) -> Path:
        return Path(self.config.run_dir)

    @property
    def arms(self) -> list[str]:
        """Repeat by repeat, so that each round is a whole comparison."""
        return [name for names in zip(*self.groups.values(), strict=True) for name in names]


def plan(path: Path, overrides: Sequence[str], arm: str | None, repeats: int, shares: Sequence[float]) -> Plan:
    """What `pipeline ablate` would do. Raises PipelineError if the arm (None: the first of the config) cannot be ablated, or filter is not
    finished or was run with other settings."""
    config = load(path, overrides)
    name = arm or next(iter(config.train.arms))
    _check(config, name)
    base = config.train.arms[name]
    sets = {CURATED: base, RANDOM: base.model_copy(update={"selection": "random"})}
    sizes = {CURATED: 1.0, **{f"{CURATED}{100 * share:g}".replace(".", "_"): share for share in sorted(set(shares), reverse=True)}}
    epochs = base.epochs or config.train.epochs
    sets |= {
        group: base.model_copy(update={"share": base.share * share, "epochs": epochs / share})
        for group, share in sizes.items()
        if share < 1
    }
    arms = {f"{group}-{seed}": _given(settings, seed) for seed in range(repeats) for group, settings in sets.items()}
    added = [f"run_dir={Path(config.run_dir) / NAME}", "train.rows=filter", "evaluate.load=null", f"train.arms={json.dumps(arms)}"]
    groups = {group: [f"{group}-{seed}" for seed in range(repeats)] for group in sets}
    return Plan(load(path, [*overrides, *added]), [*overrides, *added], name, groups, sizes)


def run(planned: Plan, do: Do, redo: bool = False) -> bool:
    """Train and evaluate every arm that is not there yet. Returns whether there was one. Says how long the rest will take.

    With `redo` what is there is set aside first. Raises PipelineError if another process does the same. An arm's checkpoints are dropped
    when it has been evaluated: a dozen students would fill a disk with them.
    """
    folder = planned.folder
    folder.mkdir(parents=True, exist_ok=True)
    lock = Lock(folder / "lock")
    if not lock.take():
        raise PipelineError(f"{folder}: process {lock.holder} is at work here; wait for it, or end it")
    try:
        if redo:
            _set_aside(planned)
        _link(folder)
        left = [name for name in planned.arms if not _is_done(planned, name)]
        _make(planned, left, do)
    finally:
        lock.release()
    return bool(left)


def results(planned: Plan) -> dict[str, Any]:
    """Everything that results.json holds, from what is on disk."""
    folder = planned.folder
    runs = {group: _values(folder, names) for group, names in planned.groups.items()}
    counts = manifest.read_manifest(folder, filter_stage.NAME)["counts"]
    engines = {str(read_json(folder / evaluate.NAME / name / "cost.json")["engine"]) for name in planned.arms}
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
                "rows": [manifest.read_manifest(folder, f"{train.NAME}/{name}")["counts"]["rows"] for name in planned.groups[group]],
                "score": dataclasses.asdict(bootstrap_repeats(values)),
                "each": values.mean(1).tolist(),
            }
            for group, values in runs.items()
        },
        "curation": dataclasses.asdict(bootstrap_repeats(runs[CURATED], runs[RANDOM])),
        "curve": curve({share: runs[group] for group, share in planned.shares.items()}) if len(planned.shares) > 1 else None,
        "note": FAKE if any(engine.startswith("fake") for engine in engines) else None,
    }


def curve(runs: Mapping[float, NDArray[np.float64]]) -> dict[str, Any]:
    """How the score, (R, I) for each share of the data, grows with it: the least-squares slope of the sets' means over log2(share), so per
    doubling, and the difference between all and the largest share below."""
    shares = sorted(runs, reverse=True)
    doublings = np.log2(shares)
    offsets = doublings - doublings.mean()
    slope = bootstrap_sum([runs[share] for share in shares], (offsets / (offsets**2).sum()).tolist())
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
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    lines.insert(1, "-" * max(map(len, lines)))
    lines.append(
        f"({found['arm']}, {found['repeats']} training seeds each, as many steps in every set, {found['held_out']} held-out seeds)"
    )
    lines += said(found)
    return "\n".join([*lines, *([f"({found['note']})"] if found["note"] else [])])


def said(found: Mapping[str, Any]) -> list[str]:
    """What follows from the results, in words."""
    return [_curation(found), *([_more(found["curve"])] if found["curve"] else [])]


def write(planned: Plan) -> str:
    """Write results.json, and return what to print."""
    found = results(planned)
    path = planned.folder / "results.json"
    write_json(path, found)
    return f"{report(found)}\n{path}"


def _check(config: Config, name: str) -> None:
    arms, run_dir = config.train.arms, Path(config.run_dir)
    if name not in arms:
        raise PipelineError(f"ablate: there is no arm '{name}'; there are {', '.join(arms)}")
    arm = arms[name]
    where = f"ablate: arm {name}"
    if arm.text == "truth":
        raise PipelineError(f"{where}: learns from the ground truth, which no filter touches; name another with --arm")
    if arm.selection == "random":
        raise PipelineError(f"{where}: is itself drawn at random; name another with --arm")
    if config.train.rows == "score" and config.score.source != "kept":
        raise PipelineError(f"{where}: learns from score.source={config.score.source}, which filter did not choose; set train.rows=filter")
    if config.train.rows == "score" and arm.method == "kd":
        raise PipelineError(f"{where}: is kd, and score has logprobs of the kept samples alone; name an sft arm with --arm")
    for upstream in SHARED:
        fingerprint.outputs(run_dir, upstream, NAME)
    runner.done(filter_stage, config)


def _given(arm: Arm, seed: int) -> dict[str, Any]:
    return {**arm.model_dump(exclude_defaults=True), "seed": seed}


def _make(planned: Plan, left: Sequence[str], do: Do) -> None:
    arms = len(planned.arms)
    if left:
        print(f"ablate: {arms} students of {planned.method_of}, {arms - len(left)} of them done", flush=True)
    for remaining, name in zip(reversed(range(len(left))), left, strict=True):
        do(train.NAME, name)
        do(evaluate.NAME, name)
        shutil.rmtree(planned.folder / train.NAME / name / "checkpoints", ignore_errors=True)
        if remaining:
            time_left = clock(remaining * _seconds(planned))
            print(f"ablate: {name} done, {arms - remaining} of {arms}; about {time_left} left", flush=True)


def _set_aside(planned: Plan) -> None:
    folder = planned.folder
    for name in SHARED:
        (folder / name).unlink(missing_ok=True)
    runner.set_aside(contract.Job(planned.config.model_copy(update={"run_dir": str(folder.parent)}), NAME, "", folder))


def _link(folder: Path) -> None:
    """Let a run folder below the run have what the run has. Relative, so that a run can be moved."""
    for name in SHARED:
        link = folder / name
        if link.is_symlink():
            continue
        try:
            link.symlink_to(Path("..") / name)
        except OSError as error:
            raise PipelineError(
                f"{link}: cannot be made a symbolic link ({error.strerror}); use a run_dir on another file system"
            ) from None


def _is_done(planned: Plan, name: str) -> bool:
    return all(runner.done(module, planned.config, [name]) for module in (train, evaluate))


def _seconds(planned: Plan) -> float:
    """What an arm takes, on average of those that are done; all make as many steps."""
    seconds = [
        sum(manifest.read_manifest(planned.folder, f"{module.NAME}/{name}")["seconds"] for module in (train, evaluate))
        for name in planned.arms
        if (planned.folder / evaluate.NAME / name / "manifest.json").exists()
    ]
    return float(np.mean(seconds))


def _values(folder: Path, names: Sequence[str]) -> NDArray[np.float64]:
    """(R, I): the score of every held-out seed, sorted by its id, in each repeat."""
    answers = [{one.seed_id: one.score.value for one in read_records(folder / evaluate.NAME / name, Scored)} for name in names]
    assert all(answer.keys() == answers[0].keys() for answer in answers)
    return np.array([[answer[seed] for seed in sorted(answer)] for answer in answers], np.float64)


def _row(group: str, one: Mapping[str, Any]) -> tuple[str, ...]:
    name, percent = (CURATED, group.removeprefix(CURATED).replace("_", ".")) if group.startswith(CURATED) else (group, "")
    each = ", ".join(f"{mean:.3f}" for mean in one["each"])
    return (f"{name}, {percent} %" if percent else name, f"{round(np.mean(one['rows'])):,}", shown(one["score"]), each)


def _curation(found: Mapping[str, Any]) -> str:
    """What curation is worth, and how far the comparison can be trusted to show it."""
    gain, kept = Interval(**found["curation"]), found["kept"] / found["samples"]
    verdict = {
        1: "shown",
        0: "not shown, the interval holds 0",
        -1: "shown to do harm; see what filter took (RUN/filter/rejected)",
    }[_sign(gain)]
    near = ": the two sets are nearly the same, and the comparison can show little" if kept > NEARLY_ALL else ""
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
