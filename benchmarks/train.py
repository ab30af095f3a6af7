"""Does training keep its bars? Prints a table of bar and figure, and exits 1 on a miss.

    make bench-train                                   # all rows
    .venv/bin/python -m benchmarks.train ROW …         # only some of: step memory error angle equal

Both sides of a ratio run in one process, in turns; its spread is printed. See benchmarks/README.md.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

from benchmarks import loss, table
from benchmarks.table import Measurement, Row, median, run_python, spread

QUICKSTART = "configs/quickstart.yaml"
EQUAL = {  # what must not change a loss, and the tests that say so
    "packed against unpacked": "tests/training/test_train.py -k packed",
    "resumed against uninterrupted": "tests -k goes_on",
    "checkpointing, accumulation against neither": "tests/training/test_options.py -k saves_memory",
    "2 processes against 1": "tests/training/test_options.py -k two_processes",
}


def step(folder: Path) -> Iterator[Row]:
    """Time, memory and loading of a step on the quickstart's rows, against TRL."""
    found = json.loads(
        run_python(
            "-m", "benchmarks.train_step", str(_run(folder, "generate", "filter", "train/init"))
        )
    )
    ratio = found["kd / TRL sft"]
    yield Row(
        "time of a kd step / TRL's fused SFT step",
        "<= 1.05",
        spread(ratio, 2),
        median(ratio) <= 1.05,
    )
    ratio = found["TRL gkd / kd"]
    yield Row(
        "time of a step of TRL's GKD, live teacher / kd step",
        ">= 2",
        spread(ratio, 2),
        median(ratio) >= 2,
    )
    kd, gkd = found["GiB"]["kd"], found["GiB"]["TRL gkd"]
    yield Row(
        "peak memory of kd / of TRL's GKD",
        "< 1",
        f"{kd / gkd:.2f} ({kd:.2f} / {gkd:.2f} GiB)",
        kd < gkd,
    )
    loading = found["loading"]
    yield Row("data loading, share of a kd step", "< 0.05", spread(loading), median(loading) < 0.05)


def angle(folder: Path) -> Iterator[Row]:
    """The gradient from stored frames against that of the whole distributions, at the lm_head."""
    run_dir = _run(folder, "generate")
    code = f"import json; from benchmarks import fidelity as f; print(json.dumps(vars(f.measure({str(run_dir)!r}))))"
    found = json.loads(run_python("-c", code).splitlines()[-1])
    for student in ("untrained", "half_trained"):
        degrees, positions = found[student], found["positions"]
        what = f"angle to the whole gradient, {student.replace('_', '-')} student"
        yield Row(
            what,
            "<= 4°",
            f"{degrees:.2f}° over {positions:,} positions",
            degrees <= 4.0 and positions >= 8000,
        )


def equal(folder: Path) -> Iterator[Row]:
    """Losses that must agree to 1e-5, by the tests that compare them."""
    for what, tests in EQUAL.items():
        output = run_python("-m", "pytest", "-o", "addopts=", "-q", *tests.split())
        yield Row(what, "1e-5", output.splitlines()[-1], " passed" in output)


def _run(folder: Path, *parts: str) -> Path:
    """The quickstart's run up to these parts."""
    run_dir = folder / "quickstart"
    for part in parts:
        if not (run_dir / part / "manifest.json").exists():
            stage, _, name = part.partition("/")
            command = ["-m", "pipeline", stage, QUICKSTART, f"run_dir={run_dir}"]
            run_python(*command) if name != "init" else run_python(
                "-c", _INIT.format(config=QUICKSTART, run_dir=run_dir)
            )
    return run_dir


_INIT = """
from pipeline import config
from pipeline.execution import runner
from pipeline.stages import train
runner.execute(train, config.load({config!r}, ["run_dir={run_dir}"]), ["init"])
"""

MEASUREMENTS: dict[str, Measurement] = {
    "step": step,
    "memory": loss.memory,
    "error": loss.error,
    "angle": angle,
    "equal": equal,
}


if __name__ == "__main__":
    sys.exit(table.main(MEASUREMENTS, sys.argv[1:]))
