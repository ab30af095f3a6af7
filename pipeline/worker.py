"""One of several processes that train an arm: python -m pipeline.worker FOLDER. Started by pipeline.launch only."""

import sys
from pathlib import Path
from typing import Any

from pipeline import launch
from pipeline.config import Config
from pipeline.execution.contract import Job
from pipeline.stages import train


def work(job: dict[str, Any]) -> dict[str, Any]:
    return train.learn(Job(Config.model_validate(job["config"]), train.NAME, job["part"], Path(job["folder"])))


if __name__ == "__main__":
    sys.exit(launch.serve(Path(sys.argv[1]), work))
