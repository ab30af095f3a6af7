"""Measures the filter stage against its bars and against other libraries. Exits 1 on a miss.

    make bench-filter                               # all rows, with the other libraries installed
    .venv/bin/python -m benchmarks.filter ROW …     # duplicates contamination verifiers scale

Each of the first three is another benchmark in a process of its own; see benchmarks/README.md.
"""

import importlib
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from benchmarks import table
from benchmarks.table import Measurement, Row, last_line

SAMPLES = int(os.environ.get("SAMPLES", "1000000"))
GIB = 1e9 / 2**30  # a GB in GiB


def in_a_process(name: str) -> Measurement:
    """Return a measurement that runs another benchmark in a process of its own."""

    def measure(folder: Path) -> Iterator[Row]:
        rows = json.loads(last_line("-m", "benchmarks.filter", "rows", name, str(folder)))
        for row in rows:
            yield Row(**row)

    return measure


def scale(folder: Path) -> Iterator[Row]:
    """Run the default filters on half of the made-up samples of 1.3 kB, then on all."""
    half = json.loads(last_line("-m", "benchmarks.filter_scale", str(SAMPLES // 2)))
    whole = json.loads(last_line("-m", "benchmarks.filter_scale", str(SAMPLES)))
    peak = max(half["peak_gib"], whole["peak_gib"])
    yield Row(
        f"default filters, {SAMPLES:,} samples: memory of all processes",
        "<= 2 GB",
        f"{peak:.2f} GiB",
        peak <= 2 * GIB,
    )
    growth = whole["seconds"] / half["seconds"]
    rate = SAMPLES / whole["seconds"]
    figure = f"{growth:.2f} times that of half as many ({rate:,.0f} samples/s)"
    yield Row(f"default filters, {SAMPLES:,} samples: time", "<= 2.2", figure, growth <= 2.2)
    share = whole["again_seconds"] / whole["seconds"]
    yield Row(
        "a changed threshold, share of the first time",
        "<= 5 %",
        f"{share:.1%} ({whole['again_seconds']:.1f} s)",
        share <= 0.05,
    )


def print_rows(name: str, folder: Path) -> None:
    """Print the rows of one benchmark as JSON."""
    rows = []
    for measurement in importlib.import_module(f"benchmarks.{name}").MEASUREMENTS.values():
        rows += [vars(row) | {"met": bool(row.met)} for row in measurement(folder)]
    print(json.dumps(rows))


MEASUREMENTS: dict[str, Measurement] = {
    "duplicates": in_a_process("duplicates"),
    "contamination": in_a_process("contamination"),
    "verifiers": in_a_process("verifiers"),
    "scale": scale,
}


if __name__ == "__main__":
    if sys.argv[1:2] == ["rows"]:
        print_rows(sys.argv[2], Path(sys.argv[3]))
    else:
        sys.exit(table.main(MEASUREMENTS, sys.argv[1:]))
