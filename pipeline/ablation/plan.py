"""Plan an ablation: which arms to train, on which share of the rows, with which seeds."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.config import Arm, Config, load
from pipeline.errors import PipelineError
from pipeline.execution import fingerprint, runner
from pipeline.stages import filter as filter_stage

NAME = "ablate"
CURATED, RANDOM = "curated", "random"
SHARED = ("generate", "filter")


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


def plan(
    path: Path, overrides: Sequence[str], arm: str | None, repeats: int, shares: Sequence[float]
) -> Plan:
    """What `pipeline ablate` would do. Raises PipelineError if the arm (None: the first of the config) cannot be ablated, or filter is not
    finished or was run with other settings."""
    config = load(path, overrides)
    name = arm or next(iter(config.train.arms))
    _check(config, name)
    base = config.train.arms[name]
    sets = {CURATED: base, RANDOM: base.model_copy(update={"selection": "random"})}
    sizes = {
        CURATED: 1.0,
        **{
            f"{CURATED}{100 * share:g}".replace(".", "_"): share
            for share in sorted(set(shares), reverse=True)
        },
    }
    epochs = base.epochs or config.train.epochs
    sets |= {
        group: base.model_copy(update={"share": base.share * share, "epochs": epochs / share})
        for group, share in sizes.items()
        if share < 1
    }
    arms = {
        f"{group}-{seed}": _given(settings, seed)
        for seed in range(repeats)
        for group, settings in sets.items()
    }
    added = [
        f"run_dir={Path(config.run_dir) / NAME}",
        "train.rows=filter",
        "evaluate.load=null",
        f"train.arms={json.dumps(arms)}",
    ]
    groups = {group: [f"{group}-{seed}" for seed in range(repeats)] for group in sets}
    return Plan(load(path, [*overrides, *added]), [*overrides, *added], name, groups, sizes)


def _check(config: Config, name: str) -> None:
    arms, run_dir = config.train.arms, Path(config.run_dir)
    if name not in arms:
        raise PipelineError(f"ablate: there is no arm '{name}'; there are {', '.join(arms)}")
    arm = arms[name]
    where = f"ablate: arm {name}"
    if arm.text == "truth":
        raise PipelineError(
            f"{where}: learns from the ground truth, which no filter touches; name another with --arm"
        )
    if arm.selection == "random":
        raise PipelineError(f"{where}: is itself drawn at random; name another with --arm")
    if config.train.rows == "score" and config.score.source != "kept":
        raise PipelineError(
            f"{where}: learns from score.source={config.score.source}, which filter did not choose; set train.rows=filter"
        )
    if config.train.rows == "score" and arm.method == "kd":
        raise PipelineError(
            f"{where}: is kd, and score has logprobs of the kept samples alone; name an sft arm with --arm"
        )
    for upstream in SHARED:
        fingerprint.outputs(run_dir, upstream, NAME)
    runner.is_done(filter_stage, config)


def _given(arm: Arm, seed: int) -> dict[str, Any]:
    return {**arm.model_dump(exclude_defaults=True), "seed": seed}
