"""The sections on what is asked: the task, its seeds, the teacher and its engine."""

import re
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from pipeline.config.section import Section, runtime


class Source(Section):
    """Where seeds come from: a .jsonl, .csv or .parquet file, or a Hugging Face dataset."""

    path: str | None = Field(None, description="file, its format told by its ending", examples=["data/mine.jsonl"])
    dataset: str | None = Field(None, description="hub id of a dataset; this or path", examples=["openai/gsm8k"])
    name: str | None = Field(None, description="the dataset's configuration", examples=["main"])
    split: str = Field("train", description="the dataset's split", examples=["validation"])
    revision: str | None = Field(None, description="the dataset's revision: pin it", examples=["v1.0"])
    id_field: str = Field("id", description="column with the seed's id; without one, ids are made from the content", examples=["key"])
    target_field: str = Field("target", description="column with the ground truth, if any", examples=["answer"])
    target_pattern: str | None = Field(
        None, description="regular expression whose first group is the ground truth in that column", examples=["A=(.+)"]
    )
    group_field: str = Field("group", description="column with the slice for reports, if any", examples=["language"])
    limit: int | None = Field(None, ge=1, description="take only the first so many", examples=[48])

    @model_validator(mode="after")
    def one_origin(self) -> Self:
        if (self.path is None) == (self.dataset is None):
            raise ValueError("needs either path or dataset")
        if self.target_pattern is not None and _groups(self.target_pattern) < 1:
            raise ValueError(f"target_pattern {self.target_pattern!r} is no regular expression with a group in parentheses")
        return self


def _groups(pattern: str) -> int:
    try:
        return re.compile(pattern).groups
    except re.error:
        return 0


SeedSource = Annotated[Source, BeforeValidator(lambda value: {"path": value} if isinstance(value, str) else value)]


class Verifier(Section):
    """How far a check of one answer may go, by the metrics math, json and code. Beyond it the answer is unknown, not wrong."""

    timeout_s: float = Field(4.0, gt=0, le=600, description="longest check, seconds of the clock", examples=[10.0])
    memory_mib: int = Field(1024, ge=256, description="most memory of a check", examples=[512])
    json_schema: str | None = Field(
        None, description="json: file with a JSON schema that answers must fit, too", examples=["answer.schema.json"]
    )


class Task(Section):
    """What the student is for."""

    seeds: SeedSource = Field(description="what the teacher is asked")
    eval_seeds: SeedSource = Field(description="held-out seeds with ground truth, never trained on")
    metric: Literal["label", "exact", "numeric", "math", "json", "code", "rouge_l", "chrf"] = Field(
        "exact", description="how an answer is held against the ground truth: docs/reference/metrics.md", examples=["numeric"]
    )
    verifier: Verifier = Verifier()
    labels: list[str] | None = Field(None, min_length=2, description="closed set of answers of a label task", examples=[["spam", "normal"]])

    @model_validator(mode="after")
    def labels_of_label(self) -> Self:
        if (self.metric == "label") != (self.labels is not None):
            raise ValueError("metric 'label' and a list of labels belong together")
        if self.verifier.json_schema is not None and self.metric != "json":
            raise ValueError("verifier.json_schema is for metric 'json'")
        plain = [label.strip().casefold() for label in self.labels or ()]
        if len(set(plain)) < len(plain) or "" in plain:
            raise ValueError("labels must differ in more than case, and none may be empty")
        return self


class Engine(Section):
    """How the in-process vLLM engine is run."""

    dtype: Literal["auto", "bfloat16", "float16", "float32"] = Field("auto", description="weights and activations", examples=["bfloat16"])
    fp32_head: bool = Field(True, description="compute logits in fp32: a bf16 head rounds logprobs to steps of 1/16 nat", examples=[False])
    max_model_len: int | None = Field(
        None, ge=16, description="prompt and completion together, tokens; null: the model's own", examples=[2048]
    )
    max_in_flight: int = runtime(256, ge=1, description="requests in the engine at once", examples=[512])
    kv_cache_gib: float | None = runtime(
        None, gt=0, description="key-value cache, GiB; null: 2 on a CPU, what fits on a GPU", examples=[4.0]
    )
    gpu_memory_utilization: float = runtime(0.9, gt=0, le=1, description="share of the GPU's memory that vLLM may take", examples=[0.8])
    tensor_parallel_size: int = runtime(1, ge=1, description="GPUs that share one copy of the model", examples=[2])
    enforce_eager: bool = runtime(False, description="no compilation: slower on long runs, starts at once", examples=[True])


