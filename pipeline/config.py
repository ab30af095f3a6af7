"""One YAML file a run: sections are stages, every key is typed and bounded, and a default lives here and nowhere else."""

import difflib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from pipeline.errors import PipelineError

Form = Literal["whole", "answer", "steps"]


def runtime(default: Any, **bounds: Any) -> Any:
    """A field that can change how fast a result comes but not the result: it stays out of fingerprints."""
    return Field(default, json_schema_extra={"runtime": True}, **bounds)


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


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


class Task(Section):
    """What the student is for."""

    seeds: SeedSource = Field(description="what the teacher is asked")
    eval_seeds: SeedSource = Field(description="held-out seeds with ground truth, never trained on")
    metric: Literal["label", "exact", "numeric"] = Field(
        "exact", description="how an answer is held against the ground truth", examples=["numeric"]
    )
    labels: list[str] | None = Field(None, min_length=2, description="closed set of answers of a label task", examples=[["spam", "normal"]])

    @model_validator(mode="after")
    def labels_of_label(self) -> Self:
        if (self.metric == "label") != (self.labels is not None):
            raise ValueError("metric 'label' and a list of labels belong together")
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


class Filter(Section):
    """Each filter by its name; see docs/filters.md for the reasons."""

    finished: bool = Field(True, description="drop what was cut off", examples=[False])
    min_tokens: int = Field(1, ge=0, description="shortest completion, tokens", examples=[2])
    max_tokens: int | None = Field(None, ge=1, description="longest completion, tokens", examples=[600])
    parseable: bool = Field(True, description="drop what has no readable answer, or no rationale where one is asked for", examples=[False])
    refusal: bool = Field(True, description="drop refusals", examples=[False])
    correct: bool = Field(True, description="drop answers that differ from the ground truth, where a seed has one", examples=[False])
    duplicate: bool = Field(True, description="drop exact repetitions of one input with one completion", examples=[False])


class Shape(Section):
    """Size of a randomly initialised student (for tests of the machinery)."""

    layers: int = Field(2, ge=1, description="transformer blocks", examples=[4])
    hidden: int = Field(64, ge=8, description="width of a token's state", examples=[128])
    heads: int = Field(2, ge=1, description="attention heads", examples=[4])


class Lora(Section):
    """Low-rank adapters (Hu et al. 2021): the model's own weights stay as they are, and the finished student has the adapters merged in."""

    rank: int = Field(16, ge=1, description="rank of each adapter", examples=[8])
    alpha: float = Field(32.0, gt=0, description="what an adapter adds is scaled by alpha / rank", examples=[16.0])
    dropout: float = Field(0.0, ge=0, lt=1, description="share of an adapter's inputs that is dropped in training", examples=[0.05])
    targets: list[str] | None = Field(
        None,
        min_length=1,
        description="names of the linear layers that get one; null: all but the lm_head",
        examples=[["q_proj", "v_proj"]],
    )
    quantise: Literal["4bit"] | None = Field(
        None, description="4bit: the model's own weights as NF4 in training (QLoRA); needs pipeline[qlora]", examples=["4bit"]
    )


