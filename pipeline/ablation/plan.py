"""Plan an ablation: which arms to train, on which share of the rows, with which seeds."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.config import Arm, Config, load
from pipeline.errors import PipelineError
from pipeline.execution import fingerprint, runner
from pipeline.execution.manifest import read_manifest
from pipeline.stages import filter as filter_stage
from pipeline.training.schedule import WIDTH, schedule

NAME = "ablate"
CURATED, RANDOM = "curated", "random"
SHARED = ("generate", "filter")


@dataclass(frozen=True)
class Plan:
    """The arms to train.

    `config` is the config of RUN/ablate: the run's own config changed by `overrides`. All arms copy
    the settings of the arm `method_of`. `groups` has the arms of each training set, one per repeat.
    `shares` says which share of the kept samples each curated set has.
    """

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
        """All arms, ordered by repeat, so that each finished repeat allows a comparison."""
        return [name for names in zip(*self.groups.values(), strict=True) for name in names]


def plan(
    path: Path, overrides: Sequence[str], arm: str | None, repeats: int, shares: Sequence[float]
) -> Plan:
    """Return the plan of an ablation of one arm; None means the first arm of the config.

    Raises PipelineError if that arm cannot be ablated, or if filter is unfinished or was run with
    other settings.
    """
    config = load(path, overrides)
    name = arm or next(iter(config.train.arms))
    _check(config, name)
    base = config.train.arms[name]
    epochs = base.epochs or config.train.epochs or _epochs(config, base)
    sets = {CURATED: base, RANDOM: base.model_copy(update={"selection": "random"})}
    sizes = {CURATED: 1.0}
    for share in sorted(set(shares), reverse=True):
        group = f"{CURATED}{100 * share:g}".replace(".", "_")
        sizes[group] = share
        # fewer samples, more epochs: the same number of steps
        smaller = {"share": base.share * share, "epochs": epochs / share}
        sets[group] = base.model_copy(update=smaller)
    groups = {group: [f"{group}-{seed}" for seed in range(repeats)] for group in sets}
    arms: dict[str, dict[str, Any]] = {}
    for seed in range(repeats):
        for group, settings in sets.items():
            arms[f"{group}-{seed}"] = _with_seed(settings, seed)
    added = [
        f"run_dir={Path(config.run_dir) / NAME}",
        "train.rows=filter",
        "evaluate.load=null",
        "evaluate.gate=null",  # it names arms of the run
        f"train.arms={json.dumps(arms)}",
    ]
    return Plan(load(path, [*overrides, *added]), [*overrides, *added], name, groups, sizes)


def _check(config: Config, name: str) -> None:
    """Raise PipelineError if an ablation cannot measure the effect of filter on this arm."""
    arms, run_dir = config.train.arms, Path(config.run_dir)
    if name not in arms:
        raise PipelineError(f"ablate: there is no arm '{name}'; there are {', '.join(arms)}")
    arm = arms[name]
    reason = None
    if arm.text == "truth":
        reason = "learns from the ground truth, which no filter touches; choose another with --arm"
    elif arm.selection == "random":
        reason = "is itself drawn at random; choose another with --arm"
    elif config.train.rows == "score" and config.score.source != "kept":
        reason = (
            f"learns from score.source={config.score.source}, which filter did not choose; "
            "set train.rows=filter"
        )
    elif config.train.rows == "score" and arm.method == "kd":
        reason = (
            "is kd, and score has logprobs of the kept samples alone; choose an sft arm with --arm"
        )
    if reason:
        raise PipelineError(f"ablate: arm {name}: {reason}")
    for upstream in SHARED:
        fingerprint.outputs(run_dir, upstream, NAME)
    runner.is_done(filter_stage, config)


def _epochs(config: Config, arm: Arm) -> float:
    """Return the epochs that the arm would have by itself on its kept samples."""
    kept = read_manifest(Path(config.run_dir), filter_stage.NAME)["counts"]["kept"]
    rows = round(arm.share * min(kept, arm.limit or kept))
    return schedule(config.train, arm, rows, WIDTH, adapters=False).epochs


def _with_seed(arm: Arm, seed: int) -> dict[str, Any]:
    return {**arm.model_dump(exclude_defaults=True), "seed": seed}
