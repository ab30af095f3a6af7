"""A running OpenAI-compatible server. A vLLM server takes and gives token ids and logprobs by id; any other takes text and gives text.

Trouble is told apart by whose it is. A server that is away or overloaded is waited for; a request that a living server fails is sent
again a few times and then given up alone; what would go wrong with every request ends the stage.
"""

import asyncio
import itertools
import logging
import math
import os
import queue
import random
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from httpx import ConnectError, ConnectTimeout
from openai import (
    DEFAULT_CONNECTION_LIMITS,
    APIConnectionError,
    APIStatusError,
    AsyncOpenAI,
    DefaultAsyncHttpxClient,
    Timeout,
)
from pydantic_core import from_json

from pipeline.config import Teacher
from pipeline.errors import PipelineError
from pipeline.models import openai_responses
from pipeline.models.base import Answer, Completion, Facts, Failure, Request, Sampling
from pipeline.models.openai_responses import GOES_ON, Trouble
from pipeline.models.resolve import tokenizer_path
from pipeline.models.tokenizer import Tokenizer

log = logging.getLogger(__name__)

TICK_SECONDS = 0.2
CONNECT_SECONDS = 10.0
FIRST_PAUSE_SECONDS = 0.5  # at most; doubled with every attempt
LONGEST_PAUSE_SECONDS = 30.0
TELL_SECONDS = 5.0  # of silence, after which the user is told
POOL = 64  # connections a client: the search for a free one takes time with their number, 6 ms a request at 1,000


@dataclass(frozen=True)
class Call:
    """What is sent for one request, and how the JSON that comes back is read."""

    path: str
    body: dict[str, Any]
    read: Callable[[Request, Any], Answer]


