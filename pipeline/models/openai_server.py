"""A running OpenAI-compatible server. A vLLM server takes and gives token ids and logprobs by id; any other takes text and gives text."""

import asyncio
import os
import queue
import threading
from collections.abc import Iterable, Iterator
from typing import Any, get_args

import numpy as np

from pipeline.config import Teacher
from pipeline.errors import PipelineError
from pipeline.models import Completion, Facts, RawTopK, Request, Sampling, tokenizer_of
from pipeline.models.tokenizer import Tokenizer
from pipeline.records import FinishReason, Usage

TICK_SECONDS = 0.2


class ServerModel:
    """Asks a server, at most engine.max_in_flight requests at once. The key is read from the environment and goes nowhere else."""

    def __init__(self, teacher: Teacher):
        self.tokenizer = Tokenizer(tokenizer_of(teacher), teacher.revision) if teacher.tokenizer else None
        self.facts = Facts(teacher.model, teacher.revision, "raw_logprobs", "as served", "openai")
        self._teacher = teacher
        self._key = _key(teacher.api_key_env)

    def generate(self, requests: Iterable[Request], sampling: Sampling) -> Iterator[list[Completion]]:
        """The event loop runs in a thread of its own; answers come back through a queue."""
        answers: queue.Queue[Completion | BaseException | None] = queue.Queue()
        stop = threading.Event()
        thread = threading.Thread(target=self._run, args=(iter(requests), sampling, answers, stop), daemon=True)
        thread.start()
        try:
            while True:
                batch, over = _drain(answers)
                yield batch
                if over:
                    return
        finally:
            stop.set()
            thread.join()

    def close(self) -> None:
        pass

    def _run(self, requests: Iterator[Request], sampling: Sampling, answers: "queue.Queue[Any]", stop: threading.Event) -> None:
        try:
            asyncio.run(self._ask_all(requests, sampling, answers, stop))
            answers.put(None)
        except BaseException as error:
            answers.put(error)

    async def _ask_all(self, requests: Iterator[Request], sampling: Sampling, answers: "queue.Queue[Any]", stop: threading.Event) -> None:
        from openai import AsyncOpenAI

        async with AsyncOpenAI(
            base_url=self._teacher.base_url,
            api_key=self._key,
            timeout=self._teacher.timeout_s,
            max_retries=self._teacher.retries,
        ) as client:
            running: set[asyncio.Task[Completion]] = set()
            failure: BaseException | None = None
            while not stop.is_set() and not failure:
                while len(running) < self._teacher.engine.max_in_flight and (request := next(requests, None)):
                    running.add(asyncio.create_task(self._ask(client, request, sampling)))
                if not running:
                    return
                done, running = await asyncio.wait(running, timeout=TICK_SECONDS, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    if task.exception():
                        failure = task.exception()
                    else:
                        answers.put(task.result())
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)
            if failure:
                raise failure

    async def _ask(self, client: Any, request: Request, sampling: Sampling) -> Completion:
        from openai import APIConnectionError, APIStatusError

        try:
            if request.token_ids is not None:
                reply = await client.completions.create(**self._by_ids(request, sampling))
                return self._with_ids(request, sampling, reply)
            return _with_text(request, await client.chat.completions.create(**self._by_messages(request, sampling)))
        except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
            raise PipelineError(
                f"{self._teacher.base_url}: its reply to request {request.id} is not an OpenAI completion ({type(error).__name__}); "
                "does base_url end in /v1?"
            ) from error
        except APIStatusError as error:
            raise PipelineError(
                f"{self._teacher.base_url}: answers {error.status_code} to request {request.id}: {_message(error)}; "
                "what is finished is kept, and the same command goes on from here"
            ) from None
        except APIConnectionError as error:
            raise PipelineError(
                f"{self._teacher.base_url}: no answer ({error.__cause__ or error}); is the server up? "
                "What is finished is kept, and the same command goes on from here"
            ) from None

    def _common(self, request: Request, sampling: Sampling) -> dict[str, Any]:
        return {
            "model": self._teacher.model,
            "max_tokens": sampling.max_tokens,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "seed": request.seed,
            "stop": list(sampling.stop) or None,
        }

    def _by_ids(self, request: Request, sampling: Sampling) -> dict[str, Any]:
        extra = {
            "top_k": sampling.top_k,
            "return_token_ids": True,
            "return_tokens_as_token_ids": True,
            "add_special_tokens": False,
            "skip_special_tokens": True,
            "include_stop_str_in_output": True,
        }
        return {**self._common(request, sampling), "prompt": request.token_ids, "logprobs": sampling.logprobs or None, "extra_body": extra}

    def _by_messages(self, request: Request, sampling: Sampling) -> dict[str, Any]:
        if request.rendered.messages is None:
            raise PipelineError(
                "teacher.tokenizer: a server without it is asked in chat; set it, or 'format: chat' in the prompt's front matter"
            )
        extra = {"top_k": sampling.top_k} if sampling.top_k else {}
        return {**self._common(request, sampling), "messages": list(request.rendered.messages), "extra_body": extra}

    def _with_ids(self, request: Request, sampling: Sampling, response: Any) -> Completion:
        choice = response.choices[0]
        ids = getattr(choice, "token_ids", None)
        if ids is None:
            raise PipelineError(
                f"{self._teacher.base_url}: gives no token ids (return_token_ids), so nothing can be aligned for kd; "
                "serve the model with vLLM, or drop teacher.tokenizer, set teacher.logprobs: 0 and train sft arms only"
            )
        assert self.tokenizer is not None
        assert request.token_ids is not None
        return Completion(
            id=request.id,
            text=self.tokenizer.decode(ids),
            token_ids=list(ids),
            finish_reason=_finish(choice.finish_reason),
            usage=Usage(prompt_tokens=len(request.token_ids), completion_tokens=len(ids)),
            topk=self._topk(ids, choice.logprobs, sampling.logprobs) if sampling.logprobs else None,
        )

    def _topk(self, ids: list[int], logprobs: Any, k: int) -> RawTopK:
        """(T, 1 + k) from the JSON form, whose keys are "token_id:123". A server may leave out what it could not fill."""
        if logprobs is None or len(logprobs.top_logprobs) != len(ids):
            raise PipelineError(
                f"{self._teacher.base_url}: gives no logprobs for its tokens; raise its --max-logprobs to {k}, or lower teacher.logprobs"
            )
        all_ids = np.zeros((len(ids), k + 1), np.int32)
        all_logprobs = np.full((len(ids), k + 1), -np.inf, np.float32)
        for row, (token, logprob, top) in enumerate(zip(ids, logprobs.token_logprobs, logprobs.top_logprobs, strict=True)):
            ranked = sorted(top.items(), key=lambda item: -item[1])[:k]
            all_ids[row, 0], all_logprobs[row, 0] = token, logprob
            all_ids[row, 1 : len(ranked) + 1] = [_token_id(key) for key, _ in ranked]
            all_logprobs[row, 1 : len(ranked) + 1] = [value for _, value in ranked]
        return RawTopK(all_ids, all_logprobs)


