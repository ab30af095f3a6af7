"""Measures the filter stage at scale, on made-up samples of 1.3 kB.

    .venv/bin/python -m benchmarks.filter_scale [SAMPLES] [KEY=VALUE …]

Prints the time of a first run and of one with another threshold, the peak memory of all processes
together, and how many rows are kept. KEY=VALUE overrides the config.
"""

import gzip
import json
import random
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from itertools import product
from pathlib import Path

import psutil
import yaml

from pipeline.execution.manifest import read_manifest
from pipeline.execution.runner import execute
from pipeline.records import Sample, Seed, Usage
from pipeline.storage.files import write_json

SHARD = 10_000
SENTENCES = 500  # different ones
PROMPT = "---\nformat: completion\n---\n{{ question }}\n"


def make(folder: Path, samples: int) -> Path:
    """Make a finished generate stage of different replies, and return the path of its config."""
    generate = folder / "run" / "generate"
    (generate / "prompts").mkdir(parents=True)
    (generate / "prompts" / "0.md").write_text(PROMPT)
    (folder / "prompt.md").write_text(PROMPT)
    line = {"question": "what is kept back?", "target": "nothing at all", "id": "held-out"}
    (folder / "seeds.jsonl").write_text(json.dumps(line | {"id": "s"}) + "\n")
    (folder / "eval.jsonl").write_text(json.dumps(line) + "\n")
    sentences = _sentences()
    files = {}
    for number, first in enumerate(range(0, samples, SHARD)):
        numbers = range(first, min(first + SHARD, samples))
        path = generate / f"{number:05d}.jsonl.gz"
        lines = b"".join(_sample(row, sentences).to_line() for row in numbers)
        path.write_bytes(gzip.compress(lines, compresslevel=1, mtime=0))
        files[path.name] = {
            "sha256": f"{number:064x}",
            "nbytes": path.stat().st_size,
            "records": len(numbers),
        }
    write_json(generate / "manifest.json", {"counts": {"samples": samples}, "files": files})
    tree = yaml.safe_load(Path("configs/tiny.yaml").read_text())
    tree["run_dir"] = str(folder / "run")
    tree["filter"] = {}
    tree["task"] = {
        "seeds": str(folder / "seeds.jsonl"),
        "eval_seeds": str(folder / "eval.jsonl"),
        "metric": "exact",
    }
    tree["generate"]["prompt"] = tree["train"]["prompt"] = str(folder / "prompt.md")
    (folder / "config.yaml").write_text(yaml.safe_dump(tree))
    return folder / "config.yaml"


def measure(config: Path, overrides: Sequence[str]) -> tuple[float, float, int]:
    """Run the filter stage. Returns seconds, peak GiB of all processes, and kept rows.

    Stored measures are used.
    """
    from pipeline.config import load
    from pipeline.execution.runner import archive
    from pipeline.stages import filter as stage

    peak = 0
    done = threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.2):
            peak = max(peak, _resident())

    thread = threading.Thread(target=watch)
    thread.start()
    settings = load(config, overrides)
    started = time.perf_counter()
    try:
        execute(stage, settings, prepare=archive)
        seconds = time.perf_counter() - started
    finally:
        done.set()
        thread.join()
    return seconds, peak / 2**30, read_manifest(Path(settings.run_dir), "filter")["counts"]["kept"]


def _resident() -> int:
    """Return the memory of this process and its children in bytes; shared memory counts once."""
    total = 0
    for process in [psutil.Process(), *psutil.Process().children(recursive=True)]:
        try:
            total += process.memory_full_info().pss
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return total


def _sentences() -> list[str]:
    draw = random.Random(0)
    ends = ("a", "e", "i", "o", "u", "an", "er", "in")
    syllables = [first + end for first, end in product("bdfgklmnprstv", ends)]
    words = ["".join(draw.choices(syllables, k=draw.randint(1, 4))) for _ in range(20_000)]
    return [" ".join(draw.choices(words, k=14)).capitalize() + "." for _ in range(SENTENCES)]


def _sample(row: int, sentences: list[str]) -> Sample:
    """Return a sample with sentences in an order of its own."""
    draw = random.Random(row)
    text = " ".join(draw.sample(sentences, 6)) + f" So it is {row}."
    return Sample(
        id=f"seed-{row}/0",
        seed=Seed(id=f"seed-{row}", inputs={"question": f"what is number {row}?"}, target=None),
        index=0,
        teacher="made-up",
        prompt_digest="0" * 16,
        text=text,
        answer=text,
        finish_reason="stop",
        usage=Usage(prompt_tokens=9, completion_tokens=len(text) // 4),
    )


def main(samples: int, overrides: Sequence[str]) -> dict[str, float]:
    """Return the seconds of both runs, the peak memory, and the number of kept rows."""
    folder = Path(tempfile.mkdtemp(prefix="filter."))
    try:
        config = make(folder, samples)
        first, peak, kept = measure(config, overrides)
        again, _, _ = measure(config, [*overrides, "filter.max_tokens=500"])
    finally:
        shutil.rmtree(folder)
    return {
        "samples": samples,
        "kept": kept,
        "seconds": first,
        "again_seconds": again,
        "peak_gib": peak,
    }


if __name__ == "__main__":
    print(json.dumps(main(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000, sys.argv[2:])))
