"""In-process vLLM: a continuous feed, flat logprobs, token ids in and out. The only file that imports vllm."""

import dataclasses
import itertools
import json
import logging
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.config import Engine, Teacher
from pipeline.errors import EngineError, PipelineError
from pipeline.models import resolve
from pipeline.models.base import Answer, Completion, Facts, Failure, RawTopK, Request, Sampling
from pipeline.models.memory_usage import gpu_bytes_in_use, peak_of_processes, reset_peak
from pipeline.models.tokenizer import Tokenizer
from pipeline.models.watchdog import WATCHDOG
from pipeline.models.weights import load_config
from pipeline.records import FinishReason, Usage

CPU_KV_CACHE_GIB = 2.0
CPU_MAX_LEN = 8192  # without chunked prefill a CPU's batch must hold the longest prompt whole
CPU_BLOCK_SIZE = 32  # tokens; a shared prefix is cached in whole blocks, and vLLM's 128 leaves much of it to be made again
SMALL_MACHINE_CORES = 4
LIVENESS_SECONDS = 1.0  # between looks whether the engine that is waited for is there
LONG_PREFIX = 256  # tokens; less is made again sooner than waited for


class VllmModel:
    """A model served by vLLM inside this process. What the engine's own processes print goes to the file `log`."""

    def __init__(
        self,
        name: str,
        revision: str | None,
        engine: Engine,
        k: int,
        log: Path,
        timeout_s: float = math.inf,
    ):
        path = resolve.model_path(name)
        self.tokenizer = Tokenizer(path, revision)
        # a few more than run at once wait in the engine, so that none of its places is empty while answers are written down
        self._room = engine.max_in_flight + -(-engine.max_in_flight // 8)
        self._timeout_s = timeout_s
        self._stop_options: dict[tuple[str, ...], dict[str, Any]] = {}
        self._log = log
        reset_peak()
        self._watchdog = _watch()
        self._llm = _start(path, revision, engine, k, log)
        _tell_up(self._watchdog)
        self.facts = Facts(
            name,
            revision,
            "raw_logprobs",
            "float32" if engine.fp32_head else str(self._llm.model_config.dtype),
            f"vllm {_version()}",
        )

    def generate(self, requests: Iterable[Request], sampling: Sampling) -> Iterator[list[Answer]]:
        return self._feed(
            requests,
            lambda request: _params(sampling, self._stops(request.stop), request.seed),
            self._completion,
            sampling.concurrency,
        )

    def score(self, requests: Iterable[Request], k: int) -> Iterator[list[Answer]]:
        """By prefill of prompt and reply together. Every position is checked against the ids that were given."""
        return self._feed(requests, lambda request: _score_params(k), self._scored)

    def _feed(
        self,
        requests: Iterable[Request],
        params: Callable[[Request], Any],
        answer: Callable[[Request, Any], Answer],
        concurrency: int | None = None,
    ) -> Iterator[list[Answer]]:
        """Keep the engine full. What it turns down, and what takes longer than the time-out, comes back as a failure."""
        engine = self._llm.llm_engine
        waiting = iter(requests)
        first = list(itertools.islice(waiting, 2))
        waiting = itertools.chain(first, waiting)
        asked: dict[str, tuple[Request, float]] = {}  # oldest first
        first_tokens: dict[str, float] = {}  # when they came, of what is timed
        most = concurrency or self._room
        # the first request goes alone where prompts share much, so that this is cached before the others come
        room = 1 if _shared(first) >= LONG_PREFIX and not concurrency else most
        while True:
            answers: list[Answer] = []
            for request in itertools.islice(waiting, max(0, room - len(asked))):
                refusal = self._add(request, params(request))
                if refusal:
                    answers.append(refusal)
                else:
                    asked[request.id] = request, time.monotonic()
            if not asked and not answers:
                return
            if asked:
                outputs = self._step(engine)
                now = time.monotonic()
                for output in outputs if concurrency else ():
                    first_tokens.setdefault(output.request_id, now)
                done = [
                    output for output in outputs if output.finished and output.request_id in asked
                ]
                for output in done:
                    request, began = asked.pop(output.request_id)
                    made = answer(request, output)
                    answers.append(
                        _timed(made, began, first_tokens.pop(request.id), now)
                        if concurrency
                        else made
                    )
                answers += self._abort_overdue(asked)
            room = most
            yield answers

    def clear_cache(self) -> None:
        self._llm.llm_engine.reset_prefix_cache()

    def peak_bytes(self) -> int | None:
        """On a CPU of this process and the engine's together, on GPUs what is in use there, with what vLLM has set aside for its cache."""
        from vllm.platforms import current_platform

        return (
            peak_of_processes(exclude=self._watchdog.pid)
            if current_platform.is_cpu()
            else gpu_bytes_in_use()
        )

    def close(self) -> None:
        self._llm.llm_engine.engine_core.shutdown()
        self._watchdog.kill()
        self._watchdog.communicate()

    def _add(self, request: Request, params: Any) -> Failure | None:
        assert request.token_ids is not None
        ids = request.token_ids + (request.reply_ids or [])
        limit = self._llm.model_config.max_model_len
        if len(ids) >= limit:
            return Failure(
                request.id,
                "too_long",
                f"{len(ids):,} tokens, and engine.max_model_len is {limit:,}",
            )
        try:
            self._llm.llm_engine.add_request(request.id, {"prompt_token_ids": ids}, params)
        except Exception as error:  # which one depends on the version of vLLM
            return Failure(request.id, "refused", _first_line(error))
        return None

    def _abort_overdue(self, asked: dict[str, tuple[Request, float]]) -> list[Answer]:
        late = time.monotonic() - self._timeout_s
        overdue = list(itertools.takewhile(lambda name: asked[name][1] < late, asked))
        if overdue:
            self._llm.llm_engine.abort_request(overdue)
        return [
            Failure(asked.pop(name)[0].id, "timed_out", f"no answer in {self._timeout_s:g} s")
            for name in overdue
        ]

    def _step(self, engine: Any) -> list[Any]:
        try:
            _await_output(engine.engine_core)
            return engine.step()
        except KeyboardInterrupt:
            raise
        except Exception as error:  # whatever kills the engine; what is durable stays
            raise EngineError(
                f"vLLM's engine died: {_first_line(error)}; its own words are in {self._log}. The same command goes on from here"
            ) from error

    def _stops(self, stop: tuple[str, ...]) -> dict[str, Any]:
        """Where to stop. One ASCII character always lies within one token, so it is matched by the ids of all tokens that hold it, without
        detokenising, which is faster; longer texts can be spread over tokens and need the text."""
        if stop not in self._stop_options:
            plain = all(len(text) == 1 and text.isascii() for text in stop)
            self._stop_options[stop] = (
                {
                    "detokenize": False,
                    "stop_token_ids": [
                        token for text in stop for token in self.tokenizer.tokens_containing(text)
                    ],
                }
                if plain
                else {"detokenize": True, "stop": list(stop), "include_stop_str_in_output": True}
            )
        return self._stop_options[stop]

    def _completion(self, request: Request, output: Any) -> Answer:
        result = output.outputs[0]
        ids = list(result.token_ids)
        _refuse_abort(output)
        if result.finish_reason == "error":
            return Failure(request.id, "engine_error", "vLLM ended it as an error of its own")
        if not result.logprobs:
            return self._answer(request, ids, result.finish_reason, None)
        topk = _flat(result.logprobs, len(ids))
        assert topk.ids[:, 0].tolist() == ids, request.id
        return self._answer(request, ids, result.finish_reason, topk)

    def _scored(self, request: Request, output: Any) -> Answer:
        assert request.reply_ids is not None
        assert request.token_ids is not None
        _refuse_abort(output)
        whole = _flat(
            output.prompt_logprobs, len(request.token_ids) + len(request.reply_ids) - 1
        )  # the first position has none
        begin = len(request.token_ids) - 1
        topk = RawTopK(whole.ids[begin:], whole.logprobs[begin:])
        if topk.ids[:, 0].tolist() != request.reply_ids:
            return Failure(
                request.id,
                "misaligned",
                "vLLM's prompt logprobs are not those of the tokens that were given",
            )
        return self._answer(request, request.reply_ids, "stop", topk)

    def _answer(
        self, request: Request, ids: list[int], finish_reason: FinishReason, topk: RawTopK | None
    ) -> Answer:
        assert request.token_ids is not None
        if topk is not None and np.isnan(topk.logprobs).any():
            return Failure(
                request.id,
                "engine_error",
                "its logprobs are not numbers (NaN); is engine.dtype too narrow for the model?",
            )
        usage = Usage(prompt_tokens=len(request.token_ids), completion_tokens=len(ids))
        return Completion(request.id, self.tokenizer.decode(ids), ids, finish_reason, usage, topk)


def _timed(answer: Answer, began: float, first_token: float, done: float) -> Answer:
    if isinstance(answer, Failure):
        return answer
    return dataclasses.replace(answer, seconds=done - began, first_token_s=first_token - began)


def _await_output(core: Any) -> None:
    """Wait until the engine has answered. vLLM's own client would wait for ever for one that was killed, as by a lack of memory."""
    outputs = getattr(core, "outputs_queue", None)
    if outputs is None:  # an engine without a process of its own
        return
    with outputs.not_empty:
        while not outputs.queue:
            outputs.not_empty.wait(LIVENESS_SECONDS)
            core.ensure_alive()


def _refuse_abort(output: Any) -> None:
    """An engine that goes down, as on Ctrl-C, ends its requests one by one; that is no fault of theirs."""
    if output.outputs[0].finish_reason == "abort":
        raise PipelineError(
            "vLLM's engine is going down; what is finished is kept, and the same command goes on from here"
        )


def _shared(requests: list[Request]) -> int:
    """Tokens with which the prompts of two requests begin alike."""
    pairs = zip(*(request.token_ids or () for request in requests), strict=False)
    return (
        sum(1 for _ in itertools.takewhile(lambda tokens: len(set(tokens)) == 1, pairs))
        if len(requests) > 1
        else 0
    )


def _flat(flat: Any, rows: int) -> RawTopK:
    """vLLM's flat lists as (rows, 1 + k)."""
    width, rest = divmod(len(flat.token_ids), rows)
    assert not rest, f"{len(flat.token_ids)} logprobs for {rows} tokens"
    return RawTopK(
        np.array(flat.token_ids, np.int32).reshape(rows, width),
        np.array(flat.logprobs, np.float32).reshape(rows, width),
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
        output_kind=RequestOutputKind.CUMULATIVE
        if sampling.concurrency
        else RequestOutputKind.FINAL_ONLY,
        **stops,
    )


def _score_params(k: int) -> Any:
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    return SamplingParams(
        max_tokens=1,
        temperature=0.0,
        prompt_logprobs=k,
        flat_logprobs=True,
        detokenize=False,
        output_kind=RequestOutputKind.FINAL_ONLY,
    )


def server_command(teacher: Teacher, host: str, port: int) -> list[str]:
    """The command that serves the teacher over HTTP, as the in-process engine would run it."""
    options = _options(
        resolve.model_path(teacher.model), teacher.revision, teacher.engine, teacher.logprobs
    )
    flags = [
        sys.executable,
        "-m",
        "vllm.entrypoints.openai.api_server",
        "--served-model-name",
        teacher.model,
        "--host",
        host,
    ]
    flags += ["--port", str(port)]
    for key, value in options.items():
        flag = key.replace("_", "-")
        if isinstance(value, bool):
            flags.append(f"--{flag}" if value else f"--no-{flag}")
        elif value is not None:
            flags += [f"--{flag}", json.dumps(value) if isinstance(value, dict) else str(value)]
    return flags


def _start(path: str, revision: str | None, engine: Engine, k: int, log: Path) -> Any:
    options = _options(path, revision, engine, k)
    from vllm import LLM

    try:
        with _output_to(log):
            llm = LLM(**options)
    except (RuntimeError, ValueError, OSError) as error:
        raise PipelineError(
            f"{path}: vLLM cannot start with it: {_first_line(error)}; its own words are in {log}"
        ) from error
    logging.getLogger("vllm").setLevel(logging.ERROR)  # from here on it speaks in this process
    return llm


def _options(path: str, revision: str | None, engine: Engine, k: int) -> dict[str, Any]:
    """vLLM's engine arguments."""
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    if (os.cpu_count() or 1) <= SMALL_MACHINE_CORES:
        os.environ.setdefault("VLLM_CPU_NUM_OF_RESERVED_CPU", "0")
    try:
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
    return options


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
    """Start the watchdog over all processes that this one will start."""
    watchdog = subprocess.Popen(
        [sys.executable, "-c", WATCHDOG, str(os.getpid())],
        stdin=subprocess.PIPE,
        start_new_session=True,
    )
    assert watchdog.stdin is not None
    os.register_at_fork(
        after_in_child=watchdog.stdin.close
    )  # an engine that is forked must not hold the other end open
    return watchdog


def _tell_up(watchdog: subprocess.Popen[bytes]) -> None:
    assert watchdog.stdin is not None
    watchdog.stdin.write(b"u")
    watchdog.stdin.flush()


def _cpu_options(path: str, revision: str | None, engine: Engine) -> dict[str, Any]:
    """On a CPU, seeded sampling kills an engine that prefills in chunks, so prompts are prefilled whole; and bfloat16 is slow, many times
    slower than float32, where the CPU has no instructions for it."""
    import torch

    native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
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


def _version() -> str:
    import vllm

    return str(vllm.__version__)


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
