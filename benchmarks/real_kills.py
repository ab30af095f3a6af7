"""SIGKILL of `pipeline generate` and its engine, at random moments, on real vLLM: is every acknowledged sample there in the end, once?

    .venv/bin/python benchmarks/real_kills.py [KILLS] [KEY=VALUE …]

Runs configs/quickstart.yaml (with the overrides) in a folder of its own. A life ends when a random number of further samples is
acknowledged, or a random time after the start, so that kills fall into loading too. Ends with pipeline verify.
"""

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.faults import _acknowledged

CONFIG = "configs/quickstart.yaml"


def main(kills: int, overrides: list[str]) -> None:
    dice = random.Random(7)
    run_dir = Path(tempfile.mkdtemp(prefix="real_kills.")) / "run"
    folder = run_dir / "generate"
    command = [sys.executable, "-m", "pipeline", "generate", CONFIG, f"run_dir={run_dir}", *overrides]
    known: dict[str, str] = {}
    for number in range(kills):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
        wanted = len(known) + dice.randrange(1, 120)
        give_up = time.monotonic() + dice.uniform(5, 180)
        while process.poll() is None and len(_acknowledged(folder)) < wanted and time.monotonic() < give_up:
            time.sleep(0.05)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        now = _acknowledged(folder)
        lost = [identifier for identifier, text in known.items() if now.get(identifier) != text]
        assert not lost, f"after kill {number + 1}: acknowledged samples are gone or changed: {lost}"
        known = now
        print(f"kill {number + 1}: {len(known):,} samples are there, none lost", flush=True)
    subprocess.run(command, check=True)
    assert all(_acknowledged(folder)[identifier] == text for identifier, text in known.items())
    subprocess.run([sys.executable, "-m", "pipeline", "verify", str(run_dir)], check=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5, sys.argv[2:])