class Student(Section):
    """Where the student's first weights come from, and which of them are trained."""

    model: str = Field(
        "teacher", description="teacher, random, hub id, folder, or package:DISTRIBUTION/FILE.gguf", examples=["Qwen/Qwen2.5-0.5B"]
    )
    revision: str | None = Field(None, description="revision on the hub: pin it", examples=["v1.0"])
    layers: int | None = Field(None, ge=1, description="how many of that model's layers are kept; null: all", examples=[8])
    choose: Literal["even", "importance"] = Field(
        "even", description="which: evenly spaced with first and last, or those that change their input most", examples=["importance"]
    )
    keep_layers: list[Annotated[int, Field(ge=0)]] | None = Field(
        None, min_length=1, description="the layers kept of that model by number, counted from 0; this or layers", examples=[[0, 2, 4, 6]]
    )
    trim_vocabulary: bool = Field(
        False, description="keep only the tokens that the task's data uses, and those that spell every other text", examples=[True]
    )
    shape: Shape = Shape()
    lora: Lora | None = Field(None, description="adapters are trained instead of the model's own weights; null: all weights are trained")

    @model_validator(mode="after")
    def layers_once(self) -> Self:
        if self.keep_layers is not None and len(set(self.keep_layers)) < len(self.keep_layers):
            raise ValueError("keep_layers names a layer twice")
        if self.keep_layers is not None and self.layers is not None:
            raise ValueError("layers and keep_layers both say which layers are kept; take one of them out")
        if self.choose == "importance" and self.layers is None:
            raise ValueError("choose: importance needs layers, how many are kept; set it, or take choose out")
        if self.model == "random" and (self.keep_layers is not None or self.layers is not None):
            raise ValueError("a random student has as many layers as shape.layers says; set that instead of layers or keep_layers")
        if self.model == "teacher" and self.revision is not None:
            raise ValueError("revision is for a model of its own; that of the teacher is teacher.revision")
        return self


class Arm(Section):
    """One way of training, compared with the others on identical rows."""

    method: Literal["sft", "kd"] = Field(
        "kd", description="cross-entropy on the teacher's text, or with its distributions", examples=["sft"]
    )
    text: Literal["teacher", "truth"] = Field(
        "teacher", description="whose replies it learns: the teacher's kept ones, or the seeds' ground truth (sft)", examples=["truth"]
    )
    limit: int | None = Field(None, ge=1, description="only the first so many samples or seeds", examples=[200])
    epochs: float | None = Field(None, gt=0, description="passes over its rows; null: train.epochs", examples=[3.0])
    learning_rate: float | None = Field(None, gt=0, description="highest step size; null: train.learning_rate", examples=[1e-4])
    seed: int | None = Field(
        None, ge=0, description="order of the rows; null: train.seed. Arms that differ in it alone are repeats", examples=[1]
    )
    form: Form = Field(
        "whole",
        description="the reply as it stands, its answer alone, or step by step: answer and rationale as two tasks",
        examples=["steps"],
    )
    rationale_weight: float = Field(1.0, ge=0, description="weight of a rationale's tokens; an answer's have 1", examples=[0.5])
    corrected: bool = Field(
        False, description="where the teacher is wrong, the ground truth stands in, as the prompt's target: writes it", examples=[True]
    )
    alpha: float = Field(
        0.1, ge=0, le=1, description="kd: weight of the cross-entropy; 1 - alpha is that of the divergence", examples=[0.5]
    )
    alpha_end: float | None = Field(
        None, ge=0, le=1, description="kd: alpha at the end of training, reached in a straight line; null: constant", examples=[0.0]
    )
    temperature: float = Field(1.0, gt=0, le=10, description="kd: softens both distributions; exact only at 1", examples=[2.0])
    temperature_end: float | None = Field(
        None, gt=0, le=10, description="kd: temperature at the end of training, reached in a straight line; null: constant", examples=[1.0]
    )
    divergence: Literal["forward_kl", "reverse_kl", "jsd", "skew_kl", "total_variation"] = Field(
        "forward_kl", description="kd: how the student's distribution is held against the teacher's", examples=["reverse_kl"]
    )
    beta: float = Field(0.5, gt=0, lt=1, description="kd: the teacher's share of the mixture of jsd and skew_kl", examples=[0.1])
    tail: Literal["bucket", "renormalise"] = Field(
        "bucket", description="kd: what lies outside the stored entries counts as one entry, or is left out", examples=["renormalise"]
    )

    @model_validator(mode="after")
    def truth_is_text(self) -> Self:
        if self.text == "truth" and (self.method == "kd" or self.corrected):
            raise ValueError("text: truth has no logprobs and nothing to correct; use method: sft without corrected, or text: teacher")
        return self


