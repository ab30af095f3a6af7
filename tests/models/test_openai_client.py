"""ServerModel alone, without a stage, against a small server on loopback.

The tests say whom it waits for, what it sends again, what it gives up, and what it reads. Whole
stages are in test_openai_runs.py.
"""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import numpy as np
import pytest

from pipeline.config import Engine, Teacher
from pipeline.errors import PipelineError
from pipeline.models.base import Answer, Completion, Failure, Request, Sampling
from pipeline.models.fake import TOKENIZER
from pipeline.models.openai_client import ServerModel
from pipeline.records import Rendered
from tests.support.openai_server import IDS, K, Reply, choice, good, row, serving

POISON = 13  # the request that goes wrong where others do not


def bad(status: int, message: str = "not now", **headers: str) -> Reply:
    return (
        status,
        {"error": {"message": message}},
        {name.replace("_", "-"): value for name, value in headers.items()},
    )


def poisoned(reply: Reply) -> Callable[[Any, int], Reply]:
    return lambda body, times: reply if body["prompt"][0] == POISON else good()


def first(*replies: Reply | None) -> Callable[[Any, int], Reply | None]:
    """Give these replies to the first times that a prompt comes, then good ones."""
    return lambda body, times: replies[times - 1] if times <= len(replies) else good()


def model(url: str, flight: int = 8, **settings: Any) -> ServerModel:
    fields = {
        "tokenizer": str(TOKENIZER),
        "logprobs": K,
        "retries": 1,
        "patience_s": 20.0,
        **settings,
    }
    return ServerModel(
        Teacher(
            backend="openai", model="m", base_url=url, engine=Engine(max_in_flight=flight), **fields
        )
    )


def request(number: int, **changes: Any) -> Request:
    return Request(
        **{
            "id": str(number),
            "rendered": Rendered(None, "x"),
            "token_ids": [number, 5],
            "seed": 1,
            **changes,
        }
    )


def ask(url: str, number: int = 16, flight: int = 8, **settings: Any) -> dict[int, Answer]:
    """Send the requests 0 to `number` - 1, and return the answers by number; each has one."""
    requests = (request(n) for n in range(number))
    answers = [
        a
        for batch in model(url, flight, **settings).generate(requests, Sampling(8, 1.0, logprobs=K))
        for a in batch
    ]
    assert len(answers) == number
    return {int(answer.id): answer for answer in answers}


def failures(answers: dict[int, Answer]) -> dict[int, Failure]:
    return {number: answer for number, answer in answers.items() if isinstance(answer, Failure)}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_server_that_comes_up_late_costs_nothing() -> None:
    """A refused connection is not the request's fault, whatever `retries` is."""
    port, over = free_port(), threading.Event()

    def later() -> None:
        time.sleep(0.3)
        with serving(good, port):
            over.wait(120)

    thread = threading.Thread(target=later)
    thread.start()
    try:
        assert not failures(ask(f"http://127.0.0.1:{port}/v1", number=4, retries=0))
    finally:
        over.set()
        thread.join()


def test_lost_connections_cost_nothing() -> None:
    """A server that dies breaks all requests in flight."""
    with serving(first(None)) as server:
        assert not failures(ask(server.url, number=8, retries=0))
    assert set(server.seen.values()) == {2}


def test_patience_ends() -> None:
    """The client would wait forever for a server that nobody started."""
    began = time.monotonic()
    with pytest.raises(
        PipelineError, match=r"no answer .*is the server up\? What is finished is kept"
    ):
        ask(f"http://127.0.0.1:{free_port()}/v1", patience_s=0.5)
    assert 0.5 <= time.monotonic() - began < 5


def test_overload_for_ever_ends_the_stage() -> None:
    """An exhausted quota looks like overload."""
    with (
        serving(lambda body, times: bad(429)) as server,
        pytest.raises(PipelineError, match="answers 429: not now; is the server up"),
    ):
        ask(server.url, patience_s=0.5)


def test_overload_of_one_is_waited_for_while_others_are_answered() -> None:
    """A rate limit hits requests by turns.

    A request that is unlucky for long is no sign of a lost server.
    """
    overloaded = time.monotonic() + 1.5

    def reply(body: Any, times: int) -> Reply:
        time.sleep(0.05)
        return (
            bad(429, Retry_After="0")
            if body["prompt"][0] == POISON and time.monotonic() < overloaded
            else good()
        )

    with serving(reply) as server:
        assert not failures(ask(server.url, number=45, flight=2, patience_s=0.6, retries=0))


