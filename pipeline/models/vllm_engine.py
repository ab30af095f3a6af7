"""vLLM in this process: keeps the engine full, exchanges token ids, reads vLLM's flat logprobs.

This is the only file that imports the vllm package.
"""

import dataclasses
import itertools
import logging
import math
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from pipeline.config import Engine, Teacher
from pipeline.errors import EngineError, PipelineError
from pipeline.models import resolve, vllm_outputs
from pipeline.models.base import Answer, Facts, Failure, Request, Sampling
from pipeline.models.memory_usage import gpu_bytes_in_use, peak_of_processes, reset_peak
from pipeline.models.tokenizer import Tokenizer
from pipeline.models.vllm_options import command_line, engine_options
from pipeline.models.watchdog import Watchdog

SMALL_MACHINE_CORES = 4
LIVENESS_SECONDS = 1.0  # while waiting for an answer, check this often that the engine is alive
# tokens; it is faster to compute a shorter shared prefix several times than to wait for the cache
LONG_PREFIX = 256


@dataclass
class _InFlight:
    """A request that was sent to the engine, and the times of its start and its first token."""

    request: Request
    began: float
    first_token: float | None = None


class VllmModel:
    """A model served by vLLM in this process.

    The engine may start further processes, whose output goes to the file `log`.
    """

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
        # send 1/8 more requests than the engine runs at once, so that it has work while the caller
        # stores answers
        self._max_queued = engine.max_in_flight + -(-engine.max_in_flight // 8)
        self._timeout_s = timeout_s
        self._stop_options: dict[tuple[str, ...], dict[str, Any]] = {}
        self._log = log
        reset_peak()
        self._watchdog = Watchdog()
        self._llm = _start(path, revision, engine, k, log)
        self._watchdog.engine_is_up()
        self.facts = Facts(
            name,
            revision,
            "raw_logprobs",
            "float32" if engine.fp32_head else str(self._llm.model_config.dtype),
            f"vllm {_version()}",
        )

    def generate(self, requests: Iterable[Request], sampling: Sampling) -> Iterator[list[Answer]]:
        def params(request: Request) -> Any:
            return sampling_params(sampling, self._stops(request.stop), request.seed)

        read = partial(vllm_outputs.generated, self.tokenizer)
        return self._feed(requests, params, read, sampling.concurrency)

    def score(self, requests: Iterable[Request], k: int) -> Iterator[list[Answer]]:
        """Prefill prompt and reply together, and check every position against the reply's ids."""
        read = partial(vllm_outputs.scored, self.tokenizer)
        return self._feed(requests, lambda request: _score_params(k), read)

    def _feed(
        self,
        requests: Iterable[Request],
        params: Callable[[Request], Any],
        read: Callable[[Request, Any], Answer],
        concurrency: int | None = None,
    ) -> Iterator[list[Answer]]:
        """Keep the engine full. A request that it refuses or that times out becomes a failure."""
        remaining = iter(requests)
        first = list(itertools.islice(remaining, 2))
        remaining = itertools.chain(first, remaining)
        in_flight: dict[str, _InFlight] = {}  # oldest first
        limit = concurrency or self._max_queued
        # if prompts share a long prefix, send the first alone: the others then find it cached
        alone = _shared_prefix(first) >= LONG_PREFIX and not concurrency
        room = 1 if alone else limit
        while True:
            answers: list[Answer] = []
            for request in itertools.islice(remaining, max(0, room - len(in_flight))):
                refusal = self._add(request, params(request))
                if refusal:
                    answers.append(refusal)
                else:
                    in_flight[request.id] = _InFlight(request, time.monotonic())
            if not in_flight and not answers:
                return
            if in_flight:
                answers += self._finished(in_flight, read, timed=bool(concurrency))
                answers += self._abort_overdue(in_flight)
            room = limit
            yield answers

    def _finished(
        self,
        in_flight: dict[str, _InFlight],
        read: Callable[[Request, Any], Answer],
        timed: bool,
    ) -> list[Answer]:
        """Run the engine one step, and take the finished requests out of `in_flight`."""
        answers = []
        outputs = self._step()
        now = time.monotonic()
        for output in outputs:
            flight = in_flight.get(output.request_id)
            if flight is None:
                continue
            if flight.first_token is None:
                flight.first_token = now
            if output.finished:
                del in_flight[output.request_id]
                answer = read(flight.request, output)
                answers.append(_timed(answer, flight, now) if timed else answer)
        return answers

    def clear_cache(self) -> None:
        self._llm.llm_engine.reset_prefix_cache()

    def peak_bytes(self) -> int | None:
        """Return the memory in use now on the GPUs, including vLLM's reserved cache.

        On a CPU, return the peak memory of this process and the engine.
        """
        if _runs_on_cpu():
            return peak_of_processes(exclude=self._watchdog.pid)
        return gpu_bytes_in_use()

    def close(self) -> None:
        self._llm.llm_engine.engine_core.shutdown()
        self._watchdog.stop()

    def _add(self, request: Request, params: Any) -> Failure | None:
        ids = request.prompt_ids + (request.reply_ids or [])
        limit = self._llm.model_config.max_model_len
        if len(ids) >= limit:
            message = f"{len(ids):,} tokens, and engine.max_model_len is {limit:,}"
            return Failure(request.id, "too_long", message)
        try:
            self._llm.llm_engine.add_request(request.id, {"prompt_token_ids": ids}, params)
        except Exception as error:  # its type depends on the version of vLLM
            return Failure(request.id, "refused", _first_line(error))
        return None

    def _abort_overdue(self, in_flight: dict[str, _InFlight]) -> list[Answer]:
        oldest = time.monotonic() - self._timeout_s
        overdue = list(itertools.takewhile(lambda name: in_flight[name].began < oldest, in_flight))
        if overdue:
            self._llm.llm_engine.abort_request(overdue)
        message = f"no answer in {self._timeout_s:g} s"
        return [Failure(in_flight.pop(name).request.id, "timed_out", message) for name in overdue]

    def _step(self) -> list[Any]:
        engine = self._llm.llm_engine
        try:
            _await_output(engine.engine_core)
            return engine.step()
        except KeyboardInterrupt:
            raise
        except Exception as error:  # the engine can die of any error
            raise EngineError(
                f"vLLM's engine died: {_first_line(error)}; its output is in {self._log}. "
                "What is finished is kept, and the same command continues from here"
            ) from error

    def _stops(self, stop: tuple[str, ...]) -> dict[str, Any]:
        """Return the sampling parameters that end a reply at these texts.

        An ASCII character is never split over tokens. So it is enough to stop at any token id whose
        text contains it, which needs no detokenising. Longer texts can be split over tokens.
        """
        if stop not in self._stop_options:
            self._stop_options[stop] = self._make_stops(stop)
        return self._stop_options[stop]

    def _make_stops(self, stop: tuple[str, ...]) -> dict[str, Any]:
        ids = sorted(self.tokenizer.end_ids - {self.tokenizer.eos_id})
        if not all(len(text) == 1 and text.isascii() for text in stop):
            texts = {"detokenize": True, "include_stop_str_in_output": True, "stop": list(stop)}
            return {**texts, "stop_token_ids": ids}
        ids += itertools.chain.from_iterable(map(self.tokenizer.tokens_containing, stop))
        return {"detokenize": False, "stop_token_ids": ids}


def _timed(answer: Answer, flight: _InFlight, done: float) -> Answer:
    if isinstance(answer, Failure):
        return answer
    assert flight.first_token is not None
    return dataclasses.replace(
        answer, seconds=done - flight.began, first_token_s=flight.first_token - flight.began
    )


def _await_output(core: Any) -> None:
    """Wait until the engine has answered.

    vLLM's own client waits forever for an engine that was killed, for example for lack of memory.
    """
    outputs = getattr(core, "outputs_queue", None)
    if outputs is None:  # the engine runs in this process
        return
    with outputs.not_empty:
        while not outputs.queue:
            outputs.not_empty.wait(LIVENESS_SECONDS)
            core.ensure_alive()


def _shared_prefix(requests: list[Request]) -> int:
    """Count the tokens that the prompts of two requests share at their beginning."""
    if len(requests) < 2:
        return 0
    count = 0
    for tokens in zip(*(request.token_ids or () for request in requests), strict=False):
        if len(set(tokens)) > 1:
            break
        count += 1
    return count


def sampling_params(sampling: Sampling, stops: dict[str, Any], seed: int | None) -> Any:
    """Return vLLM's parameters of one generate request."""
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    kind = RequestOutputKind.CUMULATIVE if sampling.concurrency else RequestOutputKind.FINAL_ONLY
    return SamplingParams(
        max_tokens=sampling.max_tokens,
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        top_k=sampling.top_k,
        seed=seed if sampling.temperature > 0 else None,
        logprobs=sampling.logprobs or None,
        flat_logprobs=sampling.logprobs > 0,
        output_kind=kind,
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
    """Return the command that serves the teacher over HTTP with the engine arguments used here."""
    path = resolve.model_path(teacher.model)
    options = engine_options(
        path, teacher.revision, teacher.engine, teacher.logprobs, _runs_on_cpu()
    )
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server"]
    command += ["--served-model-name", teacher.model, "--host", host, "--port", str(port)]
    return [*command, *command_line(options)]


def _start(path: str, revision: str | None, engine: Engine, k: int, log: Path) -> Any:
    options = engine_options(path, revision, engine, k, _runs_on_cpu())
    from vllm import LLM

    try:
        with _output_to(log):
            llm = LLM(**options)
    except (RuntimeError, ValueError, OSError) as error:
        raise PipelineError(
            f"{path}: vLLM cannot start with it: {_first_line(error)}; its output is in {log}"
        ) from error
    # after start-up vLLM's logger writes to this terminal; show errors only
    logging.getLogger("vllm").setLevel(logging.ERROR)
    return llm


def _runs_on_cpu() -> bool:
    """Set vLLM's environment variables. Return True if vLLM runs on a CPU here.

    Raises PipelineError if vLLM cannot be imported.
    """
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    if (os.cpu_count() or 1) <= SMALL_MACHINE_CORES:
        os.environ.setdefault("VLLM_CPU_NUM_OF_RESERVED_CPU", "0")
    try:
        from vllm.platforms import current_platform
    except ImportError as error:
        raise PipelineError(
            f"vllm cannot be imported ({error}); "
            "run make setup, or pip install 'pipeline[cpu]' or 'pipeline[gpu]'"
        ) from None
    return bool(current_platform.is_cpu())


@contextmanager
def _output_to(log: Path) -> Iterator[None]:
    """Send stdout and stderr to a file; processes started meanwhile keep writing there."""
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


def _version() -> str:
    import vllm

    return str(vllm.__version__)


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