class Train(Section):
    """How the student learns."""

    prompt: str = Field(description="the student's prompt file: what it will see in use", examples=["prompts/word_problem.md"])
    rows: Literal["filter", "score"] = Field("filter", description="which stage's rows and logprobs it learns from", examples=["score"])
    arms: dict[str, Arm] = Field({"kd": Arm(), "sft": Arm(method="sft")}, min_length=1, description="settings of each arm, by its name")
    epochs: float = Field(1.0, gt=0, description="passes over the kept rows", examples=[2.0])
    learning_rate: float = Field(2e-4, gt=0, description="highest step size, reached after the warm-up", examples=[1e-4])
    schedule: Literal["linear", "cosine", "constant"] = Field("cosine", description="learning rate after the warm-up", examples=["linear"])
    warmup: float = Field(0.05, ge=0, lt=1, description="share of the steps over which the learning rate rises", examples=[0.1])
    weight_decay: float = Field(0.0, ge=0, description="share of a weight taken off each step, times the learning rate", examples=[0.01])
    batch_size: int = Field(16, ge=1, description="rows a device and step", examples=[8])
    accumulate: int = Field(1, ge=1, description="batches an optimiser step", examples=[4])
    max_length: int = Field(1024, ge=8, description="longest row, tokens; a longer one is refused, not cut", examples=[512])
    packing: bool = Field(
        False, description="fill rows of max_length with several samples (best fit decreasing) that do not see one another", examples=[True]
    )
    group_by_length: bool = Field(False, description="batches of rows of about one length: less padding", examples=[True])
    dtype: Literal["auto", "bfloat16", "float32"] = Field(
        "auto", description="precision; auto is bfloat16 autocast on a GPU, float32 on a CPU", examples=["float32"]
    )
    gradient_checkpointing: bool = runtime(False, description="less memory, more time", examples=[True])
    processes: int | None = Field(
        None, ge=1, description="training processes, each with its own batch and GPU; null: one a GPU, or 1 without", examples=[2]
    )
    holdout: float = Field(
        0.0, ge=0, lt=1, description="share of the seeds whose rows are held out of every arm, to watch the loss on", examples=[0.05]
    )
    eval_steps: int = Field(100, ge=1, description="optimiser steps between looks at the held-out rows", examples=[25])
    patience: int | None = Field(
        None,
        ge=1,
        description="stop after so many looks without improvement, and keep the best weights; null: all epochs, the last weights",
        examples=[3],
    )
    best_by: Literal["loss", "score"] = Field(
        "loss",
        description="what patience watches: the held-out loss, or the score of the student's own answers to held-out seeds (up to 200)",
        examples=["score"],
    )
    show: int = runtime(0, ge=0, description="held-out seeds that the student answers at every look, for samples.jsonl", examples=[4])
    seed: int = Field(0, ge=0, description="order of the rows, and whatever else is drawn", examples=[7])
    save_steps: int = runtime(200, ge=1, description="optimiser steps between checkpoints", examples=[50])
    log_steps: int = runtime(5, ge=1, description="optimiser steps between logged lines", examples=[1])
    report_to: list[str] = runtime(["tensorboard"], description="trackers, as transformers names them", examples=[["wandb"]])

    @model_validator(mode="after")
    def one_order(self) -> Self:
        if self.packing and self.group_by_length:
            raise ValueError("packing leaves nothing to group: set either packing or group_by_length")
        return self

    @model_validator(mode="after")
    def something_held_out(self) -> Self:
        if not self.holdout and (self.patience or self.show):
            raise ValueError(f"{'patience' if self.patience else 'show'} needs held-out rows; set holdout, such as 0.05")
        if self.best_by == "score" and not self.patience:
            raise ValueError("best_by: score chooses nothing without patience; set patience, such as 3, or leave best_by out")
        return self

    @model_validator(mode="after")
    def arm_names(self) -> Self:
        for name in self.arms:
            if name in ("init", "teacher", "base") or not name.replace("-", "").replace("_", "").isalnum():
                raise ValueError(f"'{name}' cannot name an arm; use letters, digits, - and _, and not init, teacher or base")
        return self


