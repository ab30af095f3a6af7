"""The processes that test_options starts: python -m tests.support.training_worker FOLDER."""

import os
import sys
import time
from pathlib import Path
from typing import Any

from pipeline.errors import PipelineError
from pipeline.training import distributed


def work(job: dict[str, Any]) -> Any:
    import torch

    if job["do"] == "hang":
        Path(job["pids"], str(os.getpid())).touch()
        time.sleep(600)
    if job["do"] == "refuse":
        raise PipelineError(f"worker {distributed.rank()}: refuses")
    if job["do"] == "die" and distributed.rank() == 1:
        os._exit(9)
    total = torch.tensor(distributed.rank() + 1)
    torch.distributed.all_reduce(total)
    return int(total)


if __name__ == "__main__":
    sys.exit(distributed.serve(Path(sys.argv[1]), work))
