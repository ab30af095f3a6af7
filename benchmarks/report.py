"""Does the report open at once for many samples? Prints a table of bar and figure, and exits 1 on a miss.

make bench-report          # needs Debian's chromium
SAMPLES=100000 in the environment sets how many.
"""

import json
import os
import resource
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from itertools import cycle, islice
from pathlib import Path

from benchmarks import table
from benchmarks.table import Measurement, Row, median, run_python, spread
from pipeline.config import Config, load
from pipeline.execution import runner
from pipeline.records import Frame, Sample
from pipeline.stages import filter as filter_stage
from pipeline.stages import generate
from pipeline.storage.files import read_json, sha256, write_json
from pipeline.storage.samples import Samples
from pipeline.storage.shards import pack_lines

SAMPLES = int(os.environ.get("SAMPLES", "100000"))
SHARD = 4096
ROUNDS = 5
ENDS = (" normal, ", " spam, ", " perhaps ")
WORDS = "it tells a friend about plans for the evening and asks how the day was, promises a prize to whoever calls a number, and then it ends "
REPLIES = [
    f"{ends}{WORDS[number:]}{WORDS[:number]}\n" for number in range(0, 60, 6) for ends in ENDS
]

UNMEASURED = (
    "contamination=null",
    "repetition=null",
    "secrets=null",
    "refusal=false",
    "boilerplate=false",
    "duplicate=false",
)


def make(folder: Path) -> Config:
    """A run of made-up samples of some 130 tokens, through generate and filter; few frames stand for many."""
    overrides = [
        f"run_dir={folder / 'run'}",
        f"teacher.replies={json.dumps(REPLIES)}",
        "teacher.max_tokens=200",
        "filter.max_tokens=200",
    ]
    config = load("configs/tiny.yaml", [*overrides, *(f"filter.{name}" for name in UNMEASURED)])
    runner.execute(generate, config)
    generated = Path(config.run_dir) / "generate"
    _multiply(generated, list(Samples(generated)))
    runner.execute(filter_stage, config)
    return config


def _multiply(folder: Path, few: Sequence[Sample]) -> None:
    manifest = read_json(folder / "manifest.json")
    for name in [name for name in manifest["files"] if name.endswith((".jsonl.gz", ".topk"))]:
        if name.endswith(".topk"):
            os.replace(folder / name, folder / f"few-{name}")
        else:
            (folder / name).unlink()
        del manifest["files"][name]
    samples = islice(cycle(few), SAMPLES)
    for number, first in enumerate(range(0, SAMPLES, SHARD)):
        lines = [
            _renamed(one, first + at).to_line() for at, one in enumerate(islice(samples, SHARD))
        ]
        path = folder / f"{number:05d}.jsonl.gz"
        path.write_bytes(pack_lines(lines))
        manifest["files"][path.name] = {
            "sha256": sha256(path),
            "nbytes": path.stat().st_size,
            "records": len(lines),
        }
    write_json(
        folder / "manifest.json", manifest | {"counts": manifest["counts"] | {"samples": SAMPLES}}
    )


def _renamed(sample: Sample, number: int) -> Sample:
    assert isinstance(sample.frame, Frame)
    frame = sample.frame.model_copy(update={"file": f"few-{sample.frame.file}"})
    seed = sample.seed.model_copy(
        update={"id": f"sms-{number:012x}", "group": f"slice {number % 7}"}
    )
    return sample.model_copy(
        update={"id": f"{seed.id}/0", "seed": seed, "index": 0, "frame": frame}
    )


def build(run_dir: Path) -> None:
    """Print what it takes to write the report, in a process of its own."""
    from pipeline.report.write import write

    began = time.monotonic()
    write(run_dir)
    print(
        json.dumps(
            {
                "seconds": time.monotonic() - began,
                "mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
            }
        )
    )


def opening(page: Path, rounds: int) -> list[float]:
    """Seconds from opening a page to the first list shown, in a fresh window each, sorted. The first one warms up and is left out."""
    from playwright.sync_api import sync_playwright

    found = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium") or "chromium", args=["--no-sandbox"]
        )
        for _ in range(rounds + 1):
            window = browser.new_context(viewport={"width": 1280, "height": 900}).new_page()
            began = time.monotonic()
            window.goto(page.as_uri(), wait_until="commit")
            window.locator(".line").first.wait_for(timeout=120_000)
            found.append(time.monotonic() - began)
            window.context.close()
    return sorted(found[1:])


def opens(folder: Path) -> Iterator[Row]:
    config = make(folder)
    made = json.loads(
        run_python("-m", "benchmarks.report", "build", config.run_dir).splitlines()[-1]
    )
    report = Path(config.run_dir) / "report"
    nbytes = sum(path.stat().st_size for path in report.rglob("*") if path.is_file())
    index = (report / "samples" / "generated" / "index.js").stat().st_size
    rate = f"{made['seconds']:.1f} s ({SAMPLES / made['seconds']:,.0f} samples/s, at most {made['mib']:,.0f} MiB of memory)"
    yield Row(f"report of {SAMPLES:,} samples is written in", "", rate, True)
    yield Row(
        "its size",
        "",
        f"{nbytes / 1e6:,.0f} MB in pages, of which {index / 1e6:.1f} MB are read to open it",
        True,
    )
    seconds = opening(report / "index.html", ROUNDS)
    yield Row(
        f"opens with {SAMPLES:,} samples", "<= 2 s", f"{spread(seconds, 2)} s", median(seconds) <= 2
    )


MEASUREMENTS: dict[str, Measurement] = {"opens": opens}


if __name__ == "__main__":
    if sys.argv[1:2] == ["build"]:
        build(Path(sys.argv[2]))
    else:
        sys.exit(table.main(MEASUREMENTS, sys.argv[1:]))