@pytest.mark.parametrize("status", [429, 503])
def test_overload_does_not_count_as_failure(status: int) -> None:
    """An overloaded server would fill errors/ with good rows."""
    with serving(first(*[bad(status, Retry_After="0")] * 2)) as server:
        assert not failures(ask(server.url, number=4, retries=0))
    assert set(server.seen.values()) == {3}


def test_retry_after_is_kept_to() -> None:
    """Some servers ban clients that retry sooner. The header holds seconds or a date."""
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=2), usegmt=True)
    began = time.monotonic()
    with serving(
        lambda body, times: (
            bad(429, Retry_After=date if body["prompt"][0] else "1") if times == 1 else good()
        )
    ) as server:
        assert not failures(ask(server.url, number=2))
    assert sorted(server.times)[2] - began >= 0.9
    assert sorted(server.times)[3] - began < 10


def test_long_retry_after_is_cut_to_patience() -> None:
    """A server that asks for a day would hold the stage for a day."""
    with serving(first(bad(429, Retry_After="86400"))) as server:
        assert not failures(ask(server.url, number=1, patience_s=0.7))


def test_one_poisoned_request_fails_alone() -> None:
    """One prompt that breaks the server's code once ended a run over night."""
    with serving(poisoned(bad(500, "kaboom"))) as server:
        failed = failures(ask(server.url, retries=1))
    assert [(number, failure.reason) for number, failure in failed.items()] == [
        (POISON, "server_error")
    ]
    assert failed[POISON].message == f"{server.url}: answers 500: kaboom, 2 times"
    assert server.seen[POISON] == 2


def test_request_that_breaks_its_connection_fails_alone() -> None:
    """A prompt that kills the server's worker looked like a lost server and ended the stage."""
    with serving(lambda body, times: None if body["prompt"][0] == POISON else good()) as server:
        failed = failures(ask(server.url, retries=1, patience_s=2.0))
    assert [(number, failure.reason) for number, failure in failed.items()] == [
        (POISON, "server_error")
    ]
    assert "no answer" in failed[POISON].message
    assert server.seen[POISON] == 3  # the first time could be the server's own death


def test_request_that_breaks_its_connection_while_others_are_answered() -> None:
    """While others are answered, it would be sent forever."""

    def reply(body: Any, times: int) -> Reply | None:
        time.sleep(0.05)
        return None if body["prompt"][0] == 0 else good()

    with serving(reply) as server:
        failed = failures(ask(server.url, number=80, flight=2, retries=0))
    assert [(number, failure.reason) for number, failure in failed.items()] == [(0, "server_error")]
    assert server.seen[0] == 2


def test_server_that_dies_again_and_again_is_waited_for() -> None:
    """Connections that a server breaks while it is down are not the request's fault."""

    def reply(body: Any, times: int) -> Reply | None:
        server.is_up = times > 3
        return None if times <= 3 else good()

    with serving(reply) as server:
        assert not failures(ask(server.url, number=1, retries=0))
    assert server.seen[0] == 4


def test_passing_error_is_tried_again() -> None:
    """A 500 now and then is normal for a server."""
    with serving(first(bad(500))) as server:
        assert not failures(ask(server.url, number=8, retries=1))


def test_time_out_fails_one_request() -> None:
    """A reply that never ends would hold its place forever."""
    over = threading.Event()

    def reply(body: Any, times: int) -> Reply:
        if body["prompt"][0] == POISON:
            over.wait(20)
        return good()

    with serving(reply) as server:
        failed = failures(ask(server.url, timeout_s=0.7, retries=1))
        over.set()
    assert [(number, failure.reason) for number, failure in failed.items()] == [
        (POISON, "timed_out")
    ]
    assert server.seen[POISON] == 2


@pytest.mark.parametrize(
    ("status", "message", "reason"),
    [
        (400, "logprobs of 4 is above max_logprobs", "refused"),
        (422, "min_p must be in [0, 1]", "refused"),
        (413, "request entity too large", "refused"),
        (
            400,
            "This model's maximum context length is 64 tokens. "
            "However, your prompt contains 90 input tokens",
            "too_long",
        ),
        (400, "prompt (90) is longer than the maximum model length of 64", "too_long"),
        (400, "total length (90) exceeds max_model_len (64)", "too_long"),
    ],
)
def test_refused_request_is_not_sent_again(status: int, message: str, reason: str) -> None:
    """The second answer would be the same, and the server's message says what to fix."""
    with serving(poisoned(bad(status, message))) as server:
        failed = failures(ask(server.url))
    assert [(number, failure.reason) for number, failure in failed.items()] == [(POISON, reason)]
    assert message in failed[POISON].message
    assert server.seen[POISON] == 1