class ServerModel:
    """Asks a server, at most engine.max_in_flight requests at once. The key is read from the environment and goes nowhere else."""

    def __init__(self, teacher: Teacher):
        self.tokenizer = (
            Tokenizer(tokenizer_path(teacher), teacher.revision) if teacher.tokenizer else None
        )
        self.facts = Facts(teacher.model, teacher.revision, "raw_logprobs", "as served", "openai")
        self._teacher = teacher
        self._url = _checked(teacher.base_url or "")
        self._key = _key(teacher.api_key_env)
        self._heard = 0.0  # when the server last answered anything
        self._told = False

    def generate(self, requests: Iterable[Request], sampling: Sampling) -> Iterator[list[Answer]]:
        return self._answers(requests, partial(self._generation, sampling), sampling.concurrency)

    def score(self, requests: Iterable[Request], k: int) -> Iterator[list[Answer]]:
        if self.tokenizer is None:
            raise PipelineError(
                "teacher.tokenizer: scoring is by token ids; set it to the folder or hub id of the server's tokenizer"
            )
        return self._answers(requests, partial(self._scoring, self.tokenizer, k))

    def clear_cache(self) -> None:
        pass

    def peak_bytes(self) -> int | None:
        return None

    def close(self) -> None:
        pass

    def _answers(
        self,
        requests: Iterable[Request],
        call: Callable[[Request], Call],
        concurrency: int | None = None,
    ) -> Iterator[list[Answer]]:
        """The event loop runs in a thread of its own. `requests` is drawn in the caller's, where it can share the caller's state.

        A few more are drawn than may be in flight, so that none of the room is empty while the caller is busy with answers.
        """
        todo: asyncio.Queue[Request] = asyncio.Queue()
        answers: queue.SimpleQueue[Answer | BaseException] = queue.SimpleQueue()
        loop = asyncio.new_event_loop()
        workers = min(
            self._teacher.engine.max_in_flight, concurrency or self._teacher.engine.max_in_flight
        )
        work = loop.create_task(self._work(todo, answers, call, workers))
        thread = threading.Thread(
            target=_run, args=(loop, work, answers), name="openai", daemon=True
        )
        thread.start()
        most = workers * 5 // 4 + 1
        waiting, asked = iter(requests), 0
        try:
            while True:
                for request in itertools.islice(waiting, most - asked):
                    loop.call_soon_threadsafe(todo.put_nowait, request)
                    asked += 1
                if not asked:
                    return
                batch = _drain(answers)
                asked -= len(batch)
                yield batch
        finally:
            loop.call_soon_threadsafe(work.cancel)
            thread.join()
            loop.close()

    async def _work(
        self,
        todo: asyncio.Queue[Request],
        answers: "queue.SimpleQueue[Answer | BaseException]",
        call: Callable[[Request], Call],
        workers: int,
    ) -> None:
        """As many workers as requests may be in flight, until cancelled or one of them fails."""

        async def worker(client: Any) -> None:
            while True:
                request = await todo.get()
                began = time.monotonic()
                answer = await self._answer(client, request, call(request))
                answers.put(
                    replace(answer, seconds=time.monotonic() - began)
                    if isinstance(answer, Completion)
                    else answer
                )

        async with AsyncExitStack() as stack:
            clients = [
                await stack.enter_async_context(self._client())
                for _ in range(math.ceil(workers / POOL))
            ]
            group = await stack.enter_async_context(asyncio.TaskGroup())
            for number in range(workers):
                group.create_task(worker(clients[number % len(clients)]))

    def _client(self) -> Any:
        limits = type(DEFAULT_CONNECTION_LIMITS)(
            max_connections=POOL, max_keepalive_connections=POOL
        )
        timeout = Timeout(
            None, connect=CONNECT_SECONDS
        )  # the rest is timed as a whole, by _attempt
        http = DefaultAsyncHttpxClient(limits=limits, timeout=timeout)
        return AsyncOpenAI(
            base_url=self._url, api_key=self._key, max_retries=0, timeout=timeout, http_client=http
        )

    async def _answer(self, client: Any, request: Request, call: Call) -> Answer:
        """Sent until it is answered or given up. Raises PipelineError if it is no use to ask for others.

        A server that dies breaks all connections, and a request can break its own every time. It is the request's fault when it
        happens again though the server has answered, if only to a look whether it is there, since the last time.
        """
        attempt, failed, lost_at, broken_at = 0, 0, 0.0, 0.0
        while True:
            reply = await self._attempt(client, call)
            if isinstance(reply, bytes):
                self._hear()
                return self._read(request, call, reply)
            if reply.broken:
                if 0.0 < broken_at < self._heard:
                    reply = replace(reply, reason="server_error")
                broken_at = time.monotonic()
            if reply.reason is None:
                lost_at = lost_at or time.monotonic()
                most = self._left(lost_at, reply.message)
            else:
                failed, most = failed + 1, math.inf
            if reply.reason and (reply.lasting or failed > self._teacher.retries):
                times = f", {failed} times" if failed > 1 else ""
                return Failure(request.id, reply.reason, f"{self._url}: {reply.message}{times}")
            await asyncio.sleep(min(most, self._pause(attempt, reply.after)))
            if reply.broken and self._heard < broken_at:
                await self._look(client)
            attempt += 1

    def _hear(self) -> None:
        self._heard, self._told = time.monotonic(), False

    async def _look(self, client: Any) -> None:
        """Whether the server is there, when no other request tells it."""
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                await client.get("/models", cast_to=bytes)
        except APIStatusError as error:
            if error.status_code in openai_responses.AWAY:
                return
        except (TimeoutError, APIConnectionError):
            return
        self._hear()

    def _left(self, lost_at: float, message: str) -> float:
        """Seconds of patience with a server that is away since `lost_at`, or since it last answered anything, if that is later."""
        silent = time.monotonic() - max(lost_at, self._heard)
        if silent >= self._teacher.patience_s:
            raise PipelineError(f"{self._url}: {message}; is the server up? {GOES_ON}")
        if silent > TELL_SECONDS and not self._told:
            self._told = True
            log.warning(
                f"{self._url}: {message}; it is waited for, {self._teacher.patience_s:g} s at most"
            )
        return self._teacher.patience_s - silent

    def _pause(self, attempt: int, after: float | None) -> float:
        """Seconds before the next attempt. By chance, so that what failed together does not come back together."""
        if after is not None:
            return min(after, self._teacher.patience_s) + random.uniform(0.0, FIRST_PAUSE_SECONDS)
        return random.uniform(
            0.0, min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2.0 ** min(attempt, 9))
        )

    async def _attempt(self, client: Any, call: Call) -> bytes | Trouble:
        """The body of the reply. It is posted as it stands: the client's typed methods look at every token of a prompt, 15 µs each."""
        try:
            async with asyncio.timeout(self._teacher.timeout_s):
                return await client.post(call.path, body=call.body, cast_to=bytes)
        except TimeoutError:
            return Trouble(
                f"no answer within teacher.timeout_s={self._teacher.timeout_s:g}", "timed_out"
            )
        except APIStatusError as error:
            return openai_responses.trouble(self._url, self._teacher.api_key_env, error)
        except APIConnectionError as error:
            cause = error.__cause__ or error
            sent = not isinstance(cause, ConnectError | ConnectTimeout)
            return Trouble(f"no answer ({str(cause) or type(cause).__name__})", broken=sent)

    def _read(self, request: Request, call: Call, body: bytes) -> Answer:
        try:
            return call.read(request, from_json(body))
        except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
            raise PipelineError(
                f"{self._url}: its reply to request {request.id} is not an OpenAI completion ({type(error).__name__}); "
                "does base_url end in /v1?"
            ) from error

    def _generation(self, sampling: Sampling, request: Request) -> Call:
        body = {
            "model": self._teacher.model,
            "max_tokens": sampling.max_tokens,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
        }
        if request.seed is not None:
            body["seed"] = request.seed
        if request.stop:
            body["stop"] = list(request.stop)
        return (
            self._by_ids(sampling, request, body)
            if request.token_ids is not None
            else self._by_messages(sampling, request, body)
        )

    def _by_ids(self, sampling: Sampling, request: Request, body: dict[str, Any]) -> Call:
        assert self.tokenizer is not None
        body |= {
            "prompt": request.token_ids,
            "top_k": sampling.top_k,
            "return_token_ids": True,
            "return_tokens_as_token_ids": True,
            "add_special_tokens": False,
            "skip_special_tokens": True,
            "include_stop_str_in_output": True,
        }
        if sampling.logprobs:
            body["logprobs"] = sampling.logprobs
        return Call(
            "/completions",
            body,
            partial(openai_responses.with_ids, self._url, self.tokenizer, sampling.logprobs),
        )

    def _by_messages(self, sampling: Sampling, request: Request, body: dict[str, Any]) -> Call:
        if request.rendered.messages is None:
            raise PipelineError(
                "teacher.tokenizer: a server without it is asked in chat; set it, or 'format: chat' in the prompt's front matter"
            )
        body["messages"] = list(request.rendered.messages)
        if sampling.top_k:
            body["top_k"] = sampling.top_k
        return Call("/chat/completions", body, openai_responses.with_text)

    def _scoring(self, tokenizer: Tokenizer, k: int, request: Request) -> Call:
        """A server has no way to only read: it writes one token, which is thrown away."""
        assert request.token_ids is not None
        assert request.reply_ids is not None
        body = {
            "model": self._teacher.model,
            "prompt": request.token_ids + request.reply_ids,
            "max_tokens": 1,
            "temperature": 0,
            "prompt_logprobs": k,
            "return_token_ids": True,
            "return_tokens_as_token_ids": True,
            "add_special_tokens": False,
        }
        return Call("/completions", body, partial(openai_responses.scored, self._url, tokenizer, k))


