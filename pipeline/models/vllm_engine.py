"""In-process vLLM: a continuous feed, flat logprobs, token ids in and out. The only file that imports vllm."""

import itertools
import logging
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.config import Engine
from pipeline.errors import PipelineError
from pipeline.models import Completion, Facts, RawTopK, Request, Sampling, locate
from pipeline.models.tokenizer import Tokenizer
from pipeline.models.weights import load_config
from pipeline.records import Usage

CPU_KV_CACHE_GIB = 2.0
CPU_MAX_LEN = 8192  # without chunked prefill a CPU's batch must hold the longest prompt whole
CPU_BLOCK_SIZE = 32  # tokens; a shared prefix is cached in whole blocks, and vLLM's 128 leaves much of it to be made again
SMALL_MACHINE_CORES = 4
# Reads until whoever started it is gone, then ends the engine's processes: a killed driver would leave them, and their GPU memory, behind.
WATCHDOG = """
import sys, psutil
sys.stdin.buffer.read()
for pid, born in (pair.split("@") for pair in sys.argv[1:]):
    try:
        process = psutil.Process(int(pid))
        if repr(process.create_time()) == born:
            process.kill()
    except psutil.NoSuchProcess:
        pass
"""


class VllmModel:
    """A model served by vLLM inside this process. What the engine's own processes print goes to the file `log`."""

    def __init__(self, name: str, revision: str | None, engine: Engine, k: int, log: Path):
        path = locate.resolve(name)
        self.tokenizer = Tokenizer(path, revision)
        self._max_in_flight = engine.max_in_flight
        self._log = log
        self._llm = _start(path, revision, engine, k, log)
        self._watchdog = _watch()
        self.facts = Facts(
            name, revision, "raw_logprobs", "float32" if engine.fp32_head else str(self._llm.model_config.dtype), f"vllm {_version()}"
        )

    def generate(self, requests: Iterable[Request], sampling: Sampling) -> Iterator[list[Completion]]:
        engine = self._llm.llm_engine
        stops = self._stops(sampling)
        waiting = iter(requests)
        prompts: dict[str, int] = {}  # prompt tokens by request id
        room = 1  # the first request goes alone, so that what prompts share is cached before the others come
        while True:
            for request in itertools.islice(waiting, max(0, room - len(prompts))):
                assert request.token_ids is not None
                self._add(request, sampling, stops)
                prompts[request.id] = len(request.token_ids)
            if not prompts:
                return
            outputs = self._step(engine)
            room = self._max_in_flight
            yield [self._completion(output, prompts.pop(output.request_id), sampling) for output in outputs if output.finished]

    def close(self) -> None:
        self._llm.llm_engine.engine_core.shutdown()
        self._watchdog.kill()
        self._watchdog.wait()

    def _add(self, request: Request, sampling: Sampling, stops: dict[str, Any]) -> None:
        try:
            self._llm.llm_engine.add_request(request.id, {"prompt_token_ids": request.token_ids}, _params(sampling, stops, request.seed))
        except Exception as error:  # which one depends on the version of vLLM
            raise PipelineError(f"request {request.id}: vLLM refuses it: {_first_line(error)}") from error

    def _step(self, engine: Any) -> list[Any]:
        try:
            return engine.step()
        except KeyboardInterrupt:
            raise
        except Exception as error:  # whatever kills the engine ends the stage; what is durable stays
            raise PipelineError(
                f"vLLM's engine died: {_first_line(error)}; its own words are in {self._log}. The same command goes on from here"
            ) from error

    def _stops(self, sampling: Sampling) -> dict[str, Any]:
        """Where to stop. One ASCII character always lies within one token, so it is matched by the ids of all tokens that hold it, without
        detokenising, which is faster; longer texts can be spread over tokens and need the text."""
        if all(len(stop) == 1 and stop.isascii() for stop in sampling.stop):
            return {"detokenize": False, "stop_token_ids": [token for stop in sampling.stop for token in self.tokenizer.containing(stop)]}
        return {"detokenize": True, "stop": list(sampling.stop), "include_stop_str_in_output": True}

    def _completion(self, output: Any, prompt_tokens: int, sampling: Sampling) -> Completion:
        result = output.outputs[0]
        ids = list(result.token_ids)
        topk = None
        if sampling.logprobs:
            flat, shape = result.logprobs, (len(ids), sampling.logprobs + 1)
            if len(flat.token_ids) != shape[0] * shape[1]:
                raise PipelineError(
                    f"vLLM gave {len(flat.token_ids)} logprobs where {shape[0]} x {shape[1]} were asked for; lower teacher.logprobs"
                )
            topk = RawTopK(np.array(flat.token_ids, np.int32).reshape(shape), np.array(flat.logprobs, np.float32).reshape(shape))
            assert topk.ids[:, 0].tolist() == ids, output.request_id
        return Completion(
            output.request_id,
            self.tokenizer.decode(ids),
            ids,
            result.finish_reason,
            Usage(prompt_tokens=prompt_tokens, completion_tokens=len(ids)),
            topk,
        )


