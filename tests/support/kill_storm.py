"""Kill `generate` at random moments, many times.

    python -m tests.support.kill_storm CONFIG KILLS SEED

Each child is a fork of this process, which has everything imported, so that a life is short. After
every kill, the samples that were acknowledged before (whole lines on disk) must still be there,
unchanged. A run that reaches its end must equal, byte for byte, one that was never killed. Prints
counts as JSON; fails on the first difference.
"""

import gzip
import json
import os
import random
import signal
import sys
import time
from pathlib import Path

from pipeline.config import Config, load
from pipeline.execution import contract
from pipeline.stages import generate
from tests.support.processes import tree


def main(config_path: str, kills: int, seed: int) -> None:
    """Kill runs until `kills` lives have ended early. `seed` is that of the random moments."""
    generator = random.Random(seed)
    base = load(config_path)
    generate.run(contract.Job(base, "generate", "", _folder(base, "whole")))
    expected = tree(_folder(base, "whole"))
    began = time.perf_counter()
    assert _live(base, _folder(base, "timed"), 60.0)
    lifetime = time.perf_counter() - began
    done = {"kills": 0, "runs": 0, "acknowledged": 0, "lifetime_s": round(lifetime, 3)}
    while done["kills"] < kills:
        folder = _folder(base, f"run-{done['runs']}")
        acknowledged: dict[str, str] = {}
        while not _live(base, folder, generator.uniform(0, lifetime)):
            done["kills"] += 1
            stored = _acknowledged(folder)
            lost = [name for name, text in acknowledged.items() if stored.get(name) != text]
            assert not lost, (
                f"after kill {done['kills']}: acknowledged samples are lost or changed: {lost}"
            )
            acknowledged = stored
        done["runs"] += 1
        done["acknowledged"] += len(acknowledged)
        assert tree(folder) == expected, f"{folder} differs from a run that was never killed"
    print(json.dumps(done))


def _folder(config: Config, name: str) -> Path:
    folder = Path(config.run_dir) / name
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _live(config: Config, folder: Path, seconds: float) -> bool:
    """Run one generate process for `seconds` at most; tell whether it finished before."""
    pid = os.fork()
    if pid == 0:
        silence = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silence, 1)
        os.dup2(silence, 2)
        try:
            generate.run(contract.Job(config, "generate", "", folder))
            os._exit(0)
        finally:
            os._exit(1)
    end = time.perf_counter() + seconds
    over, status = 0, 0
    while not over and time.perf_counter() < end:
        time.sleep(0.001)
        over, status = os.waitpid(pid, os.WNOHANG)
    if not over:
        os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
    assert not os.WIFEXITED(status) or os.WEXITSTATUS(status) == 0, (
        f"a life in {folder} failed by itself"
    )
    return os.WIFEXITED(status)


def _acknowledged(folder: Path) -> dict[str, str]:
    """Return id and text of every sample on a whole line, sealed or not.

    Ids must be unique in a file.
    """
    found: dict[str, str] = {}
    for path in sorted([*folder.glob("0*.jsonl"), *folder.glob("0*.jsonl.gz")]):
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        lines = [json.loads(line) for line in data.split(b"\n")[:-1]]
        assert len({line["id"] for line in lines}) == len(lines), f"{path}: a sample is there twice"
        found.update({line["id"]: line["text"] for line in lines})
    return found


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
