"""The content of a report as plain records, from which index.html and report.md are written.

In tables and sentences a figure is a string, formatted as shown. In charts a figure is a number.
"""

from dataclasses import dataclass

from pipeline.evaluation.bootstrap import Interval
from pipeline.evaluation.results_model import Bin


@dataclass(frozen=True)
class Table:
    """A head and rows; each has the same number of cells, and a row's first cell is its name."""

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Verdict:
    """The conclusion of the report.

    `ships` is the gate's decision, None without a gate. `missed` has a line for each threshold that
    the student misses. `figures` are pairs of (text, value).
    """

    ships: bool | None
    title: str
    sentences: tuple[str, ...] = ()
    missed: tuple[str, ...] = ()
    figures: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Tip:
    """A piece of advice, and the command to try; "" without one."""

    text: str
    command: str


@dataclass(frozen=True)
class Step:
    """One step of the flow from inputs to figures, with its count."""

    name: str
    count: str
    note: str
    done: bool


@dataclass(frozen=True)
class Missing:
    """An unfinished part, its state, and the command that makes it."""

    what: str
    state: str
    command: str


@dataclass(frozen=True)
class Waterfall:
    """Counts of all samples, of rejected ones by reason in filter order, and of kept ones."""

    total: int
    rejected: tuple[tuple[str, int], ...]
    kept: int


@dataclass(frozen=True)
class Curve:
    """Points (step, value) of one arm; `name` tells the curves of the same arm apart.

    `points_only` is True for values that are not measured at every logged step.
    """

    arm: str
    name: str
    points: tuple[tuple[float, float], ...]
    points_only: bool = False


@dataclass(frozen=True)
class Panel:
    """Curves that share an axis; `unit` is "%" for values from 0 to 1, else ""."""

    title: str
    caption: str
    curves: tuple[Curve, ...]
    unit: str = ""


@dataclass(frozen=True)
class Point:
    """A model's cost and score."""

    model: str
    cost: float
    score: Interval


@dataclass(frozen=True)
class Cost:
    """A chart of score against one measure of cost, which has the unit `unit`."""

    title: str
    unit: str
    points: tuple[Point, ...]


@dataclass(frozen=True)
class Estimate:
    """A figure with its interval, and its text."""

    name: str
    interval: Interval
    text: str = ""


@dataclass(frozen=True)
class Group:
    """A group of held-out examples, and each model's score on it."""

    name: str
    held_out: int
    scores: tuple[Estimate, ...]


@dataclass(frozen=True)
class Reliability:
    """A model's reliability curve; `text` has its calibration error."""

    model: str
    text: str
    bins: tuple[Bin, ...]


@dataclass(frozen=True)
class Ablation:
    """The results of `pipeline ablate`."""

    sets: tuple[Estimate, ...]
    sentences: tuple[str, ...]
    note: str


@dataclass(frozen=True)
class Settings:
    """Changed settings, all of them as YAML, versions, times, and commands that repeat the run."""

    changed: Table
    config: str
    versions: Table
    times: Table
    commands: tuple[str, ...]


@dataclass(frozen=True)
class Facts:
    """All facts of a run; those of stages that did not run yet are empty or None."""

    run: str
    task: str
    arms: tuple[str, ...]
    verdict: Verdict
    missing: tuple[Missing, ...]
    advice: tuple[Tip, ...]
    note: str
    quality: Table
    closeness: Table
    cost: Table
    metric: str
    held_out: int
    flow: tuple[Step, ...]
    waterfall: Waterfall | None
    panels: tuple[Panel, ...]
    costs: tuple[Cost, ...]
    differences: tuple[Estimate, ...]
    groups: tuple[Group, ...]
    gaps: tuple[str, ...]
    reliability: tuple[Reliability, ...]
    memorisation: Table | None
    canaries: Table | None
    lm_eval: Table | None
    ablation: Ablation | None
    settings: Settings