class Teacher(Section):
    """The model that is asked, and how it is sampled."""

    backend: Literal["vllm", "openai", "fake"] = Field(
        "vllm", description="in-process vLLM, a running server, or the deterministic fake", examples=["openai"]
    )
    model: str = Field(description="hub id, local folder, or package:DISTRIBUTION/FILE.gguf", examples=["Qwen/Qwen2.5-7B-Instruct"])
    revision: str | None = Field(None, description="revision on the hub: pin it", examples=["v1.0"])
    base_url: str | None = runtime(None, description="openai: where the server answers", examples=["http://127.0.0.1:8000/v1"])
    api_key_env: str = runtime("OPENAI_API_KEY", description="openai: the environment variable that holds the key", examples=["MY_KEY"])
    tokenizer: str | None = Field(
        None, description="openai: folder or hub id of the server's tokenizer; needed for logprobs", examples=["Qwen/Qwen2.5-7B-Instruct"]
    )
    timeout_s: float = runtime(600.0, gt=0, description="longest wait for one answer, seconds; then it goes to errors/", examples=[60.0])
    retries: int = runtime(4, ge=0, description="openai: repeats of a request that a living server fails (5xx, time-out)", examples=[8])
    patience_s: float = runtime(300.0, ge=0, description="openai: longest wait for a lost or overloaded server, seconds", examples=[3600.0])
    restarts: int = runtime(
        2, ge=0, description="vllm: how often generate and score start an engine anew that died after some answers", examples=[10]
    )
    replies: list[str] | None = Field(None, min_length=1, description="fake: the texts it answers with", examples=[["spam", "normal"]])
    delay_s: float = runtime(0.0, ge=0, description="fake: how long a batch takes, seconds", examples=[0.1])
    temperature: float = Field(1.0, ge=0, le=2, description="0 is greedy", examples=[0.7])
    top_p: float = Field(1.0, gt=0, le=1, description="nucleus sampling", examples=[0.95])
    top_k: int = Field(0, ge=0, description="sample from the k likeliest only; 0 is off", examples=[40])
    max_tokens: int = Field(512, ge=1, description="longest completion, tokens", examples=[768])
    logprobs: int = Field(64, ge=0, le=4096, description="k of the top-k logprobs asked for each token; 0 asks for none", examples=[32])
    logprob_mass: float = Field(
        0.99, gt=0, le=1, description="entries are kept until they reach this probability; the rest is tail", examples=[0.95]
    )
    logprob_threshold: float = Field(
        0.0625, ge=0, le=0.5, description="less likely tokens are kept as random draws that stand for them all; 0: none", examples=[0.01]
    )
    engine: Engine = Engine()

    @model_validator(mode="after")
    def complete(self) -> Self:
        if self.backend == "openai" and self.base_url is None:
            raise ValueError("backend openai needs base_url")
        if self.backend == "openai" and self.logprobs and self.tokenizer is None:
            raise ValueError("logprobs from a server need its tokenizer (a folder or hub id); set it, or logprobs: 0")
        if self.backend == "fake" and self.replies is None:
            raise ValueError("backend fake needs replies")
        return self


class Licences(Section):
    """Terms of what a student is made from, held against the table of pipeline/licences.py; what is not declared is not judged."""

    teacher: str | None = runtime(None, description="licence of the teacher's weights, or terms of its service", examples=["apache-2.0"])
    seeds: str | None = runtime(None, description="licence of the seeds", examples=["cc-by-4.0"])
    acknowledge: list[str] = runtime(
        [],
        description="licences that forbid training, or are not known to allow it, which you have another right to",
        examples=[["openai-terms"]],
    )


PromptFiles = Annotated[list[str], Field(min_length=1), BeforeValidator(lambda value: [value] if isinstance(value, str) else value)]


class Generate(Section):
    """What the teacher is asked for."""

    prompt: PromptFiles = Field(
        description="the teacher's prompt file, or several: each seed is asked by every one", examples=[["prompts/word_problem.md"]]
    )
    samples: int = Field(1, ge=1, description="completions a seed and prompt", examples=[4])
    seed: int = Field(0, ge=0, description="every request's sampling seed is derived from it", examples=[7])
    shard_size: int = Field(512, ge=1, description="seeds a shard file", examples=[250])
    max_error_rate: float = runtime(0.1, ge=0, le=1, description="stop when more than this share of the requests fails", examples=[0.02])


class Score(Section):
    """Top-k logprobs of text that is already there, by prefill."""

    source: str = Field(
        "kept", description="kept (rows after filter), targets (the seeds' ground truth), or another run's folder", examples=["targets"]
    )
    logprobs: int = Field(64, ge=1, le=4096, description="k of the top-k logprobs asked of the engine for each token", examples=[32])


