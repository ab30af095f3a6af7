"""Settings of `evaluate` and of its optional measurements."""

from typing import Literal

from pydantic import Field

from pipeline.config.base import Section, runtime
from pipeline.config.teacher import Engine


class Gate(Section):
    """Thresholds that the student must reach.

    If it misses one, `pipeline evaluate` names the threshold and ends with exit code 2.
    """

    arm: str | None = Field(None, examples=["kd"])
    """Arm that is checked. null: the first."""
    score: float | None = Field(None, ge=0, le=1, examples=[0.9])
    """Smallest score by the task's metric."""
    retained: float | None = Field(None, ge=0, examples=[0.95])
    """Smallest share of the teacher's score."""
    over: str | None = Field(None, examples=["sft"])
    """Model that the arm must beat on the same held-out examples."""
    margin: float = Field(0.0, ge=-1, le=1, examples=[0.01])
    """over: the difference must exceed this. A negative margin allows a loss of that size."""
    gap: float | None = Field(None, ge=0, le=1, examples=[0.1])
    """Largest difference between the best group and the worst."""
    p95_s: float | None = Field(None, gt=0, examples=[0.5])
    """Largest 95th percentile of the latency under evaluate.load, in seconds."""
    price_per_1000: float | None = Field(None, ge=0, examples=[0.02])
    """Highest price of 1,000 requests; needs evaluate.price_per_hour."""
    ece: float | None = Field(None, ge=0, le=1, examples=[0.05])
    """Largest expected calibration error."""
    certain: bool = Field(False, examples=[True])
    """score and over: the low end of the 95 % interval must reach the threshold."""


class Fidelity(Section):
    """How close the student is to the teacher on the teacher's answers to held-out examples.

    It needs no ground truth.
    """

    logprobs: int = Field(64, ge=1, le=4096, examples=[256])
    """k of the top-k logprobs that the teacher gives; the rest is one bucket."""


class Load(Section):
    """The load under which latency and throughput are measured: docs/how-to/cost.md."""

    requests: int = runtime(32, ge=1, examples=[200])
    """How many held-out prompts are sent, at most."""
    concurrency: int = runtime(4, ge=1, examples=[16])
    """Requests in flight at any time."""


class Memorisation(Section):
    """Measure whether a student repeats its training rows verbatim and knows train.canaries."""

    rows: int = Field(100, ge=0, examples=[500])
    """How many training rows are tried, and as many unseen rows. 0: only canaries."""
    prefix: float = Field(0.5, ge=0, lt=1, examples=[0.25])
    """Share of a reply that the student is given, after its prompt."""
    tokens: int = Field(20, ge=1, examples=[50])
    """Identical tokens in sequence that count as verbatim. Rows need as many after the prefix."""


class LmEval(Section):
    """Measure what the student has forgotten outside the task, with EleutherAI's lm-eval.

    Needs pipeline[lm-eval].
    """

    tasks: list[str] = Field(min_length=1, examples=[["arc_easy", "hellaswag"]])
    """Tasks, groups or tags, by their names in lm-eval."""
    limit: int | None = Field(None, ge=1, examples=[200])
    """Only the first N documents of each task. null: all."""
    examples: int | None = Field(None, ge=0, examples=[5])
    """Solved examples in the prompt (few-shot). null: the task's own number."""
    include_path: str | None = Field(None, examples=["tasks"])
    """Folder with custom tasks, as YAML files."""
    batch_size: int = runtime(8, ge=1, examples=[64])
    """Requests that lm-eval runs at once."""


class Evaluate(Section):
    """How teacher, base student and every arm answer the held-out examples.

    A section that is null is off, and {} turns it on with its defaults.
    """

    max_tokens: int = Field(512, ge=1, examples=[768])
    """Longest answer, in tokens."""
    backend: Literal["vllm", "fake"] = Field("vllm", examples=["fake"])
    """Engine that runs the students. teacher.backend still runs the teacher."""
    engine: Engine = Engine()
    also: list[Literal["exact", "numeric", "rouge_l", "chrf"]] = Field(
        [], examples=[["rouge_l", "chrf"]]
    )
    """More metrics beside task.metric, computed from the stored answers."""
    fidelity: Fidelity | None = None
    load: Load | None = runtime(Load())
    price_per_hour: float | None = runtime(None, ge=0, examples=[2.5])
    """Price of the machine per hour, in any currency; gives the price of 1,000 requests."""
    memorisation: Memorisation | None = None
    lm_eval: LmEval | None = None
    gate: Gate | None = None
