"""Whole generate stages against a small server on loopback.

It answers as vLLM does, or with typical errors. test_openai_client.py tests the client alone.
"""

import contextlib
import shutil
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

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
from tests.support.openai_server import Reply, serving

TEXT = " yes, it is even\n"
IDS = Tokenizer(str(TOKENIZER)).encode_reply(TEXT)
KEY = "secret-of-the-test"


def completion(body: Any, times: int = 1, **changes: Any) -> Reply:
    """Answer a prompt of token ids."""
    k = body.get("logprobs") or 0
    tops = [{f"token_id:{(i + j) % 263}": -0.25 - 2 * j for j in range(k)} for i in IDS]
    choice = {
        "text": TEXT,
        "finish_reason": "stop",
        "token_ids": IDS,
        "logprobs": {"token_logprobs": [-0.25 for _ in IDS], "top_logprobs": tops},
        **changes,
    }
    return 200, {"choices": [choice]}, {}


def chat(body: Any, times: int = 1) -> Reply:
    """Answer a list of messages."""
    choice = {"message": {"role": "assistant", "content": TEXT}, "finish_reason": "stop"}
    usage = {"prompt_tokens": 5, "completion_tokens": 6, "total_tokens": 11}
    return 200, {"choices": [choice], "usage": usage}, {}


def always(reply: Reply) -> Callable[[Any, int], Reply]:
    return lambda body, times: reply


def error(status: int, message: str) -> Reply:
    return status, {"message": message}, {}


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
    with serving(completion) as server:
        samples = run(workshop, server.url)
    assert len(samples) == 60
    frames = TopKFolder(workshop / "run" / "generate")
    for sample in samples:
        assert sample.frame is not None
        assert frames.topk_of(sample).ids[:, 0].tolist() == sample.token_ids
    assert all(
        body["return_token_ids"]
        and body["return_tokens_as_token_ids"]
        and body["temperature"] == 1.0
        for body in server.bodies
    )
    assert len({body["seed"] for body in server.bodies}) == 60


def test_passing_trouble_is_tried_again(workshop: Path) -> None:
    """A 503 now and then is normal for a server."""
    prompts: Counter[str] = Counter()

    def busy(body: Any, times: int) -> Reply:
        prompt = str(body["prompt"])
        prompts[prompt] += 1
        return error(503, "not now") if prompts[prompt] == 1 else completion(body)

    with serving(busy) as server:
        assert len(run(workshop, server.url)) == 60
    assert max(prompts.values()) > 1


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (always(error(500, "not now")), "requests failed.* as server_error: .*500"),
        (
            always(error(400, "logprobs of 4 is above max_logprobs")),
            "requests failed.* as refused: .*logprobs of 4 is above max_logprobs",
        ),
        (partial(completion, token_ids=None), "gives no token ids"),
        (
            always((200, "<html>hello</html>", {"Content-Type": "text/html"})),
            r"is not an OpenAI completion .*does base_url end in /v1\?",
        ),
        (always((200, {"choices": []}, {})), "is not an OpenAI completion"),
    ],
    ids=["down", "wrong", "no_ids", "page", "empty"],
)
def test_lasting_trouble_is_one_clear_error(
    workshop: Path, reply: Callable[[Any, int], Reply], expected: str
) -> None:
    """The message has the server's status and words, and no sample is lost."""
    with serving(reply) as server, pytest.raises(PipelineError, match=expected):
        run(workshop, server.url)


def test_server_that_is_not_there(workshop: Path) -> None:
    """The most common mistake: the message asks whether the server is up."""
    with serving(completion) as server:
        pass
    with pytest.raises(PipelineError, match=r"no answer .*is the server up\?"):
        run(workshop, server.url)


def test_text_only_server(workshop: Path) -> None:
    """Any OpenAI-compatible server will do for SFT, by chat."""
    (workshop / "prompt.md").write_text(
        '---\nanswer: {end: [",", "\\n"]}\n---\nIs {{ number }} even?'
    )
    with serving(chat) as server:
        samples = run(
            workshop,
            server.url,
            "teacher.tokenizer=null",
            "teacher.logprobs=0",
            "train.arms={sft: {method: sft}}",
        )
    assert all(sample.token_ids is None and sample.answer == "yes" for sample in samples)
    assert samples[0].usage.completion_tokens == 6


def test_unknown_finish_reason_is_an_unfinished_reply(workshop: Path) -> None:
    """Servers have finish reasons of their own; filters must not take them for a normal stop."""
    with serving(partial(completion, finish_reason="tool_calls")) as server:
        assert {sample.finish_reason for sample in run(workshop, server.url)} == {"error"}


