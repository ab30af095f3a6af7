"""The engine arguments of vLLM, from a config's `engine` section."""

import json
from typing import Any

from pipeline.config import Engine
from pipeline.models.weights import cpu_has_bfloat16, load_config

CPU_KV_CACHE_GIB = 2.0
# tokens; a CPU prefills a prompt in one piece, so its batch must have room for the longest one
CPU_MAX_LEN = 8192
# tokens; vLLM caches a shared prefix in whole blocks, and its default of 128 caches too little
CPU_BLOCK_SIZE = 32


def engine_options(
    path: str, revision: str | None, engine: Engine, k: int, on_cpu: bool
) -> dict[str, Any]:
    """Return vLLM's engine arguments for the model in `path`, with top-k logprobs."""
    options: dict[str, Any] = {
        "model": path,
        "revision": revision,
        "tokenizer_revision": revision,
        "dtype": engine.dtype,
        "max_logprobs": max(k, 1),
        "max_num_seqs": engine.max_in_flight,
        "max_model_len": engine.max_model_len,
        "tensor_parallel_size": engine.tensor_parallel_size,
        "enforce_eager": engine.enforce_eager,
        "gpu_memory_utilization": engine.gpu_memory_utilization,
        "enable_prefix_caching": True,
        "trust_remote_code": False,
        "disable_log_stats": True,
    }
    if engine.fp32_head:
        options["hf_overrides"] = {"head_dtype": "float32"}
    if engine.kv_cache_gib:
        options["kv_cache_memory_bytes"] = int(engine.kv_cache_gib * 2**30)
    if on_cpu:
        options.update(_cpu_options(path, revision, engine))
    return options


def command_line(options: dict[str, Any]) -> list[str]:
    """Write engine arguments as the options of vLLM's command line."""
    flags = []
    for key, value in options.items():
        flag = key.replace("_", "-")
        if isinstance(value, bool):
            flags.append(f"--{flag}" if value else f"--no-{flag}")
        elif value is not None:
            flags += [f"--{flag}", json.dumps(value) if isinstance(value, dict) else str(value)]
    return flags


def _cpu_options(path: str, revision: str | None, engine: Engine) -> dict[str, Any]:
    """Return the engine arguments that differ on a CPU.

    Seeded sampling kills a CPU engine that prefills in chunks, so prompts are prefilled whole.
    """
    native = cpu_has_bfloat16()
    longest = getattr(load_config(path, revision), "max_position_embeddings", CPU_MAX_LEN)
    max_len = engine.max_model_len or min(longest, CPU_MAX_LEN)
    return {
        "dtype": "float32" if engine.dtype == "auto" and not native else engine.dtype,
        "max_model_len": max_len,
        "enable_chunked_prefill": False,
        "block_size": CPU_BLOCK_SIZE,
        "max_num_batched_tokens": max(4096, max_len),
        "kv_cache_memory_bytes": int((engine.kv_cache_gib or CPU_KV_CACHE_GIB) * 2**30),
    }
