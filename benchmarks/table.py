"""The table of bars and figures that every `make bench-…` prints."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Row:
    """A measured figure and its bar. An empty bar sets no target."""

    what: str
    bar: str
    figure: str
    met: bool

    def __str__(self) -> str:
        return f"{'ok  ' if self.met else 'MISS'}  {self.what:<62} {self.bar:>9}  {self.figure}"


Measurement = Callable[[Path], Iterator[Row]]  # given a folder to work in


def spread(figures: Sequence[float], digits: int = 3) -> str:
    """Return median and range of sorted figures as text."""
    return f"{median(figures):.{digits}f} ({figures[0]:.{digits}f} to {figures[-1]:.{digits}f})"


def median(figures: Sequence[float]) -> float:
    """Return the middle one of sorted figures."""
    return figures[len(figures) // 2]


def run_python(*arguments: str) -> str:
    """Run Python in this folder, with its progress shown, and return its output."""
    path = os.pathsep.join([os.getcwd(), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": path, "TOKENIZERS_PARALLELISM": "false"}
    return subprocess.run(
        [sys.executable, *arguments], stdout=subprocess.PIPE, text=True, check=True, env=environment
    ).stdout


def last_line(*arguments: str) -> str:
    """Run Python as `run_python` does, and return the last line of its output."""
    return run_python(*arguments).splitlines()[-1]


def main(measurements: Mapping[str, Measurement], names: Sequence[str]) -> int:
    """Print the rows of the named measurements, by default of all. Returns 1 if a bar is missed."""
    folder = Path(tempfile.mkdtemp(prefix="bench."))
    rows: list[Row] = []
    try:
        for name in names or measurements:
            for row in _measure(name, measurements[name], folder):
                print(row, flush=True)
                rows.append(row)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return show(rows)


def show(rows: Sequence[Row]) -> int:
    """Print rows and how many bars are met. Returns 1 if a bar is missed."""
    met = [row.met for row in rows if row.bar]
    print()
    for row in rows:
        print(row)
    print(f"{sum(met)} of {len(met)} bars met")
    return 0 if all(met) else 1


def _measure(name: str, measurement: Measurement, folder: Path) -> Iterator[Row]:
    """Yield the rows of a measurement. One that fails is a miss, and the others still run."""
    try:
        yield from measurement(folder)
    except subprocess.CalledProcessError as error:
        command = " ".join(error.cmd[1:])[:80]
        figure = f"failed with exit code {error.returncode}: {command} (its output is above)"
        yield Row(name, "runs", figure, False)
