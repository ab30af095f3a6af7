"""Measures how soon the report opens with many samples, against its bar. Exits 1 on a miss.

    make bench-report          # needs Debian's chromium

It also prints the time to write the report, and its size. SAMPLES=100000 in the environment sets
the number of samples.
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
from benchmarks.table import Measurement, Row, last_line, median, spread
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
ANSWERS = (" normal, ", " spam, ", " perhaps ")
WORDS = (
    "it tells a friend about plans for the evening and asks how the day was, "
    "promises a prize to whoever calls a number, and then it ends "
)
REPLIES = [
    f"{answer}{WORDS[start:]}{WORDS[:start]}\n" for start in range(0, 60, 6) for answer in ANSWERS
]

SLOW_FILTERS_OFF = (
    "contamination=null",
    "repetition=null",
    "secrets=null",
    "refusal=false",
    "boilerplate=false",
    "duplicate=false",
)


def make(folder: Path) -> Config:
    """Make a run of samples of about 130 tokens, through generate and filter.

    Few frames are shared by many samples.
    """
    overrides = [
        f"run_dir={folder / 'run'}",
        f"teacher.replies={json.dumps(REPLIES)}",
        "teacher.max_tokens=200",
        "filter.max_tokens=200",
    ]
    config = load(
        "configs/tiny.yaml", [*overrides, *(f"filter.{name}" for name in SLOW_FILTERS_OFF)]
    )
    runner.execute(generate, config)
    generated = Path(config.run_dir) / "generate"
    _multiply(generated, list(Samples(generated)))
    runner.execute(filter_stage, config)
    return config


def _multiply(folder: Path, few: Sequence[Sample]) -> None:
    """Replace the stored samples by SAMPLES copies of `few`, which share their frames."""
    manifest = read_json(folder / "manifest.json")
    for name in [name for name in manifest["files"] if name.endswith((".jsonl.gz", ".topk"))]:
        if name.endswith(".topk"):
            os.replace(folder / name, folder / f"few-{name}")
        else:
            (folder / name).unlink()
        del manifest["files"][name]
    samples = islice(cycle(few), SAMPLES)
    for number, first in enumerate(range(0, SAMPLES, SHARD)):
        shard = enumerate(islice(samples, SHARD), start=first)
        lines = [_renamed(sample, row).to_line() for row, sample in shard]
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
    """Write the report, and print the seconds and the memory of this process as JSON."""
    from pipeline.report.write import write

    started = time.monotonic()
    write(run_dir)
    seconds = time.monotonic() - started
    mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"seconds": seconds, "mib": mib}))


def opening(page: Path, rounds: int) -> list[float]:
    """Return the seconds from opening a page to its first list, sorted.

    Each is in a fresh window. The first one is a warm-up and does not count.
    """
    from playwright.sync_api import sync_playwright

    times = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium") or "chromium", args=["--no-sandbox"]
        )
        for _ in range(rounds + 1):
            window = browser.new_context(viewport={"width": 1280, "height": 900}).new_page()
            started = time.monotonic()
            window.goto(page.as_uri(), wait_until="commit")
            window.locator(".line").first.wait_for(timeout=120_000)
            times.append(time.monotonic() - started)
            window.context.close()
    return sorted(times[1:])


def opens(folder: Path) -> Iterator[Row]:
    """Write the report of a large run and open it in a browser."""
    config = make(folder)
    made = json.loads(last_line("-m", "benchmarks.report", "build", config.run_dir))
    report = Path(config.run_dir) / "report"
    nbytes = sum(path.stat().st_size for path in report.rglob("*") if path.is_file())
    index = (report / "samples" / "generated" / "index.js").stat().st_size
    rate = SAMPLES / made["seconds"]
    figure = f"{made['seconds']:.1f} s ({rate:,.0f} samples/s, {made['mib']:,.0f} MiB at the peak)"
    yield Row(f"report of {SAMPLES:,} samples is written in", "", figure, True)
    figure = f"{nbytes / 1e6:,.0f} MB in pages, of which {index / 1e6:.1f} MB are read to open it"
    yield Row("its size", "", figure, True)
    times = opening(report / "index.html", ROUNDS)
    what = f"opens with {SAMPLES:,} samples"
    yield Row(what, "<= 2 s", f"{spread(times, 2)} s", median(times) <= 2)


MEASUREMENTS: dict[str, Measurement] = {"opens": opens}


if __name__ == "__main__":
    if sys.argv[1:2] == ["build"]:
        build(Path(sys.argv[2]))
    else:
        sys.exit(table.main(MEASUREMENTS, sys.argv[1:]))
