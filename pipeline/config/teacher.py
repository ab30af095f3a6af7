"""Settings of the teacher, its engine and the licences."""

from typing import Literal, Self

from pydantic import Field, model_validator

from pipeline.config.base import Section, runtime


class Engine(Section):
    """How the in-process vLLM engine runs."""

    dtype: Literal["auto", "bfloat16", "float16", "float32"] = Field("auto", examples=["bfloat16"])
    """Type of weights and activations."""
    fp32_head: bool = Field(True, examples=[False])
    """Compute logits in fp32. A bf16 head rounds logprobs to steps of 1/16 nat."""
    max_model_len: int | None = Field(None, ge=16, examples=[2048])
    """Longest prompt and completion together, in tokens. null: the model's own limit."""
    max_in_flight: int = runtime(256, ge=1, examples=[512])
    """Requests in the engine at once."""
    kv_cache_gib: float | None = runtime(None, gt=0, examples=[4.0])
    """Size of the key-value cache, in GiB. null: 2 on a CPU; on a GPU, all that fits."""
    gpu_memory_utilization: float = runtime(0.9, gt=0, le=1, examples=[0.8])
    """Share of the GPU's memory that vLLM may use."""
    tensor_parallel_size: int = runtime(1, ge=1, examples=[2])
    """GPUs that share one copy of the model."""
    enforce_eager: bool = runtime(False, examples=[True])
    """Do not compile the model: faster to start, but slower on long runs."""


class Teacher(Section):
    """The model that writes the training data, and how it is sampled."""

    backend: Literal["vllm", "openai", "fake"] = Field("vllm", examples=["openai"])
    """In-process vLLM, an OpenAI-compatible server, or the deterministic fake."""
    model: str = Field(examples=["Qwen/Qwen2.5-7B-Instruct"])
    """Hub id, local folder, or package:DISTRIBUTION/FILE.gguf."""
    revision: str | None = Field(None, examples=["v1.0"])
    """Revision on the hub; pin it."""
    base_url: str | None = runtime(None, examples=["http://127.0.0.1:8000/v1"])
    """openai: the server's address."""
    api_key_env: str = runtime("OPENAI_API_KEY", examples=["MY_KEY"])
    """openai: environment variable with the server's key."""
    tokenizer: str | None = Field(None, examples=["Qwen/Qwen2.5-7B-Instruct"])
    """openai: folder or hub id of the server's tokenizer; needed for logprobs."""
    timeout_s: float = runtime(600.0, gt=0, examples=[60.0])
    """Longest wait for one answer, in seconds. A request that takes longer is stored in errors/."""
    retries: int = runtime(4, ge=0, examples=[8])
    """openai: how often a request that fails on a living server (5xx, timeout) is repeated."""
    patience_s: float = runtime(300.0, ge=0, examples=[3600.0])
    """openai: longest wait for a lost or overloaded server, in seconds."""
    restarts: int = runtime(2, ge=0, examples=[10])
    """vllm: how often generate and score restart an engine that died after some answers."""
    replies: list[str] | None = Field(None, min_length=1, examples=[["spam", "normal"]])
    """fake: the replies."""
    delay_s: float = runtime(0.0, ge=0, examples=[0.1])
    """fake: time per batch, in seconds."""
    temperature: float = Field(1.0, ge=0, le=2, examples=[0.7])
    """Sampling temperature. 0 is greedy."""
    top_p: float = Field(1.0, gt=0, le=1, examples=[0.95])
    """Nucleus sampling: sample from the most likely tokens with this probability together."""
    top_k: int = Field(0, ge=0, examples=[40])
    """Sample from the k most likely tokens only. 0 is off."""
    max_tokens: int = Field(512, ge=1, examples=[768])
    """Longest completion, in tokens."""
    logprobs: int = Field(64, ge=0, le=4096, examples=[32])
    """k of the top-k logprobs for each token. 0: none."""
    logprob_mass: float = Field(0.99, gt=0, le=1, examples=[0.95])
    """Entries are stored until their probabilities add up to this; the rest is the tail."""
    logprob_threshold: float = Field(0.0625, ge=0, le=0.5, examples=[0.01])
    """Less likely tokens are stored as random draws that represent all of them. 0: no draws."""
    engine: Engine = Engine()

    @model_validator(mode="after")
    def complete(self) -> Self:
        if self.backend == "openai" and self.base_url is None:
            raise ValueError("backend openai needs base_url")
        if self.backend == "openai" and self.logprobs and self.tokenizer is None:
            raise ValueError(
                "logprobs from a server need its tokenizer (a folder or hub id); "
                "set it, or logprobs: 0"
            )
        if self.backend == "fake" and self.replies is None:
            raise ValueError("backend fake needs replies")
        return self


class Licences(Section):
    """Terms of the student's sources, compared with the table of pipeline/data/licences.yaml.

    A licence that is not declared is not checked.
    """

    teacher: str | None = runtime(None, examples=["apache-2.0"])
    """Licence of the teacher's weights, or terms of its service."""
    seeds: str | None = runtime(None, examples=["cc-by-4.0"])
    """Licence of the examples."""
    acknowledge: list[str] = runtime([], examples=[["openai-terms"]])
    """Licences that forbid training, or may forbid it, for which you have another permission."""
