"""Keys and passwords are taken out of texts."""

import base64

import pytest

from pipeline.execution import redaction
from pipeline.execution.redaction import redacted, without_logins

KEY = "correct-horse/battery+staple"


@pytest.mark.parametrize(
    "text",
    [
        f"invalid key {KEY}.",
        f"invalid header 'Authorization: Bearer {KEY}'",
        "at /v1?key=correct-horse%2Fbattery%2Bstaple",
        "Basic " + base64.b64encode(KEY.encode()).decode(),
    ],
)
def test_a_known_secret_is_hidden_however_it_is_written(text: str) -> None:
    """A server may repeat the key in another notation."""
    redaction.hide(KEY)
    shown = redacted(text)
    assert "***" in shown
    assert "staple" not in shown
    assert base64.b64encode(KEY.encode()).decode() not in shown


@pytest.mark.parametrize(
    "text",
    [
        "Authorization: Bearer abcdefgh12345678",
        '{"authorization": "Bearer abcdefgh12345678"}',
        "{'x-api-key': 'abcdefgh12345678'}",
        "api_key=abcdefgh12345678",
        "got Basic abcdefgh12345678=",
        "http://user:abcdefgh12345678@host/v1: refused",
        "https://abcdefgh12345678@host",
        "proxy http://u:p/abcdefgh12345678@host:80 failed",
    ],
)
def test_headers_and_logins_are_hidden(text: str) -> None:
    """Also of keys that this process does not know, such as a proxy's."""
    assert "***" in redacted(text)
    assert "abcdefgh" not in redacted(text)


@pytest.mark.parametrize(
    "text",
    [
        "the bearer of good news",
        "basic arithmetic, please",
        "http://127.0.0.1:8000/v1: answers 404: not found",
        "is the right key in OPENAI_API_KEY?",
        "write to me@example.com",
    ],
)
def test_plain_messages_are_not_changed(text: str) -> None:
    """A message with stars in it says less."""
    assert redacted(text) == text


def test_stored_urls_have_no_login() -> None:
    """begun.json is shared with the run, and read again."""
    stored = {
        "teacher": {"base_url": "https://me:pa@ss@host:1/v1", "model": "a@b"},
        "judge": {"base_url": "http://me:pa/ss@host/v1"},
        "paths": ["hf://datasets/me/it@main/file.jsonl", "http://token@host/x@y"],
    }
    assert without_logins(stored) == {
        "teacher": {"base_url": "https://host:1/v1", "model": "a@b"},
        "judge": {"base_url": "http://host/v1"},
        "paths": ["hf://datasets/me/it@main/file.jsonl", "http://host/x@y"],
    }
