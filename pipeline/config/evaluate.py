"""Settings of `evaluate` and of the measures behind it."""

from typing import Literal

from pydantic import Field

from pipeline.config.base import Section, runtime
from pipeline.config.teacher import Engine


class Gate(Section):
    """What the student must reach; `pipeline evaluate` ends with exit code 2 and the threshold that it missed."""

    arm: str | None = Field(
        None, description="which arm is judged; null: the first", examples=["kd"]
    )
    score: float | None = Field(
        None, ge=0, le=1, description="the task's metric, at least", examples=[0.9]
    )
    retained: float | None = Field(
        None, ge=0, description="share of the teacher's score, at least", examples=[0.95]
    )
    over: str | None = Field(
        None,
        description="a model that it must be better than, on the same held-out seeds",
        examples=["sft"],
    )
    margin: float = Field(
        0.0,
        ge=-1,
        le=1,
        description="over: by more than this; below 0 it may be so much worse",
        examples=[0.01],
    )
    gap: float | None = Field(
        None, ge=0, le=1, description="from the best group to the worst, at most", examples=[0.1]
    )
    p95_s: float | None = Field(
        None,
        gt=0,
        description="latency that 95 % of the requests of evaluate.load stay under, seconds",
        examples=[0.5],
    )
    price_per_1000: float | None = Field(
        None,
        ge=0,
        description="price of 1,000 requests, at most; needs evaluate.price_per_hour",
        examples=[0.02],
    )
    ece: float | None = Field(
        None, ge=0, le=1, description="expected calibration error, at most", examples=[0.05]
    )
    certain: bool = Field(
        False,
        description="score and over: the low end of the 95 % interval must reach it",
        examples=[True],
    )


class Fidelity(Section):
    """How near the student is to the teacher on the teacher's own answers to the held-out seeds, which need no right answer."""

    logprobs: int = Field(
        64,
        ge=1,
        le=4096,
        description="k of the top-k logprobs that the teacher is asked for; the rest is one bucket",
        examples=[256],
    )
    batch_size: int = runtime(
        16, ge=1, description="answers of the teacher that a student reads at once", examples=[64]
    )


class Load(Section):
    """Under what load latency and speed are measured, by held-out prompts: docs/how-to/cost.md."""

    requests: int = runtime(
        32,
        ge=1,
        description="held-out prompts that are asked, fewer where there are not so many",
        examples=[200],
    )
    concurrency: int = runtime(4, ge=1, description="requests in flight at any time", examples=[16])


class Memorisation(Section):
    """Whether a student says its training rows word for word, when it is given how they begin, and knows the secrets of train.canaries."""

    rows: int = Field(
        100,
        ge=0,
        description="training rows that are tried, and as many unseen ones; 0: canaries alone",
        examples=[500],
    )
    prefix: float = Field(
        0.5,
        ge=0,
        lt=1,
        description="share of a reply that the student is given, behind its prompt",
        examples=[0.25],
    )
    tokens: int = Field(
        20,
        ge=1,
        description="so many in a row are verbatim; rows with fewer left are not taken",
        examples=[50],
    )
    alternatives: int = Field(
        255,
        ge=1,
        description="other secrets that a canary is ranked among; 255 make 8 bits at most",
        examples=[1023],
    )
    seed: int = Field(0, ge=0, description="which rows and other secrets are drawn", examples=[1])


class LmEval(Section):
    """What was forgotten outside the task: tasks of EleutherAI's lm-eval, by name. Needs pipeline[lm-eval]."""

    tasks: list[str] = Field(
        min_length=1,
        description="tasks, groups or tags, as lm-eval names them",
        examples=[["arc_easy", "hellaswag"]],
    )
    limit: int | None = Field(
        None,
        ge=1,
        description="only the first so many documents of each task; null: all",
        examples=[200],
    )
    examples: int | None = Field(
        None,
        ge=0,
        description="solved examples in the prompt (few-shot); null: as the task says",
        examples=[5],
    )
    include_path: str | None = Field(
        None, description="folder with tasks of your own, as YAML files", examples=["tasks"]
    )
    batch_size: int = runtime(
        8, ge=1, description="requests that the harness runs at once", examples=[64]
    )


class Evaluate(Section):
    """How teacher, untouched student and every arm answer the held-out seeds."""

    max_tokens: int = Field(512, ge=1, description="longest answer, tokens", examples=[768])
    backend: Literal["vllm", "fake"] = Field(
        "vllm", description="what runs the students; the teacher keeps its own", examples=["fake"]
    )
    engine: Engine = Engine()
    also: list[Literal["exact", "numeric", "rouge_l", "chrf"]] = Field(
        [],
        description="metrics beside task.metric, from the stored answers: nobody is asked anew",
        examples=[["rouge_l", "chrf"]],
    )
    fidelity: Fidelity | None = Field(
        None,
        description="compare every student with the teacher's logprobs and text; {} turns it on",
    )
    load: Load | None = runtime(
        Load(),
        description="latency and speed of every model under a stated load; null: not measured",
    )
    price_per_hour: float | None = runtime(
        None,
        ge=0,
        description="what the machine costs an hour, in any currency: gives the price of 1,000 requests",
        examples=[2.5],
    )
    memorisation: Memorisation | None = Field(
        None, description="verbatim training rows and canaries; {} turns it on"
    )
    lm_eval: LmEval | None = Field(
        None, description="lm-eval tasks on teacher, untouched student and arms"
    )
    gate: Gate | None = Field(None, description="what the student must reach")
