"""A server's JSON, read into answers.

`where` begins the message of an error that every request of this kind would meet. Dimension names:
T tokens of a reply, k of the top-k asked for.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from itertools import chain
from typing import Any, cast, get_args

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import PipelineError
from pipeline.execution.redaction import redacted
from pipeline.models.base import Answer, Completion, Failure, RawTopK, Request
from pipeline.models.tokenizer import Tokenizer
from pipeline.records import FailureReason, FinishReason, Usage

KEY_PREFIX = "token_id:"  # vLLM writes a token's key as token_id:123 when it is asked for ids
NO_CHANCE = -9999.0  # vLLM's logprob for probability 0: JSON cannot write -inf
TOO_LONG = re.compile(
    "context (length|size|window)|max_model_len|longer than the maximum", re.IGNORECASE
)
ADVICE = {
    401: "is the right key in {key}?",
    403: "may the key in {key} use this model?",
    404: "is teacher.model the server's name for it, and does base_url end in /v1?",
}
AWAY = (429, 502, 503, 504)  # overload, or a proxy before a server that is away
CONTINUES = "What is finished is kept, and the same command continues from here"


@dataclass(frozen=True)
class Trouble:
    """Why an attempt to send a request failed.

    Attributes:
        reason: None if the server is away or overloaded, which is not the request's fault.
        lasting: another attempt would fail in the same way.
        after: seconds that the server asks to wait.
        broken: the request was sent, and the connection ended without a reply.
    """

    message: str
    reason: FailureReason | None = None
    lasting: bool = False
    after: float | None = None
    broken: bool = False


def failure(request: Request, reply: Any) -> Failure | None:
    """Return the failure that a reply with status 200 tells of, or None.

    Servers in front of others send the error of one request in place of its completion.
    """
    if not isinstance(reply, dict):
        return None
    error = reply.get("error")
    if not error and reply.get("choices"):
        choice = reply["choices"][0]
        error = choice.get("error") if isinstance(choice, dict) else None
    if error:
        told = error.get("message") if isinstance(error, dict) else None
        message = " ".join(redacted(str(told or error)).split())[:300]
        reason: FailureReason = "too_long" if TOO_LONG.search(message) else "server_error"
        return Failure(request.id, reason, f"the server answers 200 with an error: {message}")
    asked_in_chat = request.token_ids is None  # vLLM, asked by ids, always gives a choice
    if asked_in_chat and "choices" in reply and not reply["choices"]:
        return Failure(request.id, "server_error", "the server answers 200 without choices")
    return None


def with_text(request: Request, reply: Any) -> Completion:
    """Read a chat completion, which has no token ids."""
    choice = reply["choices"][0]
    message = choice["message"]
    usage = reply.get("usage") or {}
    text, thoughts = _parts(message.get("content"))
    reasoning = message.get("reasoning_content") or message.get("reasoning")
    return Completion(
        id=request.id,
        text=text or message.get("refusal") or "",
        token_ids=None,
        finish_reason=_finish(choice.get("finish_reason")),
        usage=Usage(
            prompt_tokens=usage.get("prompt_tokens") or 0,
            completion_tokens=usage.get("completion_tokens") or 0,
        ),
        reasoning=(reasoning if isinstance(reasoning, str) else None) or thoughts or None,
    )


def _parts(content: Any) -> tuple[str, str]:
    """Return text and reasoning of a content that is text, null or a list of parts."""
    if content is None or isinstance(content, str):
        return content or "", ""
    texts, thoughts = [], []
    for part in content if isinstance(content, list) else [content]:
        if isinstance(part, str):
            texts.append(part)
        elif "thinking" in part:
            thoughts.append(_parts(part["thinking"])[0])
        elif part.get("type") in ("reasoning", "summary_text"):
            thoughts.append(_parts(part.get("text"))[0])
        else:
            texts.append(_parts(part.get("text"))[0])
    return "".join(texts), "".join(thoughts)


def with_ids(where: str, tokenizer: Tokenizer, k: int, request: Request, reply: Any) -> Completion:
    """Read a completion with its token ids, and its top-k logprobs unless k is 0.

    Raises PipelineError if the server gives no ids or no logprobs.
    """
    choice = reply["choices"][0]
    ids = choice.get("token_ids")
    if ids is None:
        raise PipelineError(
            f"{where}: gives no token ids (return_token_ids), and kd cannot align text without "
            "them; serve the model with vLLM, or drop teacher.tokenizer, set teacher.logprobs: 0 "
            "and train sft arms only"
        )
    return Completion(
        id=request.id,
        text=tokenizer.decode(ids),
        token_ids=ids,
        finish_reason=_finish(choice["finish_reason"]),
        usage=Usage(prompt_tokens=len(request.prompt_ids), completion_tokens=len(ids)),
        topk=_completion_topk(where, ids, choice.get("logprobs"), k) if k else None,
    )


def scored(where: str, tokenizer: Tokenizer, k: int, request: Request, reply: Any) -> Answer:
    """Read the top-k logprobs of a request's `reply_ids` out of those of the whole prompt."""
    rows = reply["choices"][0].get("prompt_logprobs")
    if rows is None:
        raise PipelineError(
            f"{where}: gives no prompt_logprobs, so it cannot score text; serve the model with vLLM"
        )
    assert request.reply_ids is not None
    begin = len(request.prompt_ids)
    reply_ids = request.reply_ids
    if len(rows) != begin + len(reply_ids):
        expected = begin + len(reply_ids)
        message = f"{where}: gives prompt_logprobs of {len(rows)} tokens for {expected}"
        return Failure(request.id, "misaligned", message)
    tops = rows[begin:]  # of each token a dict, {"123": {"logprob": -0.5, …}, …}
    logprobs = []
    for position, (token, top) in enumerate(zip(reply_ids, tops, strict=True)):
        if top is None or str(token) not in top:
            message = f"{where}: token {token}, at position {position}, is not among its logprobs"
            return Failure(request.id, "misaligned", message)
        logprobs.append(top[str(token)]["logprob"])
    top_ids = _token_ids(list(chain.from_iterable(tops)))
    top_logprobs = [entry["logprob"] for top in tops for entry in top.values()]
    return Completion(
        id=request.id,
        text=tokenizer.decode(reply_ids),
        token_ids=list(reply_ids),
        finish_reason="stop",
        usage=Usage(prompt_tokens=begin, completion_tokens=len(reply_ids)),
        topk=_topk(reply_ids, logprobs, tops, top_ids, top_logprobs, k),
    )