class Evaluate(Section):
    """How teacher, untouched student and every arm answer the held-out seeds."""

    max_tokens: int = Field(512, ge=1, description="longest answer, tokens", examples=[768])
    backend: Literal["vllm", "fake"] = Field("vllm", description="what runs the students; the teacher keeps its own", examples=["fake"])
    engine: Engine = Engine()


class Config(Section):
    """A whole run. Paths are relative to the folder in which the command is given."""

    run_dir: str = Field(
        json_schema_extra={"default": "runs/CONFIG"},
        description="everything the run makes; CONFIG is the file's name",
        examples=["runs/warm"],
    )
    task: Task
    teacher: Teacher
    generate: Generate
    filter: Filter = Filter()
    score: Score = Score()
    student: Student = Student()
    train: Train
    evaluate: Evaluate = Evaluate()

    @model_validator(mode="after")
    def sections_agree(self) -> Self:
        if self.teacher.temperature == 0 and self.generate.samples > 1:
            raise ValueError("generate.samples above 1 at teacher.temperature 0 would give the same text again; raise the temperature")
        if self.evaluate.backend == "fake" and self.teacher.replies is None:
            raise ValueError("evaluate.backend fake answers with teacher.replies; set them")
        needs = [name for name, arm in self.train.arms.items() if arm.method == "kd"]
        if needs and self.teacher.logprobs == 0 and self.train.rows == "filter":
            raise ValueError(
                f"arm {needs[0]} is kd and needs teacher.logprobs of 1 or more; set it, set train.rows: score, or train sft arms only"
            )
        corrected = [name for name, arm in self.train.arms.items() if arm.corrected]
        if corrected and self.filter.correct and (self.train.rows == "filter" or self.score.source == "kept"):
            raise ValueError(f"arm {corrected[0]} is corrected, but filter.correct drops what is wrong before; set filter.correct: false")
        return self

    def settings(self, *paths: str) -> dict[str, Any]:
        """The values under `paths` (such as "teacher" or "task.seeds") that can change a result, flat, by dotted key."""
        return {
            key: getattr(section, name)
            for key, section, name in _walk(self)
            if any(key == path or key.startswith(path + ".") for path in paths) and not _is_runtime(section, name)
        }


def _walk(section: BaseModel, prefix: str = "") -> Iterator[tuple[str, BaseModel, str]]:
    """(dotted key, section, field name) of every leaf."""
    for name in type(section).model_fields:
        value = getattr(section, name)
        if isinstance(value, BaseModel):
            yield from _walk(value, f"{prefix}{name}.")
        elif isinstance(value, dict):
            for key, arm in value.items():
                yield from _walk(arm, f"{prefix}{name}.{key}.")
        else:
            yield f"{prefix}{name}", section, name


def _is_runtime(section: BaseModel, name: str) -> bool:
    extra = type(section).model_fields[name].json_schema_extra
    return isinstance(extra, dict) and bool(extra.get("runtime"))


