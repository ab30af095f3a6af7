"""Schema of RUN/evaluate/results.json; docs/reference/results.md describes every key.

If a file of an older version lacks a key, the key gets its default. Unknown keys of a newer version
are ignored.
"""

from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, ValidationError

from pipeline.errors import PipelineError
from pipeline.evaluation.bootstrap import Interval
from pipeline.evaluation.small_samples import LEVEL
from pipeline.storage.files import read_json, update_json


class Figures(BaseModel):
    """Base of the parts of a results file."""

    model_config = ConfigDict(frozen=True)


class ResultsFile(Figures):
    """Base of a whole results file."""

    @classmethod
    def read(cls, path: Path) -> Self:
        """Return the figures in a file. Raises PipelineError if a key is missing or malformed."""
        try:
            return cls.model_validate(read_json(path))
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(map(str, first["loc"]))
            raise PipelineError(
                f"{path}: {key}: {first['msg']}; run the command that wrote the file again"
            ) from None

    def write(self, path: Path) -> None:
        """Write the file if its content changes; keys that were never set are left out."""
        update_json(path, self.model_dump(exclude_unset=True))


class GroupScore(Interval):
    """Score of one group of held-out examples."""

    held_out: int


class Bin(Figures):
    """Answers whose confidence is between `low` and `high`, with their mean confidence."""

    low: float
    high: float
    count: int
    confidence: float
    accuracy: float


class Calibration(Figures):
    """How well a model's confidence predicts that its answer is right."""

    ece: float
    brier: float
    answers: int
    bins: list[Bin] = []


class Fidelity(Figures):
    """How close a student is to the teacher, on the teacher's own answers."""

    kl: Interval | None = None
    top1: float | None = None
    tokens: int = 0
    left_out: int = 0
    rouge_l: Interval | None = None
    chrf: Interval | None = None


class Load(Figures):
    """Latency (s), speed and price under `concurrency` requests at once."""

    asked: int | None = None
    requests: int | None = None
    concurrency: int | None = None
    p50_s: float | None = None
    p95_s: float | None = None
    first_token_p50_s: float | None = None
    first_token_p95_s: float | None = None
    tokens_per_s: float | None = None
    answers_per_s: float | None = None
    peak_bytes: int | None = None
    price_per_1000: float | None = None


class Repetition(Figures):
    """Share of rows that a student repeats; `longest` is the median number of repeated tokens."""

    rows: int
    verbatim: float | None = None
    longest: int | float | None = None


class Canary(Figures):
    """A planted secret and its exposure in bits."""

    text: str
    exposure: float


class Memorisation(Figures):
    """Training rows compared with unseen rows, and the planted canaries."""

    trained: Repetition
    unseen: Repetition
    difference: float | None = None
    tokens: int | None = None
    canaries: list[Canary] = []


class TaskMetric(Figures):
    """One metric of one lm-eval task."""

    value: float
    stderr: float | None = None


LmEval = dict[str, dict[str, TaskMetric]]  # by task, then by metric


class TopAnswer(Figures):
    """A model's most frequent answer: its share of the answers, and of the right ones."""

    answer: str
    share: float
    true_share: float


class Quality(Figures):
    """How good one model's answers are."""

    method: str | None = None
    score: Interval
    retained: float | None = None
    unreadable: int | None = None
    agreement: float | None = None
    groups: dict[str, GroupScore] = {}
    gap: float | None = None
    macro_f1: float | None = None
    metrics: dict[str, Interval] = {}
    calibration: Calibration | None = None
    fidelity: Fidelity | None = None
    top_answer: TopAnswer | None = None


class Cost(Figures):
    """What one model costs, as in RUN/evaluate/MODEL/cost.json."""

    engine: str | None = None
    tokens_per_s: float | None = None
    answers_per_s: float | None = None
    parameters: int | None = None
    nbytes: int | None = None
    load: Load | None = None


class ModelFigures(Cost, Quality):  # pydantic puts the fields of the last base first
    """All figures of one model."""

    memorisation: Memorisation | None = None
    lm_eval: LmEval | None = None


class Repeats(Figures):
    """Arms that differ only in their random seed."""

    arms: list[str]
    score: Interval
    each: list[float]
    retained: float | None = None


class Difference(Interval):
    """One model's score minus another's, paired by example; `kl` is the difference of KL."""

    p: float | None = None
    kl: "Difference | None" = None

    @property
    def sign(self) -> int:
        """1 if significantly above 0 by both interval and p, -1 if below 0, else 0."""
        if self.p is not None and self.p >= LEVEL:
            return 0
        return super().sign


class Baseline(Figures):
    """Always giving the most frequent right answer; `differences` are model minus baseline."""

    answer: str
    score: Interval
    differences: dict[str, Difference]


class Results(ResultsFile):
    """All figures of a run, in the order of the file."""

    metric: str
    held_out: int
    models: dict[str, ModelFigures]
    repeats: dict[str, Repeats] = {}
    baseline: Baseline | None = None
    gate: Interval | None = None
    differences: dict[str, Difference] = {}
    note: str | None = None
    verdicts: list[str] | None = None

    def methods(self, difference: str) -> tuple[str | None, ...]:
        """Return the methods of the two sides of a difference; None for teacher and base."""
        return tuple(map(self._method, difference.split(" - ")))

    def _method(self, name: str) -> str | None:
        arm = self.repeats[name].arms[0] if name in self.repeats else name
        return self.models[arm].method if arm in self.models else None