def _params(sampling: Sampling, stops: dict[str, Any], seed: int | None) -> Any:
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    return SamplingParams(
        max_tokens=sampling.max_tokens,
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        top_k=sampling.top_k,
        seed=seed if sampling.temperature > 0 else None,
        logprobs=sampling.logprobs or None,
        flat_logprobs=sampling.logprobs > 0,
        output_kind=RequestOutputKind.FINAL_ONLY,
        **stops,
    )


def _start(path: str, revision: str | None, engine: Engine, k: int, log: Path) -> Any:
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    if (os.cpu_count() or 1) <= SMALL_MACHINE_CORES:
        os.environ.setdefault("VLLM_CPU_NUM_OF_RESERVED_CPU", "0")
    try:
        from vllm import LLM
        from vllm.platforms import current_platform
    except ImportError as error:
        raise PipelineError(
            f"vllm cannot be imported ({error}); run make setup, or pip install 'pipeline[cpu]' or 'pipeline[gpu]'"
        ) from None
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
    if current_platform.is_cpu():
        options.update(_cpu_options(path, revision, engine))
    try:
        with _output_to(log):
            llm = LLM(**options)
    except (RuntimeError, ValueError, OSError) as error:
        raise PipelineError(f"{path}: vLLM cannot start with it: {_first_line(error)}; its own words are in {log}") from error
    logging.getLogger("vllm").setLevel(logging.ERROR)  # from here on it speaks in this process
    return llm


@contextmanager
def _output_to(log: Path) -> Iterator[None]:
    """Send stdout and stderr to a file; processes that are started meanwhile keep them."""
    sys.stdout.flush()
    sys.stderr.flush()
    saved = [os.dup(stream) for stream in (1, 2)]
    with log.open("ab") as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    try:
        yield
    finally:
        for stream, copy in zip((1, 2), saved, strict=True):
            os.dup2(copy, stream)
            os.close(copy)


def _watch() -> subprocess.Popen[bytes]:
    """Start the watchdog over all processes that this one has started."""
    import psutil

    engine = [f"{child.pid}@{child.create_time()!r}" for child in psutil.Process().children(recursive=True)]
    return subprocess.Popen([sys.executable, "-c", WATCHDOG, *engine], stdin=subprocess.PIPE, start_new_session=True)


def _cpu_options(path: str, revision: str | None, engine: Engine) -> dict[str, Any]:
    """On a CPU, seeded sampling kills an engine that prefills in chunks, so prompts are prefilled whole."""
    longest = getattr(load_config(path, revision), "max_position_embeddings", CPU_MAX_LEN)
    max_len = engine.max_model_len or min(longest, CPU_MAX_LEN)
    return {
        "max_model_len": max_len,
        "enable_chunked_prefill": False,
        "block_size": CPU_BLOCK_SIZE,
        "max_num_batched_tokens": max(4096, max_len),
        "kv_cache_memory_bytes": int((engine.kv_cache_gib or CPU_KV_CACHE_GIB) * 2**30),
    }


def _version() -> str:
    import vllm

    return str(vllm.__version__)


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
