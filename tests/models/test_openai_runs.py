"""Whole generate stages against a small server on loopback.

It answers as vLLM does, or with typical errors. test_openai_client.py tests the client alone.
"""

import json
import shutil
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest

from pipeline.config import load
from pipeline.errors import PipelineError
from pipeline.execution import runner
from pipeline.models.fake import TOKENIZER
from pipeline.models.tokenizer import Tokenizer
from pipeline.records import Sample
from pipeline.stages import generate
from pipeline.storage.shards import read_records
from pipeline.storage.topk import TopKFolder

REPLY = " yes, it is even\n"
KEY = "secret-of-the-test"


class Handler(BaseHTTPRequestHandler):
    """Answers by `mode`.

    The modes: ok, no_ids, busy (503 once per prompt), down (always 500), wrong (400), page (HTML),
    empty (no choices), odd (unknown finish reason).
    """

    mode: ClassVar[str] = "ok"
    seen: ClassVar[Counter[str]] = Counter()
    bodies: ClassVar[list[dict[str, Any]]] = []

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        key = json.dumps(body.get("prompt") or body.get("messages"))
        type(self).seen[key] += 1
        type(self).bodies.append(body)
        if self.mode == "wrong":
            return self.answer(
                400, {"message": "logprobs of 4 is above max_logprobs", "type": "BadRequestError"}
            )
        if self.mode == "down" or (self.mode == "busy" and self.seen[key] == 1):
            return self.answer(503 if self.mode == "busy" else 500, {"message": "not now"})
        if self.mode == "page":
            return self.answer(200, "<html>hello</html>")
        if self.mode == "empty":
            return self.answer(200, {**self.completion(body), "choices": []})
        return self.answer(200, self.chat() if "messages" in body else self.completion(body))

    def completion(self, body: dict[str, Any]) -> dict[str, Any]:
        ids = Tokenizer(str(TOKENIZER)).encode_reply(REPLY)
        k = body.get("logprobs") or 0
        logprobs = {
            "tokens": [f"token_id:{i}" for i in ids],
            "token_logprobs": [-0.25 for _ in ids],
            "top_logprobs": [
                {f"token_id:{(i + j) % 263}": -0.25 - 2 * j for j in range(k)} for i in ids
            ],
            "text_offset": [],
        }
        choice = {
            "index": 0,
            "text": REPLY,
            "finish_reason": "tool_calls" if self.mode == "odd" else "stop",
            "logprobs": logprobs,
        }
        if self.mode != "no_ids":
            choice["token_ids"] = ids
        return {
            "id": "1",
            "object": "text_completion",
            "created": 1,
            "model": "m",
            "choices": [choice],
        }

    def chat(self) -> dict[str, Any]:
        choice = {
            "index": 0,
            "message": {"role": "assistant", "content": REPLY},
            "finish_reason": "stop",
            "logprobs": None,
        }
        usage = {"prompt_tokens": 5, "completion_tokens": 6, "total_tokens": 11}
        return {
            "id": "1",
            "object": "chat.completion",
            "created": 1,
            "model": "m",
            "choices": [choice],
            "usage": usage,
        }

    def answer(self, status: int, body: dict[str, Any] | str) -> None:
        data = body.encode() if isinstance(body, str) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header(
            "Content-Type", "text/html" if isinstance(body, str) else "application/json"
        )
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args: Any) -> None:
        pass


@contextmanager
def serving(mode: str) -> Iterator[str]:
    Handler.mode, Handler.seen, Handler.bodies = mode, Counter(), []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def run(workshop: Path, url: str, *overrides: str) -> list[Sample]:
    teacher = [
        "teacher.backend=openai",
        f"teacher.base_url={url}",
        f"teacher.tokenizer={TOKENIZER}",
    ]
    config = load(
        workshop / "config.yaml",
        [*teacher, "teacher.retries=1", "teacher.patience_s=1", *overrides],
    )
    runner.execute(generate, config)
    return list(read_records(workshop / "run" / "generate", Sample))


