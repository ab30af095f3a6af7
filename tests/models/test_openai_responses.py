"""Replies of servers that differ from those of OpenAI: errors in place of answers, reasoning."""

from pathlib import Path
from typing import Any

import pytest

from pipeline.data import prompts, replies
from pipeline.models.base import Completion, Failure, Request
from pipeline.models.openai_responses import failure, with_text
from pipeline.records import Rendered

REQUEST = Request("a/0", Rendered(({"role": "user", "content": "q"},), None), None, None, (), None)


def read(usage: Any = None, **message: Any) -> Completion:
    reply = {"choices": [{"finish_reason": "stop", "message": message}], "usage": usage}
    assert failure(REQUEST, reply) is None
    return with_text(REQUEST, reply)


@pytest.mark.parametrize(
    ("reply", "reason", "message"),
    [
        ({"error": {"message": "Provider failed", "code": 502}}, "server_error", "Provider failed"),
        ({"error": "overloaded"}, "server_error", "overloaded"),
        ({"error": {"message": "exceeds the context length"}}, "too_long", "context length"),
        ({"choices": [{"error": {"message": "upstream"}}]}, "server_error", "upstream"),
        ({"choices": []}, "server_error", "without choices"),
        ({"choices": None}, "server_error", "without choices"),
    ],
)
def test_an_error_under_status_200_fails_one_request(reply: Any, reason: str, message: str) -> None:
    """It ended the stage, each time that the command was given."""
    found = failure(REQUEST, reply)
    assert isinstance(found, Failure)
    assert found.reason == reason
    assert message in found.message


@pytest.mark.parametrize(
    "message",
    [
        {"content": "4", "reasoning_content": "two and two"},
        {"content": "4", "reasoning": "two and two"},
        {
            "content": [
                {"type": "thinking", "thinking": [{"type": "text", "text": "two and two"}]},
                {"type": "text", "text": "4"},
            ]
        },
    ],
)
def test_reasoning_beside_the_text_is_the_rationale(
    tmp_path: Path, message: dict[str, Any]
) -> None:
    """It was dropped without a word, or ended the stage with a traceback."""
    path = tmp_path / "p.md"
    for rationale in ("think", '{end: "Answer:"}'):
        path.write_text(f"---\nrationale: {rationale}\n---\n{{{{ text }}}}\n")
        reading = replies.read(prompts.load(path), read(**message), None)
        assert (reading.rationale, reading.answer) == ("two and two", "4")


def test_markers_in_the_text_come_before_reasoning(tmp_path: Path) -> None:
    """A teacher that writes its rationale as the prompt asks is read as before."""
    path = tmp_path / "p.md"
    path.write_text('---\nrationale: {end: "So:"}\nanswer: {start: "So:"}\n---\n{{ text }}\n')
    completion = read(content="as asked So: 4", reasoning="hidden")
    assert replies.read(prompts.load(path), completion, None).rationale == "as asked"


@pytest.mark.parametrize("content", [None, [], ""])
def test_missing_content_and_usage_are_empty(content: Any) -> None:
    """Null in place of a text or of the token counts is no broken reply."""
    completion = read({"prompt_tokens": None}, content=content)
    assert (completion.text, completion.reasoning) == ("", None)
    assert completion.usage.prompt_tokens == 0
