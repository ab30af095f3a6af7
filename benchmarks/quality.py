"""Measures what distillation gives on seven tasks, with the shipped configs. Exits 1 on a miss.

    make bench-quality                       # hours on 2 cores; the same command continues
    .venv/bin/python -m benchmarks.quality [--tasks TASK …] [--parts main curve cut]
        [--repeats 3] [--scale small|full] [--arms kd sft] [--dev] [--runs DIR] [KEY=VALUE …]

Makes data and teachers, then trains every arm of a config once for each training seed, on the same
rows. Every step is a command of the pipeline in DIR/TASK-SCALE; finished steps are reused.

    main    the best student against its teacher, kd against sft, and the adviser's prediction
    curve   kd and sft with 100, 300 and 1,000 rows, on two tasks
    cut     half of the teacher's layers, healed or not, in the same total time, on four tasks

KEY=VALUE overrides the students' configs; give other --runs or --name for other settings. --dev
evaluates on examples that are neither trained on nor in the figures, for choosing settings.
leg_counting needs `pip install '.[tasks]'`.
"""

import argparse
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from benchmarks import quality_runs, quality_table, table
from benchmarks.quality_runs import TASKS, Bench
from benchmarks.table import Row

PARTS = ("main", "curve", "cut")
Made = TypeVar("Made")


def main(arguments: Sequence[str]) -> int:
    """Run the parts of all tasks, and print the table. Returns 1 if a bar is missed."""
    overrides = [word for word in arguments if "=" in word and not word.startswith("-")]
    given = _parser().parse_args([word for word in arguments if word not in overrides])
    bench = Bench(
        given.runs, given.scale, given.repeats, given.dev, given.name, given.arms, overrides
    )
    rows = [row for part in given.parts for row in measure(part, bench, given.tasks)]
    print()
    return table.show(rows)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--repeats", type=int, default=3, help="training seeds of every arm (3)")
    parser.add_argument("--scale", choices=("small", "full"), default="small")
    parser.add_argument("--arms", nargs="+", default=(), help="only these arms of the config")
    parser.add_argument("--dev", action="store_true", help="evaluate on dev.jsonl")
    parser.add_argument("--name", default="student", help="name of the students' run folders")
    parser.add_argument("--runs", type=Path, default=Path("runs/quality"))
    return parser


def measure(part: str, bench: Bench, tasks: Sequence[str]) -> Iterator[Row]:
    """Run one part for the tasks that it is for, and yield its rows."""
    if part == "main":
        yield from _each(part, bench, tasks, quality_runs.student, quality_table.main_rows)
    elif part == "curve":
        fit = [task for task in tasks if TASKS[task].curve]
        yield from _each(part, bench, fit, quality_runs.curve, quality_table.curve_rows)
    else:
        fit = [task for task in tasks if TASKS[task].cut]
        yield from _each(part, bench, fit, quality_runs.cut, quality_table.cut_rows)


def _each(
    part: str,
    bench: Bench,
    tasks: Sequence[str],
    run: Callable[[Bench, str], Made],
    rows: Callable[[dict[str, Made]], Iterator[Row]],
) -> Iterator[Row]:
    """Run the tasks. One whose command fails is a miss, and the others still run."""
    made = {}
    for task in tasks:
        print(f"== {part}: {task}", flush=True)
        try:
            made[task] = run(bench, task)
        except subprocess.CalledProcessError as error:
            yield Row(
                f"{part}: {task}", "runs", f"exit code {error.returncode}, see its output", False
            )
    if made:
        yield from rows(made)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
