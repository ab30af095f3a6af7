"""One of several processes that train an arm, started by pipeline/training/distributed.py alone.

Command: python -m pipeline.training.worker FOLDER
"""

import sys
from pathlib import Path
from typing import Any

from pipeline.config import Config
from pipeline.execution import console
from pipeline.execution.contract import Job
from pipeline.training import distributed, fit


def work(job: dict[str, Any]) -> dict[str, Any]:
    """Train the arm of a job; returns the counts of its manifest."""
    return fit.train_arm(
        Job(Config.model_validate(job["config"]), "train", job["part"], Path(job["folder"]))
    )


if __name__ == "__main__":
    console.configure()
    sys.exit(distributed.serve(Path(sys.argv[1]), work))
