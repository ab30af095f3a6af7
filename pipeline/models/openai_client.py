"""A model on an OpenAI-compatible server.

The client tells three kinds of errors apart. It waits for a server that is away or overloaded. A
request that a living server fails is sent again a few times and then becomes a failure. An error
that every request would meet ends the stage.
"""

import asyncio
import itertools
import logging
import math
import queue
import random
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AsyncExitStack
from dataclasses import replace
from functools import partial
from typing import Any

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
from pipeline.execution.redaction import redacted
from pipeline.models import openai_requests, openai_responses
from pipeline.models.base import (
    Answer,
    Completion,
    Facts,
    Failure,
    NothingToRelease,
    Request,
    Sampling,
)
from pipeline.models.openai_requests import Call
from pipeline.models.openai_responses import CONTINUES, Trouble
from pipeline.models.resolve import tokenizer_path
from pipeline.models.tokenizer import Tokenizer

log = logging.getLogger(__name__)

POLL_SECONDS = 0.2
CONNECT_SECONDS = 10.0
FIRST_PAUSE_SECONDS = 0.5  # at most; doubled with every attempt
LONGEST_PAUSE_SECONDS = 30.0
SILENCE_SECONDS = 5.0  # after this the log says that the server is away
# connections per client: a client looks for a free one among all of them, which takes 6 ms a
# request at 1,000
POOL = 64

Answers = queue.SimpleQueue[Answer | BaseException]


