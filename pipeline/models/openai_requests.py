"""Requests to an OpenAI-compatible server: address, key, and the JSON that is sent.

A server whose tokenizer is known gets token ids and returns logprobs by id, as vLLM does. Any other
server gets and returns text.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from pipeline.config import Teacher
from pipeline.errors import PipelineError
from pipeline.execution.redaction import hide, hide_login, redacted
from pipeline.models import openai_responses
from pipeline.models.base import Answer, Request, Sampling
from pipeline.models.tokenizer import Tokenizer

NEW_LIMIT = "max_completion_tokens"
BY_IDS = {
    "return_token_ids": True,
    "return_tokens_as_token_ids": True,
    "add_special_tokens": False,
}


@dataclass(frozen=True)
class Call:
    """The path and the JSON body of one request, and the function that reads the JSON reply."""

    path: str
    body: dict[str, Any]
    read: Callable[[Request, Any], Answer]


def generation(
    teacher: Teacher, tokenizer: Tokenizer | None, sampling: Sampling, request: Request
) -> Call:
    """Return the call that generates a reply. Raises PipelineError if chat needs messages."""
    where = redacted(teacher.base_url or "")
    body: dict[str, Any] = {
        "model": teacher.model,
        "max_tokens": sampling.max_tokens,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
    }
    if request.seed is not None:
        body["seed"] = request.seed
    if request.stop:
        body["stop"] = list(request.stop)
    if tokenizer is None or request.token_ids is None:
        return _by_messages(sampling, request, body)
    body |= {
        "prompt": request.token_ids,
        "top_k": sampling.top_k,
        **BY_IDS,
        "skip_special_tokens": True,
        "include_stop_str_in_output": True,
    }
    if ends := tokenizer.end_ids - {tokenizer.eos_id}:
        body["stop_token_ids"] = sorted(ends)
    if sampling.logprobs:
        body["logprobs"] = sampling.logprobs
    read = partial(openai_responses.with_ids, where, tokenizer, sampling.logprobs)
    return Call("/completions", body, read)


def in_new_terms(call: Call, message: str) -> Call | None:
    """Return the call again for a server that refused `max_tokens`, else None.

    Reasoning models of the OpenAI API count their thoughts too, under max_completion_tokens.
    """
    if NEW_LIMIT not in message or "max_tokens" not in call.body:
        return None
    body = dict(call.body)
    limit = body.pop("max_tokens")
    return replace(call, body={**body, NEW_LIMIT: limit})


def scoring(teacher: Teacher, tokenizer: Tokenizer, k: int, request: Request) -> Call:
    """Return the call that scores `reply_ids`.

    A server cannot read without writing: it writes one token, which is dropped.
    """
    assert request.reply_ids is not None
    body = {
        "model": teacher.model,
        "prompt": request.prompt_ids + request.reply_ids,
        "max_tokens": 1,
        "temperature": 0,
        "prompt_logprobs": k,
        **BY_IDS,
    }
    read = partial(openai_responses.scored, redacted(teacher.base_url or ""), tokenizer, k)
    return Call("/completions", body, read)


def _by_messages(sampling: Sampling, request: Request, body: dict[str, Any]) -> Call:
    if request.rendered.messages is None:
        raise PipelineError(
            "teacher.tokenizer: without it the server is asked in chat; "
            "set it, or write 'format: chat' in the prompt's front matter"
        )
    body["messages"] = list(request.rendered.messages)
    if sampling.top_k:
        body["top_k"] = sampling.top_k
    return Call("/chat/completions", body, openai_responses.with_text)


def checked_url(url: str) -> str:
    """Return the URL. Raises PipelineError for a text that is none.

    Without this check, a wrong URL would look like a server that is away.
    """
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        good = False
    if not good:
        raise PipelineError(
            f"teacher.base_url: {redacted(url)!r} is no URL of a server; "
            "give one such as http://127.0.0.1:8000/v1"
        )
    hide_login(url)
    return url


def api_key(variable: str) -> str:
    """Return the key in an environment variable, "none" if it is empty.

    Raises PipelineError, which does not show the key, for one that no HTTP header can hold.
    """
    key = os.environ.get(variable, "").strip()
    if not (key.isascii() and (key.isprintable() or not key)):
        raise PipelineError(
            f"teacher.api_key_env: what {variable} holds cannot be a key "
            "(it has control or non-ASCII characters); set it again"
        )
    hide(key)
    return key or "none"
