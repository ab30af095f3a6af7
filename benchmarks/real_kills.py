"""SIGKILL of `pipeline generate` and its engine, at random moments, on real vLLM: is every acknowledged sample there in the end, once?

    .venv/bin/python -m benchmarks.real_kills [KILLS] [KEY=VALUE …]

Runs configs/quickstart.yaml (with the overrides) in a folder of its own. A life ends when a random number of further samples is
acknowledged, or a random time after the start (LONGEST seconds at most, from the environment), so that kills fall into loading too. Ends
with the run to its end and pipeline verify, which also finds what is there twice.
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
SHORTEST, LONGEST = 5.0, float(os.environ.get("LONGEST", "180"))
MOST = 120  # further samples a life


def main(kills: int, overrides: list[str]) -> None:
    dice = random.Random(7)
    run_dir = Path(tempfile.mkdtemp(prefix="real_kills.")) / "run"
    folder = run_dir / "generate"
    command = [
        sys.executable,
        "-m",
        "pipeline",
        "generate",
        CONFIG,
        f"run_dir={run_dir}",
        *overrides,
    ]
    known: dict[str, str] = {}
    for number in range(1, kills + 1):
        seconds = live(
            command, folder, len(known) + dice.randrange(1, MOST), dice.uniform(SHORTEST, LONGEST)
        )
        now = _acknowledged(folder)
        lost = [identifier for identifier, text in known.items() if now.get(identifier) != text]
        assert not lost, f"after kill {number}: acknowledged samples are gone or changed: {lost}"
        print(
            f"kill {number} after {seconds:.0f} s: {len(now):,} samples are there, {len(now) - len(known):,} of them new",
            flush=True,
        )
        known = now
    subprocess.run(command, check=True)
    whole = _acknowledged(folder)
    assert all(whole[identifier] == text for identifier, text in known.items())
    subprocess.run([sys.executable, "-m", "pipeline", "verify", str(run_dir)], check=True)
    print(
        f"{kills} kills: 0 of {len(known):,} acknowledged samples lost or changed, {len(whole):,} in the end; see {run_dir}"
    )


def live(command: list[str], folder: Path, wanted: int, most: float) -> float:
    """One life, until `wanted` samples are there or `most` seconds are over. Returns how long it was."""
    began = time.monotonic()
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    while process.poll() is None and there(folder) < wanted and time.monotonic() - began < most:
        time.sleep(0.05)
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    code = process.wait()
    assert code in (0, -signal.SIGKILL), (
        f"a life ended by itself with exit code {code}; see {folder / 'engine.log'}"
    )
    return time.monotonic() - began


def there(folder: Path) -> int:
    """How many samples are acknowledged, of a run that may seal its shards meanwhile."""
    try:
        return len(_acknowledged(folder))
    except FileNotFoundError:
        return 0


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5, sys.argv[2:])
