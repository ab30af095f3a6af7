"""Checks that no SIGKILL of `pipeline generate` on real vLLM loses or doubles a sample.

    .venv/bin/python -m benchmarks.real_kills [KILLS] [KEY=VALUE …]

It runs configs/quickstart.yaml with the overrides in a folder of its own, and kills the driver and
its engine at random moments: after a random number of new acknowledged samples, or a random time
after the start (at most LONGEST seconds, from the environment), so that loading is hit too. Then it
finishes the run and calls pipeline verify, which also finds doubled samples.
"""

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.support.kill_storm import _acknowledged

CONFIG = "configs/quickstart.yaml"
SHORTEST = 5.0
LONGEST = float(os.environ.get("LONGEST", "180"))
MOST = 120  # new samples before a kill


def main(kills: int, overrides: list[str]) -> None:
    """Kill the run `kills` times, finish it, and verify it."""
    draw = random.Random(7)
    run_dir = Path(tempfile.mkdtemp(prefix="real_kills.")) / "run"
    folder = run_dir / "generate"
    pipeline = [sys.executable, "-m", "pipeline"]
    command = [*pipeline, "generate", CONFIG, f"run_dir={run_dir}", *overrides]
    known: dict[str, str] = {}
    for number in range(1, kills + 1):
        wanted = len(known) + draw.randrange(1, MOST)
        seconds = run_and_kill(command, folder, wanted, draw.uniform(SHORTEST, LONGEST))
        now = _acknowledged(folder)
        lost = [identifier for identifier, text in known.items() if now.get(identifier) != text]
        assert not lost, f"after kill {number}: acknowledged samples are lost or changed: {lost}"
        print(
            f"kill {number} after {seconds:.0f} s: {len(now):,} samples, "
            f"{len(now) - len(known):,} of them new",
            flush=True,
        )
        known = now
    subprocess.run(command, check=True)
    finished = _acknowledged(folder)
    assert all(finished[identifier] == text for identifier, text in known.items())
    subprocess.run([*pipeline, "verify", str(run_dir)], check=True)
    print(
        f"{kills} kills: 0 of {len(known):,} acknowledged samples lost or changed, "
        f"{len(finished):,} in the end; see {run_dir}"
    )


def run_and_kill(command: list[str], folder: Path, wanted: int, timeout_s: float) -> float:
    """Run until `wanted` samples are acknowledged or the time is over. Returns the seconds."""
    started = time.monotonic()
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    while process.poll() is None and time.monotonic() - started < timeout_s:
        if count_acknowledged(folder) >= wanted:
            break
        time.sleep(0.05)
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    code = process.wait()
    assert code in (0, -signal.SIGKILL), (
        f"the run ended by itself with exit code {code}; see {folder / 'engine.log'}"
    )
    return time.monotonic() - started


def count_acknowledged(folder: Path) -> int:
    """Return the number of acknowledged samples of a run that may seal shards meanwhile."""
    try:
        return len(_acknowledged(folder))
    except FileNotFoundError:
        return 0


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5, sys.argv[2:])