def load(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Read and check one config file; each override is "key.sub=value". Raises PipelineError with the key at fault."""
    return _resolve(Path(path), overrides)[0]


def describe(path: str | Path, overrides: Sequence[str] = ()) -> list[tuple[str, Any, str]]:
    """(key, resolved value, where it came from) of every key: "file", "command line" or "default"."""
    config, given, commanded = _resolve(Path(path), overrides)

    def origin(key: str) -> str:
        return "command line" if key in commanded else "file" if _given(given, key) else "default"

    return [(key, getattr(section, name), origin(key)) for key, section, name in _walk(config)]


def _given(tree: Any, key: str) -> bool:
    for part in key.split("."):
        if not isinstance(tree, dict):
            return part == "path"  # the shorthand of a source
        if part not in tree:
            return False
        tree = tree[part]
    return True


def _resolve(path: Path, overrides: Sequence[str]) -> tuple[Config, dict[str, Any], list[str]]:
    tree = _read_yaml(path)
    if any(text.startswith("train.arms.") for text in overrides) and isinstance(tree.get("train"), dict):
        # an override of one default arm must leave the others as they are
        default: dict[str, Arm] = Train.model_fields["arms"].default
        tree["train"].setdefault("arms", {name: arm.model_dump(exclude_defaults=True) for name, arm in default.items()})
    commanded = [_override(tree, text) for text in overrides]
    try:
        return Config.model_validate({"run_dir": f"runs/{path.stem}", **tree}), tree, commanded
    except ValidationError as error:
        raise PipelineError(_explain(path, error)) from None


class _Loader(yaml.SafeLoader):
    """YAML that also reads 1e-5 as a number, as everybody writes it."""


_Loader.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789"))


def _parse(text: str) -> Any:
    return yaml.load(text, _Loader)


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        tree = _parse(path.read_text(encoding="utf-8-sig"))
    except UnicodeDecodeError as error:
        raise PipelineError(f"{path}: not UTF-8 ({error.reason} at byte {error.start}); save the file as UTF-8") from None
    except OSError as error:
        raise PipelineError(
            f"{path}: cannot be read ({error.strerror}); give the path of a config such as configs/quickstart.yaml"
        ) from None
    except (yaml.YAMLError, ValueError) as error:
        raise PipelineError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(tree, dict):
        raise PipelineError(f"{path}: holds no sections; start from a copy of configs/quickstart.yaml")
    return tree


def _override(tree: dict[str, Any], text: str) -> str:
    """Put "key.sub=value" into the tree; the value is read as YAML. Returns the key."""
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise PipelineError(f"command line: '{text}' is not key.sub=value; for example teacher.temperature=0.7")
    *parents, leaf = key.split(".")
    for parent in parents:
        below = tree.setdefault(parent, {})
        if isinstance(below, str) and parent in ("seeds", "eval_seeds"):
            below = tree[parent] = {"path": below}
        if not isinstance(below, dict):
            raise PipelineError(f"command line: {key}: {parent} is a value, not a section")
        tree = below
    try:
        tree[leaf] = _parse(value)
    except (yaml.YAMLError, ValueError):
        raise PipelineError(f"command line: {key}: '{value}' is not a YAML value; quote it") from None
    return key


def _explain(path: Path, error: ValidationError) -> str:
    lines = []
    for item in error.errors():
        key = ".".join(str(part) for part in item["loc"])
        if item["type"] == "extra_forbidden":
            lines.append(f"{path}: {key}: unknown key; {_suggest(item['loc'])}")
        elif item["type"] == "missing":
            lines.append(f"{path}: {key}: missing; set it in the file or give {key}=… on the command line")
        elif item["type"] == "value_error":
            lines.append(f"{path}: {key + ': ' if key else ''}{item['ctx']['error']}")
        else:
            hint = "; put it in quotes" if item["type"] == "string_type" else ""
            lines.append(f"{path}: {key}: {item['msg']}, got {item['input']!r}{hint}")
    return "\n".join(lines)


def _suggest(loc: tuple[int | str, ...]) -> str:
    """What the unknown key at `loc` was probably meant to be."""
    section: type[BaseModel] = Config
    for part in loc[:-1]:
        field = section.model_fields.get(str(part))
        if field is None:
            section = Arm  # below train.arms.<name>
            continue
        held = (field.annotation, *get_args(field.annotation))
        section = next((item for item in held if isinstance(item, type) and issubclass(item, BaseModel)), section)
    known = list(section.model_fields)
    close = difflib.get_close_matches(str(loc[-1]), known, n=1, cutoff=0.5)
    prefix = "".join(f"{part}." for part in loc[:-1])
    return f"did you mean {prefix}{close[0]}?" if close else f"known here: {', '.join(known)}"
