"""The sections on what is asked: the task, its seeds, the teacher and its engine."""

from typing import Literal, Self

from pydantic import Field, model_validator

from pipeline.config.base import Section, runtime


class Engine(Section):
    """How the in-process vLLM engine is run."""

    dtype: Literal["auto", "bfloat16", "float16", "float32"] = Field(
        "auto", description="weights and activations", examples=["bfloat16"]
    )
    fp32_head: bool = Field(
        True,
        description="compute logits in fp32: a bf16 head rounds logprobs to steps of 1/16 nat",
        examples=[False],
    )
    max_model_len: int | None = Field(
        None,
        ge=16,
        description="prompt and completion together, tokens; null: the model's own",
        examples=[2048],
    )
    max_in_flight: int = runtime(
        256, ge=1, description="requests in the engine at once", examples=[512]
    )
    kv_cache_gib: float | None = runtime(
        None,
        gt=0,
        description="key-value cache, GiB; null: 2 on a CPU, what fits on a GPU",
        examples=[4.0],
    )
    gpu_memory_utilization: float = runtime(
        0.9, gt=0, le=1, description="share of the GPU's memory that vLLM may take", examples=[0.8]
    )
    tensor_parallel_size: int = runtime(
        1, ge=1, description="GPUs that share one copy of the model", examples=[2]
    )
    enforce_eager: bool = runtime(
        False, description="no compilation: slower on long runs, starts at once", examples=[True]
    )


class Teacher(Section):
    """The model that is asked, and how it is sampled."""

    backend: Literal["vllm", "openai", "fake"] = Field(
        "vllm",
        description="in-process vLLM, a running server, or the deterministic fake",
        examples=["openai"],
    )
    model: str = Field(
        description="hub id, local folder, or package:DISTRIBUTION/FILE.gguf",
        examples=["Qwen/Qwen2.5-7B-Instruct"],
    )
    revision: str | None = Field(None, description="revision on the hub: pin it", examples=["v1.0"])
    base_url: str | None = runtime(
        None, description="openai: where the server answers", examples=["http://127.0.0.1:8000/v1"]
    )
    api_key_env: str = runtime(
        "OPENAI_API_KEY",
        description="openai: the environment variable that holds the key",
        examples=["MY_KEY"],
    )
    tokenizer: str | None = Field(
        None,
        description="openai: folder or hub id of the server's tokenizer; needed for logprobs",
        examples=["Qwen/Qwen2.5-7B-Instruct"],
    )
    timeout_s: float = runtime(
        600.0,
        gt=0,
        description="longest wait for one answer, seconds; then it goes to errors/",
        examples=[60.0],
    )
    retries: int = runtime(
        4,
        ge=0,
        description="openai: repeats of a request that a living server fails (5xx, time-out)",
        examples=[8],
    )
    patience_s: float = runtime(
        300.0,
        ge=0,
        description="openai: longest wait for a lost or overloaded server, seconds",
        examples=[3600.0],
    )
    restarts: int = runtime(
        2,
        ge=0,
        description="vllm: how often generate and score start an engine anew that died after some answers",
        examples=[10],
    )
    replies: list[str] | None = Field(
        None,
        min_length=1,
        description="fake: the texts it answers with",
        examples=[["spam", "normal"]],
    )
    delay_s: float = runtime(
        0.0, ge=0, description="fake: how long a batch takes, seconds", examples=[0.1]
    )
    temperature: float = Field(1.0, ge=0, le=2, description="0 is greedy", examples=[0.7])
    top_p: float = Field(1.0, gt=0, le=1, description="nucleus sampling", examples=[0.95])
    top_k: int = Field(
        0, ge=0, description="sample from the k likeliest only; 0 is off", examples=[40]
    )
    max_tokens: int = Field(512, ge=1, description="longest completion, tokens", examples=[768])
    logprobs: int = Field(
        64,
        ge=0,
        le=4096,
        description="k of the top-k logprobs asked for each token; 0 asks for none",
        examples=[32],
    )
    logprob_mass: float = Field(
        0.99,
        gt=0,
        le=1,
        description="entries are kept until they reach this probability; the rest is tail",
        examples=[0.95],
    )
    logprob_threshold: float = Field(
        0.0625,
        ge=0,
        le=0.5,
        description="less likely tokens are kept as random draws that stand for them all; 0: none",
        examples=[0.01],
    )
    engine: Engine = Engine()

    @model_validator(mode="after")
    def complete(self) -> Self:
        if self.backend == "openai" and self.base_url is None:
            raise ValueError("backend openai needs base_url")
        if self.backend == "openai" and self.logprobs and self.tokenizer is None:
            raise ValueError(
                "logprobs from a server need its tokenizer (a folder or hub id); set it, or logprobs: 0"
            )
        if self.backend == "fake" and self.replies is None:
            raise ValueError("backend fake needs replies")
        return self


class Licences(Section):
    """Terms of what a student is made from, held against the table of pipeline/data/licences.yaml; what is not declared is not judged."""

    teacher: str | None = runtime(
        None,
        description="licence of the teacher's weights, or terms of its service",
        examples=["apache-2.0"],
    )
    seeds: str | None = runtime(None, description="licence of the seeds", examples=["cc-by-4.0"])
    acknowledge: list[str] = runtime(
        [],
        description="licences that forbid training, or are not known to allow it, which you have another right to",
        examples=[["openai-terms"]],
    )