class ServerModel(NothingToRelease):
    """Asks a server, with at most engine.max_in_flight requests at once.

    The key is read from the environment and stored nowhere.
    """

    def __init__(self, teacher: Teacher):
        self.tokenizer: Tokenizer | None = None
        if teacher.tokenizer:
            self.tokenizer = Tokenizer(tokenizer_path(teacher), teacher.revision)
        self.facts = Facts(teacher.model, teacher.revision, "raw_logprobs", "as served", "openai")
        self._teacher = teacher
        self._base_url = openai_requests.checked_url(teacher.base_url or "")
        self._url = redacted(self._base_url)  # in messages
        self._key = openai_requests.api_key(teacher.api_key_env)
        self._last_answer = 0.0  # when the server last answered anything
        self._user_knows = False  # that the server is away
        self._new_terms = ""  # why the server refused max_tokens

    def generate(self, requests: Iterable[Request], sampling: Sampling) -> Iterator[list[Answer]]:
        call = partial(openai_requests.generation, self._teacher, self.tokenizer, sampling)
        return self._answers(requests, call, sampling.concurrency)

    def score(self, requests: Iterable[Request], k: int) -> Iterator[list[Answer]]:
        if self.tokenizer is None:
            raise PipelineError(
                "teacher.tokenizer: scoring needs token ids; "
                "set it to the folder or hub id of the server's tokenizer"
            )
        call = partial(openai_requests.scoring, self._teacher, self.tokenizer, k)
        return self._answers(requests, call)

    def _answers(
        self,
        requests: Iterable[Request],
        call: Callable[[Request], Call],
        concurrency: int | None = None,
    ) -> Iterator[list[Answer]]:
        """Answer the requests. The event loop runs in a thread of its own.

        `requests` is drawn in the caller's thread, where it can share the caller's state, and a few
        more than may be in flight, so that no place is empty while the caller stores answers.
        """
        todo: asyncio.Queue[Request] = asyncio.Queue()
        answers: Answers = queue.SimpleQueue()
        loop = asyncio.new_event_loop()
        most = self._teacher.engine.max_in_flight
        workers = min(most, concurrency or most)
        work = loop.create_task(self._work(todo, answers, call, workers))
        thread = threading.Thread(
            target=_run, args=(loop, work, answers), name="openai", daemon=True
        )
        thread.start()
        room = workers * 5 // 4 + 1
        remaining = iter(requests)
        drawn = 0
        try:
            while True:
                for request in itertools.islice(remaining, room - drawn):
                    loop.call_soon_threadsafe(todo.put_nowait, request)
                    drawn += 1
                if not drawn:
                    return
                batch = _drain(answers)
                drawn -= len(batch)
                yield batch
        finally:
            loop.call_soon_threadsafe(work.cancel)
            thread.join()
            loop.close()

    async def _work(
        self,
        todo: asyncio.Queue[Request],
        answers: Answers,
        call: Callable[[Request], Call],
        workers: int,
    ) -> None:
        """Run `workers` workers, each with one request at a time, until cancelled or one fails."""

        async def worker(client: Any) -> None:
            while True:
                request = await todo.get()
                began = time.monotonic()
                answer = await self._answer(client, request, call(request))
                if isinstance(answer, Completion):
                    answer = replace(answer, seconds=time.monotonic() - began)
                answers.put(answer)

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
        # _attempt times the rest as a whole
        timeout = Timeout(None, connect=CONNECT_SECONDS)
        http = DefaultAsyncHttpxClient(limits=limits, timeout=timeout)
        return AsyncOpenAI(
            base_url=self._base_url,
            api_key=self._key,
            max_retries=0,
            timeout=timeout,
            http_client=http,
        )

    async def _answer(self, client: Any, request: Request, call: Call) -> Answer:
        """Send a request until it is answered or given up.

        Raises PipelineError if every other request would fail too. A server that dies breaks all
        connections, and a request can break its own every time. It is the request's fault if its
        connection breaks again although the server has answered anything since the last break.
        """
        attempt = failed = 0
        lost_at = broken_at = 0.0
        while True:
            if self._new_terms:
                call = openai_requests.in_new_terms(call, self._new_terms) or call
            reply = await self._attempt(client, call)
            if isinstance(reply, Trouble) and openai_requests.in_new_terms(call, reply.message):
                self._new_terms = reply.message
                continue
            if isinstance(reply, bytes):
                self._server_answered()
                return self._read(request, call, reply)
            if reply.broken:
                if 0.0 < broken_at < self._last_answer:
                    reply = replace(reply, reason="server_error")
                broken_at = time.monotonic()
            if reply.reason is None:
                lost_at = lost_at or time.monotonic()
                longest = self._remaining_patience(lost_at, reply.message)
            else:
                failed += 1
                longest = math.inf
            if reply.reason and (reply.lasting or failed > self._teacher.retries):
                times = f", {failed} times" if failed > 1 else ""
                return Failure(request.id, reply.reason, f"{self._url}: {reply.message}{times}")
            await asyncio.sleep(min(longest, self._pause(attempt, reply.after)))
            if reply.broken and self._last_answer < broken_at:
                await self._probe(client)
            attempt += 1

    def _server_answered(self) -> None:
        self._last_answer = time.monotonic()
        self._user_knows = False

    async def _probe(self, client: Any) -> None:
        """Ask the server for its models, to learn whether it is up."""
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                await client.get("/models", cast_to=bytes)
        except APIStatusError as error:
            if error.status_code in openai_responses.AWAY:
                return
        except (TimeoutError, APIConnectionError):
            return
        self._server_answered()

    def _remaining_patience(self, lost_at: float, message: str) -> float:
        """Return the seconds to wait for a server that is away. Raises PipelineError after them.

        The wait began at `lost_at`, or when the server last answered, if that is later.
        """
        silent = time.monotonic() - max(lost_at, self._last_answer)
        patience = self._teacher.patience_s
        if silent >= patience:
            raise PipelineError(f"{self._url}: {message}; is the server up? {CONTINUES}")
        if silent > SILENCE_SECONDS and not self._user_knows:
            self._user_knows = True
            log.warning(f"{self._url}: {message}; waiting for the server, at most {patience:g} s")
        return patience - silent

    def _pause(self, attempt: int, after: float | None) -> float:
        """Draw the seconds before the next attempt, so that not all requests return together."""
        if after is not None:
            return min(after, self._teacher.patience_s) + random.uniform(0.0, FIRST_PAUSE_SECONDS)
        longest = FIRST_PAUSE_SECONDS * 2.0 ** min(attempt, 9)
        return random.uniform(0.0, min(LONGEST_PAUSE_SECONDS, longest))

    async def _attempt(self, client: Any, call: Call) -> bytes | Trouble:
        """Send a request once, and return the body of the reply.

        The body is sent as it is: the client's typed methods check every token of a prompt, which
        takes 15 µs each.
        """
        try:
            async with asyncio.timeout(self._teacher.timeout_s):
                return await client.post(call.path, body=call.body, cast_to=bytes)
        except TimeoutError:
            message = f"no answer within teacher.timeout_s={self._teacher.timeout_s:g}"
            return Trouble(message, "timed_out")
        except APIStatusError as error:
            return openai_responses.trouble(self._url, self._teacher.api_key_env, error)
        except APIConnectionError as error:
            cause = error.__cause__ or error
            sent = not isinstance(cause, ConnectError | ConnectTimeout)
            why = redacted(str(cause)) or type(cause).__name__
            return Trouble(f"no answer ({why})", broken=sent)

    def _read(self, request: Request, call: Call, body: bytes) -> Answer:
        try:
            reply = from_json(body)
            failed = openai_responses.failure(request, reply)
            return failed or call.read(request, reply)
        except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
            raise PipelineError(
                f"{self._url}: its reply to request {request.id} is not an OpenAI completion "
                f"({type(error).__name__}); does base_url end in /v1?"
            ) from error


def _run(loop: asyncio.AbstractEventLoop, work: "asyncio.Task[None]", answers: Answers) -> None:
    """Run the event loop in its thread. An error that ends it is the last of the answers."""
    try:
        loop.run_until_complete(work)
    except asyncio.CancelledError:
        pass
    except BaseException as error:
        answers.put(error.exceptions[0] if isinstance(error, BaseExceptionGroup) else error)
    finally:
        loop.run_until_complete(loop.shutdown_asyncgens())


def _drain(answers: Answers) -> list[Answer]:
    """Take the answers that are ready, after a short wait for the first one.

    Raises the error that ended the loop, once all answers before it are taken.
    """
    batch: list[Answer] = []
    try:
        item = answers.get(timeout=POLL_SECONDS)
        while not isinstance(item, BaseException):
            batch.append(item)
            item = answers.get_nowait()
    except queue.Empty:
        return batch
    if not batch:
        raise item
    answers.put(item)
    return batch