@pytest.mark.parametrize(
    ("status", "hint"),
    [
        (401, "right key in OPENAI_API_KEY"),
        (403, "OPENAI_API_KEY"),
        (404, "teacher.model"),
        (405, "/v1"),
    ],
)
def test_what_is_wrong_for_all_ends_the_stage(status: int, hint: str) -> None:
    """A million failures of one cause are one error."""
    with (
        serving(lambda body, times: bad(status)) as server,
        pytest.raises(PipelineError, match=f"answers {status}: not now.*{hint}"),
    ):
        ask(server.url)
    assert len(server.times) <= 8


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (good(token_ids=None), "gives no token ids"),
        (good(logprobs=None), "gives no logprobs for its tokens; raise its --max-logprobs to 3"),
        (
            good(logprobs={"token_logprobs": [-1.0] * 3, "top_logprobs": [{" a": -1.0}] * 3}),
            "names tokens by text",
        ),
        (
            good(
                logprobs={
                    "token_logprobs": [-1.0] * 3,
                    "top_logprobs": [{"token_id:1": -1.0}, {" a": -1.0}, {}],
                }
            ),
            "not an OpenAI completion",
        ),
        ((200, {"choices": []}, {}), "not an OpenAI completion"),
        ((200, [], {}), "not an OpenAI completion"),
        (
            (200, "<html>hello</html>", {"Content-Type": "text/html"}),
            r"not an OpenAI completion .*base_url end in /v1\?",
        ),
    ],
)
def test_wrong_server_ends_the_stage(reply: Reply, expected: str) -> None:
    """A server that does not answer as vLLM does is no fault of a row."""
    with serving(lambda body, times: reply) as server, pytest.raises(PipelineError, match=expected):
        ask(server.url)


def test_room_is_kept_to() -> None:
    """More requests in flight than the user allows overload small servers."""

    def reply(body: Any, times: int) -> Reply:
        time.sleep(0.02)
        return good()

    with serving(reply) as server:
        assert not failures(ask(server.url, number=30, flight=5))
    assert server.most_in_flight == 5


def test_two_hundred_at_once() -> None:
    """A connection pool smaller than max_in_flight would be the real limit, unnoticed."""
    together = threading.Barrier(200, timeout=10)

    def reply(body: Any, times: int) -> Reply:
        together.wait()
        return good()

    with serving(reply) as server:
        assert not failures(ask(server.url, number=200, flight=200))


def test_requests_are_drawn_in_the_callers_thread() -> None:
    """Drawing requests claims shards, which would race with storing answers in another thread."""
    threads = set()

    def requests() -> Iterator[Request]:
        for number in range(20):
            threads.add(threading.get_ident())
            yield request(number)

    with serving(good) as server:
        for _ in model(server.url, flight=2).generate(requests(), Sampling(8)):
            pass
    assert threads == {threading.get_ident()}


def test_closing_does_not_wait_for_answers() -> None:
    """Ctrl-C would hang as long as a slow server does."""
    over = threading.Event()

    def reply(body: Any, times: int) -> Reply:
        over.wait(20)
        return good()

    with serving(reply) as server:
        answers = model(server.url).generate((request(n) for n in range(20)), Sampling(8))
        assert next(answers) == []
        began = time.monotonic()
        answers.close()  # type: ignore[attr-defined]
        assert time.monotonic() - began < 1
        assert "openai" not in [thread.name for thread in threading.enumerate()]
        over.set()


def test_what_is_sent_and_read() -> None:
    """A lost field silently changes every sample.

    Entries in the server's order would misplace the tail.
    """
    changed = {
        "token_logprobs": [-0.5, -7.0, -9999.0],
        "top_logprobs": choice()["logprobs"]["top_logprobs"],
    }
    changed["top_logprobs"][1] = {
        "token_id:71": -7.0,
        "token_id:9": -2.0,
        "token_id:8": -1.5,
        "token_id:7": -0.1,
    }
    changed["top_logprobs"][2] = {"token_id:72": -9999.0, "token_id:9": -0.1}
    with serving(lambda body, times: good(logprobs=changed)) as server:
        requests = [request(1, stop=("\n",), seed=9)]
        ((answer,),) = [
            batch
            for batch in model(server.url).generate(requests, Sampling(8, 0.5, 0.9, 7, K))
            if batch
        ]
    sent = {
        "max_tokens": 8,
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 7,
        "logprobs": K,
        "prompt": [1, 5],
        "stop": ["\n"],
        "seed": 9,
    }
    assert sent.items() <= server.bodies[0].items()
    assert isinstance(answer, Completion)
    assert answer.topk is not None
    assert answer.token_ids == IDS
    assert answer.topk.ids.tolist() == [[70, 70, 8, 9], [71, 7, 8, 9], [72, 9, 72, 0]]
    inf = np.inf
    expected = [[-0.5, -0.5, -1.5, -2.0], [-7.0, -0.1, -1.5, -2.0], [-inf, -0.1, -inf, -inf]]
    np.testing.assert_array_equal(answer.topk.logprobs, np.array(expected, np.float32))


