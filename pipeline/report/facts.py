"""Everything that a report says, as plain records: page and Markdown are written from these and from nothing else.

Figures that are read stand here as the very strings that are shown; those that are drawn as numbers.
"""

from dataclasses import dataclass

from pipeline.evaluation.bootstrap import Interval


@dataclass(frozen=True)
class Table:
    """`rows` have as many cells as `head`; the first cell of each says what it is about."""

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Verdict:
    """What to make of the run. `ships` is the gate's word (None: there is none), `failed` its lines, `figures` (what, value)."""

    ships: bool | None
    title: str
    says: tuple[str, ...] = ()
    failed: tuple[str, ...] = ()
    figures: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Step:
    """One station on the way from seeds to figures."""

    name: str
    count: str
    note: str
    done: bool


@dataclass(frozen=True)
class Missing:
    """What is not there yet, how far it is, which command makes it."""

    what: str
    state: str
    command: str


@dataclass(frozen=True)
class Waterfall:
    """Samples that came to the filters, (reason, number) of those turned down in the filters' order, samples that were kept."""

    given: int
    drops: tuple[tuple[str, int], ...]
    kept: int


@dataclass(frozen=True)
class Curve:
    """(step, value) of one arm; `name` tells it from the arm's others in the panel, `points_only` is for what is measured now and then."""

    arm: str
    name: str
    points: tuple[tuple[float, float], ...]
    points_only: bool = False


@dataclass(frozen=True)
class Panel:
    """Curves that share an axis; `unit` is "" or "%", for values of 0 to 1."""

    title: str
    caption: str
    curves: tuple[Curve, ...]
    unit: str = ""


@dataclass(frozen=True)
class Point:
    """A model's score at what it costs."""

    model: str
    cost: float
    score: Interval


@dataclass(frozen=True)
class Cost:
    """Quality against one measure of cost, in `unit`."""

    title: str
    unit: str
    points: tuple[Point, ...]


@dataclass(frozen=True)
class Estimate:
    """A figure with its interval; `says` is what follows from it."""

    name: str
    interval: Interval
    says: str = ""


@dataclass(frozen=True)
class Group:
    """A slice of the held-out seeds, and each model's score on it."""

    name: str
    held_out: int
    scores: tuple[Estimate, ...]


@dataclass(frozen=True)
class Bin:
    """Answers of like confidence: how sure the model was, how often it was right."""

    confidence: float
    accuracy: float
    count: int


@dataclass(frozen=True)
class Reliability:
    """How far a model's confidence can be believed; `says` has its calibration error in figures."""

    model: str
    says: str
    bins: tuple[Bin, ...]


@dataclass(frozen=True)
class Ablation:
    """What came out of pipeline ablate."""

    sets: tuple[Estimate, ...]
    says: tuple[str, ...]
    note: str


@dataclass(frozen=True)
class Settings:
    """What was run: settings that are not their defaults, all of them as YAML, versions, times, commands that make it again."""

    changed: Table
    config: str
    versions: Table
    times: Table
    commands: tuple[str, ...]


@dataclass(frozen=True)
class Facts:
    """A run, as far as it went; what it has not is empty or None."""

    run: str
    task: str
    arms: tuple[str, ...]
    verdict: Verdict
    missing: tuple[Missing, ...]
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
    elsewhere: Table | None
    ablation: Ablation | None
    settings: Settings
