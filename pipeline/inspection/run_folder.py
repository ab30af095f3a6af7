"""Read which parts of a run were started and finished, with what settings and counts."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.inspection import status
from pipeline.storage.files import read_json, read_object

Tree = Mapping[str, Any]
STAGES = ("generate", "filter", "score", "train", "evaluate")


@dataclass(frozen=True)
class Run:
    """A run folder: begun.json and manifest.json of its parts, by "stage" or "stage/part"."""

    folder: Path
    begun: dict[str, Tree]
    done: dict[str, Tree]

    @property
    def config(self) -> Tree:
        """Config of the part that was started last."""
        return max(self.begun.values(), key=lambda part: str(part["begun"]))["config"]

    @property
    def arms(self) -> list[str]:
        """Arms of the config, then arms that were trained with an earlier config."""
        trained = [name.partition("/")[2] for name in self.begun if name.startswith("train/")]
        names = dict.fromkeys([*self.config["train"]["arms"], *trained])
        return [name for name in names if name != "init"]

    @property
    def wanted(self) -> list[str]:
        """All parts that this run has once it is finished."""
        arms = self.config["train"]["arms"]
        score = ["score"] if self.config["train"]["rows"] == "score" else []
        trained = [f"train/{arm}" for arm in ("init", *arms)]
        evaluated = [f"evaluate/{model}" for model in ("teacher", "base", *arms)]
        return ["generate", "filter", *score, *trained, *evaluated]

    def counts(self, part: str) -> Tree:
        """Return the counts of a part; empty if it is not finished."""
        return self.done[part]["counts"] if part in self.done else {}


def read(folder: Path) -> Run:
    """Read a run folder. Raises PipelineError if no stage was started in it."""
    begun: dict[str, Tree] = {}
    done: dict[str, Tree] = {}
    for stage in STAGES:
        for path in sorted((folder / stage).glob("**/begun.json")):
            part = str(path.parent.relative_to(folder))
            begun[part] = read_object(path, "begun", "config")
            if path.with_name("manifest.json").exists():
                done[part] = read_object(path.with_name("manifest.json"), "counts")
    if not begun:
        raise status.not_a_run(folder)
    by_time = sorted(begun.items(), key=lambda item: str(item[1]["begun"]))
    return Run(folder, dict(by_time), done)


def history(folder: Path) -> list[dict[str, Any]]:
    """Return an arm's training log; during training, the log up to the last checkpoint."""
    path = folder / "history.jsonl"
    if path.exists():
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    states = sorted(
        folder.glob("checkpoints/checkpoint-*/trainer_state.json"),
        key=lambda state: int(state.parent.name.rpartition("-")[2]),
    )
    return list(read_json(states[-1])["log_history"]) if states else []