def test_empty_reply_has_an_empty_table() -> None:
    """A model may end at once."""
    with serving(
        lambda body, times: good(token_ids=[], logprobs={"token_logprobs": [], "top_logprobs": []})
    ) as server:
        answer = ask(server.url, number=1)[0]
    assert isinstance(answer, Completion)
    assert answer.topk is not None
    assert answer.topk.ids.shape == (0, 1 + K)


@pytest.mark.parametrize("url", ["127.0.0.1:8000/v1", "http:/127.0.0.1/v1", "http://host:port/v1"])
def test_url_that_is_none_is_refused_at_once(url: str) -> None:
    """The client would wait for it as for a server that is away."""
    with pytest.raises(PipelineError, match=r"teacher\.base_url: .* is no URL"):
        model(url)


PROMPT_ROWS = [None, row((5, -1.0), (6, -2.0))]
GIVEN_ROWS = [
    row((70, -0.5), (9, -1.0), (8, -2.0)),
    row((71, -9999.0), (9, -0.2), (8, -2.0), (7, -3.0)),
]


def score(rows: Any) -> tuple[Answer, Any]:
    """Score the text [70, 71] after the prompt [1, 5].

    Return the answer and the JSON that was sent.
    """
    with serving(lambda body, times: good(prompt_logprobs=rows)) as server:
        ((answer,),) = [
            batch for batch in model(server.url).score([request(1, reply_ids=[70, 71])], K) if batch
        ]
    return answer, server.bodies[0]


def test_score_reads_the_given_tokens() -> None:
    """The prompt's rows come first; one off, and every token has its neighbour's distribution."""
    answer, sent = score([*PROMPT_ROWS, *GIVEN_ROWS])
    assert {
        "prompt": [1, 5, 70, 71],
        "prompt_logprobs": K,
        "max_tokens": 1,
        "temperature": 0,
    }.items() <= sent.items()
    assert isinstance(answer, Completion)
    assert answer.topk is not None
    assert (
        answer.token_ids,
        answer.finish_reason,
        answer.usage.prompt_tokens,
        answer.usage.completion_tokens,
    ) == ([70, 71], "stop", 2, 2)
    assert answer.topk.ids.tolist() == [[70, 70, 9, 8], [71, 9, 8, 7]]
    np.testing.assert_array_equal(
        answer.topk.logprobs,
        np.array([[-0.5, -0.5, -1.0, -2.0], [-np.inf, -0.2, -2.0, -3.0]], np.float32),
    )


@pytest.mark.parametrize(
    "rows",
    [
        [*PROMPT_ROWS, *reversed(GIVEN_ROWS)],
        [*PROMPT_ROWS, GIVEN_ROWS[0]],
        [*PROMPT_ROWS, GIVEN_ROWS[0], None],
    ],
    ids=["shifted", "short", "null"],
)
def test_misaligned_score_is_a_failure(rows: Any) -> None:
    """Distributions of other tokens would silently train the student on nonsense."""
    answer, _ = score(rows)
    assert isinstance(answer, Failure)
    assert answer.reason == "misaligned"


def test_server_that_cannot_score_ends_the_stage() -> None:
    """Most servers ignore prompt_logprobs."""
    with pytest.raises(PipelineError, match="gives no prompt_logprobs"):
        score(None)


def test_score_needs_the_tokenizer() -> None:
    """Text cannot be scored without its ids."""
    with pytest.raises(PipelineError, match=r"teacher\.tokenizer: .* set it"):
        model("http://127.0.0.1:1/v1", tokenizer=None, logprobs=0).score([], K)


def test_reasoning_models_take_another_name_for_the_limit() -> None:
    """The OpenAI API refuses max_tokens for its reasoning models; every request was lost."""
    refusal = (
        "Unsupported parameter: 'max_tokens' is not supported with this model. "
        "Use 'max_completion_tokens' instead."
    )

    def reply(body: Any, times: int) -> Reply:
        return bad(400, refusal) if "max_tokens" in body else good()

    with serving(reply) as server:
        answers = ask(server.url, 8, flight=1)
        limits = [body.get("max_completion_tokens") for body in server.bodies]
    assert failures(answers) == {}
    assert len(limits) == 9
    assert limits[0] is None
    assert set(limits[1:]) == {8}
