"""Measures training against its bars and against TRL. Exits 1 on a miss.

    make bench-train                              # all rows
    .venv/bin/python -m benchmarks.train ROW …    # step memory error angle equal

Both sides of a ratio run in one process, in turns, and its spread is printed. See
benchmarks/README.md.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

from benchmarks import generate, loss, table
from benchmarks.table import Measurement, Row, last_line, median, run_python, spread

QUICKSTART = "configs/quickstart.yaml"
EQUAL = {  # what must not change a loss, and the tests that check it
    "packed against unpacked": "tests/training/test_train.py -k packed",
    "resumed against uninterrupted": "tests -k goes_on",
    "checkpointing, accumulation against neither": "tests/training/test_options.py -k saves_memory",
    "2 processes against 1": "tests/training/test_options.py -k two_processes",
}
INIT = """
from pipeline import config
from pipeline.execution import runner
from pipeline.stages import train
runner.execute(train, config.load({config!r}, ["run_dir={run_dir}"]), ["init"])
"""


def step(folder: Path) -> Iterator[Row]:
    """Compare time, memory and loading of a step on the quickstart's rows with TRL."""
    run_dir = _run(folder, "generate", "filter", "train/init")
    figures = json.loads(run_python("-m", "benchmarks.train_step", str(run_dir)))
    ratio = figures["kd / TRL sft"]
    what = "time of a kd step / TRL's fused SFT step"
    yield Row(what, "<= 1.05", spread(ratio, 2), median(ratio) <= 1.05)
    ratio = figures["TRL gkd / kd"]
    what = "time of a step of TRL's GKD, live teacher / kd step"
    yield Row(what, ">= 2", spread(ratio, 2), median(ratio) >= 2)
    kd, gkd = figures["GiB"]["kd"], figures["GiB"]["TRL gkd"]
    figure = f"{kd / gkd:.2f} ({kd:.2f} / {gkd:.2f} GiB)"
    yield Row("peak memory of kd / of TRL's GKD", "< 1", figure, kd < gkd)
    loading = figures["loading"]
    yield Row("data loading, share of a kd step", "< 0.05", spread(loading), median(loading) < 0.05)


def angle(folder: Path) -> Iterator[Row]:
    """Compare the gradient at the lm_head from stored frames with that of full distributions."""
    run_dir = _run(folder, "generate")
    code = generate.FIDELITY_CODE.format(run_dir=str(run_dir))
    yield from generate.angles(json.loads(last_line("-c", code)))


def equal(folder: Path) -> Iterator[Row]:
    """Run the tests that compare losses, which must agree to 1e-5."""
    for what, tests in EQUAL.items():
        output = run_python("-m", "pytest", "-o", "addopts=", "-q", *tests.split())
        yield Row(what, "1e-5", output.splitlines()[-1], " passed" in output)


def _run(folder: Path, *parts: str) -> Path:
    """Run the quickstart up to these parts, and return its run folder."""
    run_dir = folder / "quickstart"
    for part in parts:
        if (run_dir / part / "manifest.json").exists():
            continue
        if part == "train/init":
            run_python("-c", INIT.format(config=QUICKSTART, run_dir=run_dir))
        else:
            run_python("-m", "pipeline", part, QUICKSTART, f"run_dir={run_dir}")
    return run_dir


MEASUREMENTS: dict[str, Measurement] = {
    "step": step,
    "memory": loss.memory,
    "error": loss.error,
    "angle": angle,
    "equal": equal,
}


if __name__ == "__main__":
    sys.exit(table.main(MEASUREMENTS, sys.argv[1:]))