def _completion_topk(where: str, ids: Sequence[int], logprobs: Any, k: int) -> RawTopK:
    """Read the logprobs of a completion; a token may have fewer than k."""
    tops = logprobs["top_logprobs"] if logprobs else None
    if tops is None or len(tops) != len(ids):
        raise PipelineError(
            f"{where}: gives no logprobs for its tokens; "
            f"raise its --max-logprobs to {k}, or lower teacher.logprobs"
        )
    keys = list(chain.from_iterable(tops))
    if keys and not keys[0].startswith(KEY_PREFIX):
        raise PipelineError(
            f"{where}: names tokens by text ({keys[0]!r}), not by id, which kd cannot use; "
            "serve the model with vLLM"
        )
    values = list(chain.from_iterable(top.values() for top in tops))
    return _topk(ids, logprobs["token_logprobs"], tops, _token_ids(keys), values, k)


def _token_ids(keys: list[str]) -> NDArray[np.int32]:
    """Parse keys into token ids, all at once: one by one takes longer than the JSON does."""
    ids = np.fromstring(" ".join(keys).replace(KEY_PREFIX, ""), np.int32, sep=" ")
    if len(ids) != len(keys):
        raise ValueError(f"{len(keys)} keys with {len(ids)} token ids")
    return ids


def _topk(
    tokens: Sequence[int],
    logprobs: Sequence[float],
    tops: Sequence[Any],
    top_ids: NDArray[np.int32],
    top_logprobs: Sequence[float],
    k: int,
) -> RawTopK:
    """Build the table (T, 1 + k): every token with its logprob, then its top k from high to low.

    `top_ids` and `top_logprobs` hold the entries of `tops`, row after row.
    """
    counts = np.fromiter(map(len, tops), np.int64, len(tops))
    filled = np.arange(max(k, counts.max(initial=0))) < counts[:, None]
    ids = np.zeros(filled.shape, np.int32)
    ids[filled] = top_ids
    values = np.full(filled.shape, -np.inf, np.float32)
    values[filled] = np.fromiter(top_logprobs, np.float32, len(top_logprobs))
    order = np.argsort(-values, axis=1, kind="stable")[:, :k]
    token_ids = np.fromiter(tokens, np.int32, len(tokens))[:, None]
    token_logprobs = np.fromiter(logprobs, np.float32, len(tokens))[:, None]
    table_ids = np.concatenate([token_ids, np.take_along_axis(ids, order, axis=1)], axis=1)
    table = np.concatenate([token_logprobs, np.take_along_axis(values, order, axis=1)], axis=1)
    table[table <= NO_CHANCE] = -np.inf
    return RawTopK(table_ids, table)


def _finish(reason: str | None) -> FinishReason:
    for known in get_args(FinishReason):
        if known == reason:
            return cast(FinishReason, known)
    return "error"


def trouble(where: str, key: str, error: Any) -> Trouble:
    """Classify a status other than 200. `key` names the variable that holds the API key.

    Raises PipelineError if every other request would meet it too.
    """
    status = error.status_code
    after = _retry_after(error.response.headers.get("retry-after"))
    message = f"answers {status}: {_message(error)}"
    if status in AWAY:
        return Trouble(message, after=after)
    if status >= 500 or status == 408:
        return Trouble(message, "server_error", after=after)
    if status in (400, 413, 422):
        return Trouble(message, "too_long" if TOO_LONG.search(message) else "refused", lasting=True)
    advice = ADVICE.get(status, "does base_url end in /v1?").format(key=key)
    raise PipelineError(f"{where}: {message}; {advice} {CONTINUES}")


def _retry_after(value: str | None) -> float | None:
    """Read seconds, or the seconds until an HTTP date; None if it is neither."""
    if value is None:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):  # TypeError: a date without a zone
        return None


def _message(error: Any) -> str:
    body = error.body if isinstance(error.body, dict) else {}
    lines = redacted(str(body.get("message") or error.message)).splitlines()
    return lines[0][:300].rstrip(".") if lines else ""
