"""What a server's JSON says, read into arrays. `where` opens the errors of replies that no request of this kind can be read from.

Dimension names: T tokens of a reply, k of the top-k asked for.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from itertools import chain
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import PipelineError
from pipeline.models.base import Answer, Completion, Failure, RawTopK, Request
from pipeline.models.tokenizer import Tokenizer
from pipeline.records import FailureReason, FinishReason, Usage

NAME = "token_id:"  # how vLLM writes the key of a token when it is asked for ids
NO_CHANCE = -9999.0  # what vLLM writes for a log-probability of -inf, which JSON has no word for
TOO_LONG = re.compile(
    "context (length|size|window)|max_model_len|longer than the maximum", re.IGNORECASE
)
FOR_ALL = {
    401: "is the right key in {key}?",
    403: "may the key in {key} use this model?",
    404: "is teacher.model the server's name for it, and does base_url end in /v1?",
}
AWAY = (429, 502, 503, 504)  # too much to do, or a proxy before a server that is away
GOES_ON = "What is finished is kept, and the same command goes on from here"


@dataclass(frozen=True)
class Trouble:
    """Why an attempt brought nothing. Without a `reason` the server is away or overloaded, which is not the request's fault.

    Attributes:
        lasting: it would be the same another time.
        after: how long the server asks us to wait, seconds.
        broken: it was sent, and the connection ended without a reply.
    """

    message: str
    reason: FailureReason | None = None
    lasting: bool = False
    after: float | None = None
    broken: bool = False


def with_text(request: Request, reply: Any) -> Completion:
    """A chat completion, which has no ids."""
    choice, usage = reply["choices"][0], reply.get("usage") or {}
    return Completion(
        id=request.id,
        text=choice["message"]["content"] or "",
        token_ids=None,
        finish_reason=_finish(choice["finish_reason"]),
        usage=Usage(
            prompt_tokens=usage.get("prompt_tokens", 0),
            completion_tokens=usage.get("completion_tokens", 0),
        ),
    )


def with_ids(where: str, tokenizer: Tokenizer, k: int, request: Request, reply: Any) -> Completion:
    """A completion by token ids, with top-k logprobs unless k is 0. Raises PipelineError if the server has none of these."""
    choice = reply["choices"][0]
    ids = choice.get("token_ids")
    if ids is None:
        raise PipelineError(
            f"{where}: gives no token ids (return_token_ids), so nothing can be aligned for kd; "
            "serve the model with vLLM, or drop teacher.tokenizer, set teacher.logprobs: 0 and train sft arms only"
        )
    assert request.token_ids is not None
    return Completion(
        id=request.id,
        text=tokenizer.decode(ids),
        token_ids=ids,
        finish_reason=_finish(choice["finish_reason"]),
        usage=Usage(prompt_tokens=len(request.token_ids), completion_tokens=len(ids)),
        topk=_written(where, ids, choice.get("logprobs"), k) if k else None,
    )


def scored(where: str, tokenizer: Tokenizer, k: int, request: Request, reply: Any) -> Answer:
    """The `reply_ids` tokens of a request with their top-k logprobs, which stand among those of the whole prompt."""
    choice = reply["choices"][0]
    rows = choice.get("prompt_logprobs")
    if rows is None:
        raise PipelineError(
            f"{where}: gives no prompt_logprobs, so no text can be scored by it; serve the model with vLLM"
        )
    assert request.token_ids is not None
    assert request.reply_ids is not None
    before, reply_ids = len(request.token_ids), request.reply_ids
    if len(rows) != before + len(reply_ids):
        return Failure(
            request.id,
            "misaligned",
            f"{where}: gives prompt_logprobs of {len(rows)} tokens for {before + len(reply_ids)}",
        )
    tops = rows[before:]  # of each a dict, {"123": {"logprob": -0.5, …}, …}
    for position, (token, top) in enumerate(zip(reply_ids, tops, strict=True)):
        if top is None or str(token) not in top:
            return Failure(
                request.id,
                "misaligned",
                f"{where}: token {token}, number {position} of the text, is not among its own logprobs",
            )
    return Completion(
        id=request.id,
        text=tokenizer.decode(reply_ids),
        token_ids=list(reply_ids),
        finish_reason="stop",
        usage=Usage(prompt_tokens=before, completion_tokens=len(reply_ids)),
        topk=_topk(
            reply_ids,
            [top[str(token)]["logprob"] for token, top in zip(reply_ids, tops, strict=True)],
            tops,
            _numbers(list(chain.from_iterable(tops))),
            [entry["logprob"] for top in tops for entry in top.values()],
            k,
        ),
    )


def _written(where: str, ids: Sequence[int], logprobs: Any, k: int) -> RawTopK:
    """From the lists of a completion. A server may leave out what it could not fill."""
    tops = logprobs["top_logprobs"] if logprobs else None
    if tops is None or len(tops) != len(ids):
        raise PipelineError(
            f"{where}: gives no logprobs for its tokens; raise its --max-logprobs to {k}, or lower teacher.logprobs"
        )
    keys = list(chain.from_iterable(tops))
    if keys and not keys[0].startswith(NAME):
        raise PipelineError(
            f"{where}: names tokens by text ({keys[0]!r}), not by id; kd cannot use that. Serve the model with vLLM"
        )
    values = list(chain.from_iterable(top.values() for top in tops))
    return _topk(ids, logprobs["token_logprobs"], tops, _numbers(keys), values, k)


def _numbers(keys: list[str]) -> NDArray[np.int32]:
    """The ids that keys name. All at once, since one by one they would cost more than the JSON does."""
    numbers = np.fromstring(" ".join(keys).replace(NAME, ""), np.int32, sep=" ")
    if len(numbers) != len(keys):
        raise ValueError(f"{len(keys)} keys with {len(numbers)} token ids")
    return numbers


def _topk(
    tokens: Sequence[int],
    logprobs: Sequence[float],
    tops: Sequence[Any],
    top_ids: NDArray[np.int32],
    top_logprobs: Sequence[float],
    k: int,
) -> RawTopK:
    """(T, 1 + k): `tokens` with their `logprobs`, then the entries of `tops`, which lie row after row in `top_ids` and `top_logprobs`."""
    counts = np.fromiter(map(len, tops), np.int64, len(tops))
    filled = np.arange(max(k, counts.max(initial=0))) < counts[:, None]
    ids, values = np.zeros(filled.shape, np.int32), np.full(filled.shape, -np.inf, np.float32)
    ids[filled], values[filled] = top_ids, np.fromiter(top_logprobs, np.float32, len(top_logprobs))
    order = np.argsort(-values, axis=1, kind="stable")[:, :k]
    first_ids = np.fromiter(tokens, np.int32, len(tokens))[:, None]
    first_values = np.fromiter(logprobs, np.float32, len(tokens))[:, None]
    everything = np.concatenate([first_values, np.take_along_axis(values, order, axis=1)], axis=1)
    everything[everything <= NO_CHANCE] = -np.inf
    return RawTopK(
        np.concatenate([first_ids, np.take_along_axis(ids, order, axis=1)], axis=1), everything
    )


def _finish(reason: str | None) -> FinishReason:
    known: tuple[FinishReason, ...] = get_args(FinishReason)
    return next((one for one in known if one == reason), "error")


def trouble(where: str, key: str, error: Any) -> Trouble:
    """What a status other than 200 means; `key` names the variable that holds the key.

    Raises PipelineError if it is nothing about this request.
    """
    status, after = error.status_code, _retry_after(error.response.headers.get("retry-after"))
    message = f"answers {status}: {_message(error)}"
    if status in AWAY:
        return Trouble(message, after=after)
    if status >= 500 or status == 408:
        return Trouble(message, "server_error", after=after)
    if status in (400, 413, 422):
        return Trouble(message, "too_long" if TOO_LONG.search(message) else "refused", lasting=True)
    raise PipelineError(
        f"{where}: {message}; {FOR_ALL.get(status, 'does base_url end in /v1?').format(key=key)} {GOES_ON}"
    )


def _retry_after(value: str | None) -> float | None:
    """Seconds, from seconds or an HTTP date. None if it is neither."""
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
    return (str(body.get("message") or error.message).splitlines() or [""])[0][:300].rstrip(".")