def _drain(answers: "queue.Queue[Any]") -> tuple[list[Completion], bool]:
    """What has come, waiting a tick for it, and whether that was all. Raises what the loop raised, after what came before it."""
    batch: list[Completion] = []
    try:
        item = answers.get(timeout=TICK_SECONDS)
        while True:
            if item is None:
                return batch, True
            if isinstance(item, BaseException):
                if batch:
                    answers.put(item)
                    return batch, False
                raise item
            batch.append(item)
            item = answers.get_nowait()
    except queue.Empty:
        return batch, False


def _with_text(request: Request, response: Any) -> Completion:
    choice = response.choices[0]
    usage = response.usage
    return Completion(
        id=request.id,
        text=choice.message.content or "",
        token_ids=None,
        finish_reason=_finish(choice.finish_reason),
        usage=Usage(prompt_tokens=usage.prompt_tokens if usage else 0, completion_tokens=usage.completion_tokens if usage else 0),
    )


def _key(variable: str) -> str:
    """The key in an environment variable. One that cannot stand in a header is refused here, where it is not printed."""
    key = os.environ.get(variable, "").strip()
    if not (key.isascii() and (key.isprintable() or not key)):
        raise PipelineError(
            f"teacher.api_key_env: what {variable} holds cannot be a key (it has control or non-ASCII characters); set it anew"
        )
    return key or "none"


def _finish(reason: str | None) -> FinishReason:
    known: tuple[FinishReason, ...] = get_args(FinishReason)
    return next((one for one in known if one == reason), "error")


def _token_id(key: str) -> int:
    name, _, number = key.partition(":")
    if name != "token_id":
        raise PipelineError(f"the server names tokens by text ({key!r}), not by id; kd cannot use that. Serve the model with vLLM")
    return int(number)


def _message(error: Any) -> str:
    body = error.body if isinstance(error.body, dict) else {}
    return str(body.get("message") or error.message).splitlines()[0][:300]