class Gate(Section):
    """What the student must reach; `pipeline evaluate` ends with exit code 2 and the threshold that it missed."""

    arm: str | None = Field(None, description="which arm is judged; null: the first", examples=["kd"])
    score: float | None = Field(None, ge=0, le=1, description="the task's metric, at least", examples=[0.9])
    retained: float | None = Field(None, ge=0, description="share of the teacher's score, at least", examples=[0.95])
    over: str | None = Field(None, description="a model that it must be better than, on the same held-out seeds", examples=["sft"])
    margin: float = Field(0.0, ge=-1, le=1, description="over: by more than this; below 0 it may be so much worse", examples=[0.01])
    gap: float | None = Field(None, ge=0, le=1, description="from the best group to the worst, at most", examples=[0.1])
    p95_s: float | None = Field(
        None, gt=0, description="latency that 95 % of the requests of evaluate.load stay under, seconds", examples=[0.5]
    )
    price_per_1000: float | None = Field(
        None, ge=0, description="price of 1,000 requests, at most; needs evaluate.price_per_hour", examples=[0.02]
    )
    ece: float | None = Field(None, ge=0, le=1, description="expected calibration error, at most", examples=[0.05])
    certain: bool = Field(False, description="score and over: the low end of the 95 % interval must reach it", examples=[True])


class Fidelity(Section):
    """How near the student is to the teacher on the teacher's own answers to the held-out seeds, which need no right answer."""

    logprobs: int = Field(
        64, ge=1, le=4096, description="k of the top-k logprobs that the teacher is asked for; the rest is one bucket", examples=[256]
    )
    batch_size: int = runtime(16, ge=1, description="answers of the teacher that a student reads at once", examples=[64])


class Load(Section):
    """Under what load latency and speed are measured, by held-out prompts: docs/how-to/cost.md."""

    requests: int = runtime(32, ge=1, description="held-out prompts that are asked, fewer where there are not so many", examples=[200])
    concurrency: int = runtime(4, ge=1, description="requests in flight at any time", examples=[16])


class Memorisation(Section):
    """Whether a student says its training rows word by word, when it is given how they begin, and knows the secrets of train.canaries."""

    rows: int = Field(100, ge=0, description="training rows that are tried, and as many unseen ones; 0: canaries alone", examples=[500])
    prefix: float = Field(0.5, ge=0, lt=1, description="share of a reply that the student is given, behind its prompt", examples=[0.25])
    tokens: int = Field(20, ge=1, description="so many in a row are verbatim; rows with fewer left are not taken", examples=[50])
    alternatives: int = Field(
        255, ge=1, description="other secrets that a canary is ranked among; 255 make 8 bits at most", examples=[1023]
    )
    seed: int = Field(0, ge=0, description="which rows and other secrets are drawn", examples=[1])


class LmEval(Section):
    """What was forgotten outside the task: tasks of EleutherAI's lm-eval, by name. Needs pipeline[lm-eval]."""

    tasks: list[str] = Field(min_length=1, description="tasks, groups or tags, as lm-eval names them", examples=[["arc_easy", "hellaswag"]])
    limit: int | None = Field(None, ge=1, description="only the first so many documents of each task; null: all", examples=[200])
    examples: int | None = Field(None, ge=0, description="solved examples in the prompt (few-shot); null: as the task says", examples=[5])
    include_path: str | None = Field(None, description="folder with tasks of your own, as YAML files", examples=["tasks"])
    batch_size: int = runtime(8, ge=1, description="requests that the harness runs at once", examples=[64])


class Evaluate(Section):
    """How teacher, untouched student and every arm answer the held-out seeds."""

    max_tokens: int = Field(512, ge=1, description="longest answer, tokens", examples=[768])
    backend: Literal["vllm", "fake"] = Field("vllm", description="what runs the students; the teacher keeps its own", examples=["fake"])
    engine: Engine = Engine()
    also: list[Literal["exact", "numeric", "rouge_l", "chrf"]] = Field(
        [], description="metrics beside task.metric, from the stored answers: nobody is asked anew", examples=[["rouge_l", "chrf"]]
    )
    fidelity: Fidelity | None = Field(None, description="compare every student with the teacher's logprobs and text; {} turns it on")
    load: Load | None = runtime(Load(), description="latency and speed of every model under a stated load; null: not measured")
    price_per_hour: float | None = runtime(
        None, ge=0, description="what the machine costs an hour, in any currency: gives the price of 1,000 requests", examples=[2.5]
    )
    memorisation: Memorisation | None = Field(None, description="verbatim training rows and canaries; {} turns it on")
    lm_eval: LmEval | None = Field(None, description="lm-eval tasks on teacher, untouched student and arms")
    gate: Gate | None = Field(None, description="what the student must reach")