def test_changed_tokenizer_folder_is_noticed(workshop: Path) -> None:
    """Under the same name, half of the samples would have been made from other token ids."""
    folder = workshop / "tokenizer"
    shutil.copytree(TOKENIZER, folder)
    with serving(completion) as server:
        run(workshop, server.url, f"teacher.tokenizer={folder}")
        (folder / "tokenizer_config.json").write_text(
            (folder / "tokenizer_config.json").read_text() + " "
        )
        with pytest.raises(PipelineError, match="model tokenizer: sha256"):
            run(workshop, server.url, f"teacher.tokenizer={folder}")


def test_broken_key_is_refused_without_being_shown(
    workshop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A header error once printed the whole key."""
    monkeypatch.setenv("OPENAI_API_KEY", "secret\x07key")
    with (
        serving(completion) as server,
        pytest.raises(PipelineError, match="OPENAI_API_KEY holds cannot be a key") as caught,
    ):
        run(workshop, server.url)
    assert "secret" not in str(caught.value)


def test_the_key_is_written_nowhere(workshop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run folders are shared; keys are not."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with serving(completion) as server:
        run(workshop, server.url)
    assert not [
        path
        for path in (workshop / "run").rglob("*")
        if path.is_file() and KEY.encode() in path.read_bytes()
    ]


@pytest.mark.parametrize("status", [400, 401, 500])
def test_what_a_server_repeats_of_the_key_is_hidden(
    status: int, workshop: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Some servers repeat the Authorization header of a request that they refuse."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    message = f"bad header: {{'Authorization': 'Bearer {KEY}'}} of {KEY}"
    reply: Reply = (status, {"error": {"message": message}}, {})
    raised = "***"
    with serving(lambda body, times: reply) as server:
        try:
            run(workshop, server.url, "teacher.retries=0", "generate.max_error_rate=1.0")
        except PipelineError as error:
            raised = str(error)
    assert KEY not in raised
    assert "***" in raised
    content = [path.read_bytes() for path in (workshop / "run").rglob("*") if path.is_file()]
    assert not [part for part in content if KEY.encode() in part]
    assert KEY not in caplog.text


def test_the_password_of_a_url_is_written_nowhere(workshop: Path) -> None:
    """A run folder is shared; its begun.json holds the config."""
    failing: Reply = (400, {"error": {"message": "refused"}}, {})
    with serving(lambda body, times: completion(body, times) if times > 1 else failing) as server:
        url = server.url.replace("://", "://user:pass%40word@")
        with contextlib.suppress(PipelineError):
            run(workshop, url, "teacher.retries=0", "generate.max_error_rate=1.0")
    content = [path.read_bytes() for path in (workshop / "run").rglob("*") if path.is_file()]
    assert any(b"base_url" in part for part in content)
    assert not [part for part in content if b"word@" in part or b"%40word" in part]


@pytest.mark.parametrize("url", ["http://user:pa/word@host/v1", "ftp://user:word@host/v1"])
def test_a_bad_url_is_refused_without_its_password(url: str, workshop: Path) -> None:
    """A password with a slash makes a URL that no library can read."""
    with pytest.raises(PipelineError, match="is no URL of a server") as caught:
        run(workshop, url)
    assert "word" not in str(caught.value)


@pytest.mark.parametrize("section", ["teacher", "filter.judge"])
@pytest.mark.parametrize(
    "key",
    [
        "sk-proj-Ab12",
        "sk_live_abcdefgh",
        "hf_abcdefghijkl",
        "AKIAIOSFODNN7EXAMPLE",
        "0123456789abcdef0123456789abcdef",
        "eyJhbGciOiJIUzI1NiJ9.e30.x",
        "Bearer abc",
    ],
)
def test_a_key_in_place_of_its_variable_is_refused_without_being_shown(
    key: str, section: str, workshop: Path
) -> None:
    """The variable's name is printed in messages and written to begun.json."""
    with pytest.raises(PipelineError, match="no name of an environment variable") as caught:
        load(workshop / "config.yaml", [f"{section}.api_key_env='{key}'"])
    assert key not in str(caught.value)


@pytest.mark.parametrize(
    "name", ["OPENAI_API_KEY", "MY_KEY", "my_key", "KEY2", "AZURE_OPENAI_API_KEY_2026"]
)
def test_names_of_variables_are_accepted(name: str, workshop: Path) -> None:
    """A name is not a key because it holds a digit."""
    assert load(workshop / "config.yaml", [f"teacher.api_key_env={name}"])


def test_the_servers_own_words_are_printed(workshop: Path) -> None:
    """Only files in errors/ said what the server had said."""
    broken = {"error": {"message": "Provider returned error", "code": 502}}

    def reply(body: Any, times: int) -> Reply:
        return completion(body) if times % 2 else (200, broken, {})

    with serving(reply) as server:
        run(workshop, server.url, "generate.max_error_rate=1", "teacher.retries=0")
    summary = generate.summary(load(workshop / "config.yaml"))
    assert "server_error; the last: " in summary
    assert "Provider returned error" in summary