def test_ids_and_logprobs_come_by_id(workshop: Path) -> None:
    """Keyed by text, ids that decode to the same text would collapse."""
    with serving("ok") as url:
        samples = run(workshop, url)
    assert len(samples) == 60
    frames = TopKFolder(workshop / "run" / "generate")
    for sample in samples:
        assert sample.frame is not None
        assert frames.topk_of(sample).ids[:, 0].tolist() == sample.token_ids
    assert all(
        body["return_token_ids"]
        and body["return_tokens_as_token_ids"]
        and body["temperature"] == 1.0
        for body in Handler.bodies
    )
    assert len({body["seed"] for body in Handler.bodies}) == 60


def test_passing_trouble_is_tried_again(workshop: Path) -> None:
    """A 503 now and then is normal for a server."""
    with serving("busy") as url:
        assert len(run(workshop, url)) == 60
    assert max(Handler.seen.values()) > 1


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("down", "requests failed.* as server_error: .*500"),
        ("wrong", "requests failed.* as refused: .*logprobs of 4 is above max_logprobs"),
        ("no_ids", "gives no token ids"),
        ("page", r"is not an OpenAI completion .*does base_url end in /v1\?"),
        ("empty", "is not an OpenAI completion"),
    ],
)
def test_lasting_trouble_is_one_clear_error(workshop: Path, mode: str, expected: str) -> None:
    """The message has the server's status and words, and no sample is lost."""
    with serving(mode) as url, pytest.raises(PipelineError, match=expected):
        run(workshop, url)


def test_server_that_is_not_there(workshop: Path) -> None:
    """The most common mistake: the message asks whether the server is up."""
    with serving("ok") as url:
        pass
    with pytest.raises(PipelineError, match=r"no answer .*is the server up\?"):
        run(workshop, url)


def test_text_only_server(workshop: Path) -> None:
    """Any OpenAI-compatible server will do for SFT, by chat."""
    (workshop / "prompt.md").write_text(
        '---\nanswer: {end: [",", "\\n"]}\n---\nIs {{ number }} even?'
    )
    with serving("ok") as url:
        samples = run(
            workshop,
            url,
            "teacher.tokenizer=null",
            "teacher.logprobs=0",
            "train.arms={sft: {method: sft}}",
        )
    assert all(sample.token_ids is None and sample.answer == "yes" for sample in samples)
    assert samples[0].usage.completion_tokens == 6


def test_unknown_finish_reason_is_an_unfinished_reply(workshop: Path) -> None:
    """Servers have finish reasons of their own; filters must not take them for a normal stop."""
    with serving("odd") as url:
        assert {sample.finish_reason for sample in run(workshop, url)} == {"error"}


def test_changed_tokenizer_folder_is_noticed(workshop: Path) -> None:
    """Under the same name, half of the samples would have been made from other token ids."""
    folder = workshop / "tokenizer"
    shutil.copytree(TOKENIZER, folder)
    with serving("ok") as url:
        run(workshop, url, f"teacher.tokenizer={folder}")
        (folder / "tokenizer_config.json").write_text(
            (folder / "tokenizer_config.json").read_text() + " "
        )
        with pytest.raises(PipelineError, match="model tokenizer: sha256"):
            run(workshop, url, f"teacher.tokenizer={folder}")


def test_broken_key_is_refused_without_being_shown(
    workshop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A header error once printed the whole key."""
    monkeypatch.setenv("OPENAI_API_KEY", "secret\x07key")
    with (
        serving("ok") as url,
        pytest.raises(PipelineError, match="OPENAI_API_KEY holds cannot be a key") as caught,
    ):
        run(workshop, url)
    assert "secret" not in str(caught.value)


def test_the_key_is_written_nowhere(workshop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run folders are shared; keys are not."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with serving("ok") as url:
        run(workshop, url)
    assert not [
        path
        for path in (workshop / "run").rglob("*")
        if path.is_file() and KEY.encode() in path.read_bytes()
    ]
