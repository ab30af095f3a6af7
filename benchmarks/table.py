"""A table of bars and figures, as every `make bench-…` prints it."""

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
    what: str
    bar: str
    figure: str
    met: bool

    def __str__(self) -> str:
        return f"{'ok  ' if self.met else 'MISS'}  {self.what:<62} {self.bar:>9}  {self.figure}"


Measurement = Callable[[Path], Iterator[Row]]  # given a folder to work in


def spread(found: Sequence[float], digits: int = 3) -> str:
    """The middle of sorted figures, and from where to where they go."""
    return f"{middle(found):.{digits}f} ({found[0]:.{digits}f} to {found[-1]:.{digits}f})"


def middle(found: Sequence[float]) -> float:
    return found[len(found) // 2]


def python(*arguments: str) -> str:
    """Run Python here, showing what it says of its progress; returns its output."""
    path = os.pathsep.join([os.getcwd(), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": path, "TOKENIZERS_PARALLELISM": "false"}
    return subprocess.run(
        [sys.executable, *arguments], stdout=subprocess.PIPE, text=True, check=True, env=environment
    ).stdout


def main(measurements: Mapping[str, Measurement], names: Sequence[str]) -> int:
    """Print the rows of the measurements named, of all if none is. Returns 1 if a bar is missed."""
    folder = Path(tempfile.mkdtemp(prefix="bench."))
    rows: list[Row] = []
    try:
        for name in names or measurements:
            for row in _measured(name, measurements[name], folder):
                print(row, flush=True)
                rows.append(row)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    barred = [row.met for row in rows if row.bar]
    missed = barred.count(False)
    print("\n" + "\n".join(map(str, rows)) + f"\n{len(barred) - missed} of {len(barred)} bars met")
    return 1 if missed else 0


def _measured(name: str, measurement: Measurement, folder: Path) -> Iterator[Row]:
    """One that breaks is a miss, and the others are measured all the same."""
    try:
        yield from measurement(folder)
    except subprocess.CalledProcessError as error:
        yield Row(
            name,
            "runs",
            f"broke off with exit code {error.returncode}: {' '.join(error.cmd[1:])[:80]} (its words are above)",
            False,
        )
