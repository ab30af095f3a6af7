"""The filter stage at scale: time, memory of all its processes, and what a changed threshold costs, on samples of 1.3 kB.

.venv/bin/python -m benchmarks.filter_scale [SAMPLES] [KEY=VALUE …]
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
from pathlib import Path

import psutil
import yaml

from pipeline.execution.manifest import read_manifest
from pipeline.execution.runner import execute
from pipeline.records import Sample, Seed, Usage
from pipeline.storage.files import write_json

SHARD = 10_000
POOL = 500  # different sentences
PROMPT = "---\nformat: completion\n---\n{{ question }}\n"


def make(folder: Path, samples: int) -> Path:
    """A finished generate of made-up replies, no two alike, and the config of its run. Returns the config's path."""
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
        path.write_bytes(
            gzip.compress(
                b"".join(_sample(row, sentences).to_line() for row in numbers),
                compresslevel=1,
                mtime=0,
            )
        )
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
    """(seconds, peak GiB of this process and its children, rows kept) of the filter stage; what was measured before is used."""
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
    began = time.perf_counter()
    try:
        execute(stage, settings, prepare=archive)
        seconds = time.perf_counter() - began
    finally:
        done.set()
        thread.join()
    return seconds, peak / 2**30, read_manifest(Path(settings.run_dir), "filter")["counts"]["kept"]


def _resident() -> int:
    """Proportional share of the memory of this process and its children, bytes: what they share counts once."""
    total = 0
    for process in [psutil.Process(), *psutil.Process().children(recursive=True)]:
        try:
            total += process.memory_full_info().pss
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return total


def _sentences() -> list[str]:
    draw = random.Random(0)
    syllables = [
        a + b for a in "bdfgklmnprstv" for b in ("a", "e", "i", "o", "u", "an", "er", "in")
    ]
    words = ["".join(draw.choices(syllables, k=draw.randint(1, 4))) for _ in range(20_000)]
    return [" ".join(draw.choices(words, k=14)).capitalize() + "." for _ in range(POOL)]


def _sample(row: int, sentences: list[str]) -> Sample:
    """Sentences in an order of its own, filled up to the size."""
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
    """Seconds of a first time and of one with another threshold, peak memory, rows kept."""
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
