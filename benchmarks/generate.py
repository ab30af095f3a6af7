"""Measures the generate stage against its bars: speed, storage, scale and kills. Exits 1 on a miss.

    make bench-generate                              # all rows; about 40 minutes on 2 cores
    .venv/bin/python -m benchmarks.generate ROW …    # throughput storage million kills

Speed is compared with raw vLLM, storage with the full distributions. Both sides of a ratio run in
one process, in turns, and its spread is printed. See benchmarks/README.md.
"""

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import yaml

from benchmarks import million, table
from benchmarks.table import Measurement, Row, last_line, median, run_python, spread

SAMPLES = int(os.environ.get("SAMPLES", "1000000"))
FINISHED = 1_000_000
KILLS = int(os.environ.get("KILLS", "300"))
QUICKSTART = "configs/quickstart.yaml"
FREE_TEXT = """---
format: chat
rationale: {start: '', end: '.'}
---
Explain in a few sentences what this text message is about.

{{ text }}"""

# An engine can abort the interpreter while it exits, when all is measured.
SPEED_CODE = (
    "import json, os; from benchmarks import generate_speed; "
    "print(json.dumps(generate_speed.main([0, 20])), flush=True); os._exit(0)"
)
FIDELITY_CODE = (
    "import json; from benchmarks import fidelity; "
    "print(json.dumps(vars(fidelity.measure({run_dir!r}))))"
)
CORES_CODE = (
    "from pathlib import Path; from benchmarks import million; "
    "print(million.cores(Path({folder!r})))"
)
MEMORY_CODE = (
    "from pathlib import Path; from benchmarks import million; "
    "print(*million.memory(Path({folder!r}), {samples}))"
)


def throughput(folder: Path) -> Iterator[Row]:
    """Compare with raw LLM.generate, in a process of its own, since it holds an engine."""
    ratios = json.loads(last_line("-c", SPEED_CODE))
    for k, bar in (("0", 0.97), ("20", 0.95)):
        what = f"output tokens/s against raw LLM.generate, k = {k}"
        yield Row(what, f">= {bar}", spread(ratios[k]), median(ratios[k]) >= bar)


def storage(folder: Path) -> Iterator[Row]:
    """Measure the stored logprobs of real teacher runs, and the gradients that they give."""
    prompt = folder / "free.md"
    prompt.write_text(FREE_TEXT)
    free_text = [
        f"generate.prompt={prompt}",
        "teacher.logprobs=1024",
        "teacher.temperature=1.0",
        "teacher.max_tokens=160",
        "task.seeds.limit=140",
    ]
    for name, bar, options in (("quickstart", 20, []), ("free text", 36, free_text)):
        run_dir = folder / name.replace(" ", "-")
        run_python("-m", "pipeline", "generate", QUICKSTART, f"run_dir={run_dir}", *options)
        fidelity = json.loads(last_line("-c", FIDELITY_CODE.format(run_dir=str(run_dir))))
        size = fidelity["bytes_a_token"]
        figure = f"{size:.1f} ({fidelity['entries_a_token']:.1f} entries)"
        what = f"{name}: bytes a completion token, all files"
        yield Row(what, f"<= {bar}", figure, size <= bar)
        yield from angles(fidelity, f"{name}: ")


def angles(fidelity: dict[str, float], prefix: str = "") -> Iterator[Row]:
    """Yield a row for the angle of each student; see benchmarks/fidelity.py."""
    positions = fidelity["positions"]
    for student in ("untrained", "half_trained"):
        angle = fidelity[student]
        what = f"{prefix}angle to the full gradient, {student.replace('_', '-')} student"
        figure = f"{angle:.2f}° over {positions:,} positions"
        yield Row(what, "<= 4°", figure, angle <= 4.0 and positions >= 8000)


def at_scale(folder: Path) -> Iterator[Row]:
    """Generate a million samples with an engine that hands out ready-made completions."""
    cores = float(last_line("-c", CORES_CODE.format(folder=str(folder / "cores"))))
    what = "client's cores at 10,000 tokens/s with top-20"
    yield Row(what, "<= 0.5", f"{cores:.2f}", cores <= 0.5)
    code = MEMORY_CODE.format(folder=str(folder / "million"), samples=SAMPLES)
    peak, growth = map(float, last_line("-c", code).split())
    what = f"driver's memory over {SAMPLES:,} samples x top-20"
    figure = f"{peak:.2f} GiB, {growth:+.0f} MiB from a quarter on"
    yield Row(what, "<= 1 GB", figure, peak <= 1e9 / 2**30 and growth < 64)
    config = million.prepare(folder / "resume", FINISHED, 12)
    million.finish(config)
    times = million.resume(config)
    what = f"resume of {FINISHED:,} finished samples, to the first request"
    yield Row(what, "<= 2 s", f"{spread(times, 2)} s", median(times) <= 2.0)


def kills(folder: Path) -> Iterator[Row]:
    """Run tests/support/kill_storm.py, which fails on the first broken promise."""
    config = yaml.safe_load(Path("configs/tiny.yaml").read_text())
    config["run_dir"] = str(folder / "storm")
    config["generate"] |= {"samples": 3, "shard_size": 8}
    path = folder / "storm.yaml"
    path.write_text(yaml.safe_dump(config))
    counts = json.loads(last_line("-m", "tests.support.kill_storm", str(path), str(KILLS), "7"))
    figure = (
        f"0 lost, doubled or garbled of {counts['acknowledged']:,} acknowledged, "
        f"{counts['runs']} runs"
    )
    yield Row(f"{counts['kills']} random SIGKILLs", "0 broken", figure, counts["kills"] >= KILLS)


MEASUREMENTS: dict[str, Measurement] = {
    "throughput": throughput,
    "storage": storage,
    "million": at_scale,
    "kills": kills,
}


if __name__ == "__main__":
    sys.exit(table.main(MEASUREMENTS, sys.argv[1:]))