def _run(
    loop: asyncio.AbstractEventLoop,
    work: "asyncio.Task[None]",
    answers: "queue.SimpleQueue[Answer | BaseException]",
) -> None:
    """The thread of the event loop. What ends it, other than the consumer, comes as the last of the answers."""
    try:
        loop.run_until_complete(work)
    except asyncio.CancelledError:
        pass
    except BaseException as error:
        answers.put(error.exceptions[0] if isinstance(error, BaseExceptionGroup) else error)
    finally:
        loop.run_until_complete(loop.shutdown_asyncgens())


def _drain(answers: "queue.SimpleQueue[Answer | BaseException]") -> list[Answer]:
    """What has come, waiting a tick for it. Raises what ended the loop, after what came before it."""
    batch: list[Answer] = []
    try:
        item = answers.get(timeout=TICK_SECONDS)
        while not isinstance(item, BaseException):
            batch.append(item)
            item = answers.get_nowait()
    except queue.Empty:
        return batch
    if not batch:
        raise item
    answers.put(item)
    return batch


def _checked(url: str) -> str:
    """A URL that cannot be one would otherwise look like a server that is away."""
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        good = False
    if not good:
        raise PipelineError(
            f"teacher.base_url: {url!r} is no URL of a server; give one such as http://127.0.0.1:8000/v1"
        )
    return url


def _key(variable: str) -> str:
    """The key in an environment variable. One that cannot stand in a header is refused here, where it is not printed."""
    key = os.environ.get(variable, "").strip()
    if not (key.isascii() and (key.isprintable() or not key)):
        raise PipelineError(
            f"teacher.api_key_env: what {variable} holds cannot be a key (it has control or non-ASCII characters); set it anew"
        )
    return key or "none"
