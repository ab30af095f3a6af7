"""Does the filter stage keep its bars? Prints a table of bar and figure, and exits 1 on a miss.

    make bench-filter                                  # all rows, with the libraries that are its peers
    .venv/bin/python -m benchmarks.filter ROW …        # only some of: duplicates contamination verifiers scale

Each of the first three is a benchmark of its own, in a process of its own; see benchmarks/README.md.
"""

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from benchmarks import table
from benchmarks.table import Measurement, Row, python

SAMPLES = int(os.environ.get("SAMPLES", "1000000"))
GIB = 1e9 / 2**30


def rows_of(name: str) -> Measurement:
    """The rows of another benchmark."""

    def measure(folder: Path) -> Iterator[Row]:
        yield from (
            Row(**row)
            for row in json.loads(
                python("-m", "benchmarks.filter", "rows", name, str(folder)).splitlines()[-1]
            )
        )

    return measure


def scale(folder: Path) -> Iterator[Row]:
    """The default filters on made-up samples of 1.3 kB: half as many, then all."""
    half, whole = (
        json.loads(python("-m", "benchmarks.filter_scale", str(number)).splitlines()[-1])
        for number in (SAMPLES // 2, SAMPLES)
    )
    peak = max(half["peak_gib"], whole["peak_gib"])
    yield Row(
        f"default filters, {SAMPLES:,} samples: memory of all processes",
        "<= 2 GB",
        f"{peak:.2f} GiB",
        peak <= 2 * GIB,
    )
    growth = whole["seconds"] / half["seconds"]
    rates = f"{growth:.2f} times that of half as many ({SAMPLES / whole['seconds']:,.0f} samples/s)"
    yield Row(f"default filters, {SAMPLES:,} samples: time", "<= 2.2", rates, growth <= 2.2)
    share = whole["again_seconds"] / whole["seconds"]
    yield Row(
        "a changed threshold, share of the first time",
        "<= 5 %",
        f"{share:.1%} ({whole['again_seconds']:.1f} s)",
        share <= 0.05,
    )


def rows(name: str, folder: Path) -> None:
    """Print the rows of one benchmark as JSON, for a process that has not loaded its libraries."""
    import importlib

    module = importlib.import_module(f"benchmarks.{name}")
    found = [row for measurement in module.ROWS_OF.values() for row in measurement(folder)]
    print(json.dumps([vars(row) | {"met": bool(row.met)} for row in found]))


ROWS: dict[str, Measurement] = {
    "duplicates": rows_of("duplicates"),
    "contamination": rows_of("contamination"),
    "verifiers": rows_of("verifiers"),
    "scale": scale,
}


if __name__ == "__main__":
    if sys.argv[1:2] == ["rows"]:
        rows(sys.argv[2], Path(sys.argv[3]))
    else:
        sys.exit(table.main(ROWS, sys.argv[1:]))
