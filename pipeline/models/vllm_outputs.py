"""Turn the outputs of vLLM's engine into answers.

Dimension names: T tokens of a reply, k of the top-k asked for.
"""

from typing import Any

import numpy as np

from pipeline.errors import PipelineError
from pipeline.models.base import Answer, Completion, Failure, RawTopK, Request
from pipeline.models.tokenizer import Tokenizer
from pipeline.records import FinishReason, Usage


def generated(tokenizer: Tokenizer, request: Request, output: Any) -> Answer:
    """Read the output of a generate request."""
    _refuse_abort(output)
    result = output.outputs[0]
    ids = list(result.token_ids)
    if result.finish_reason == "error":
        return Failure(request.id, "engine_error", "vLLM ended it with an internal error")
    if not result.logprobs:
        return _completion(tokenizer, request, ids, result.finish_reason, None)
    topk = unflatten(result.logprobs, len(ids))
    assert topk.ids[:, 0].tolist() == ids, request.id
    return _completion(tokenizer, request, ids, result.finish_reason, topk)


def scored(tokenizer: Tokenizer, request: Request, output: Any) -> Answer:
    """Read the output of a score request, and check every position against the reply's ids."""
    _refuse_abort(output)
    assert request.reply_ids is not None
    positions = len(request.prompt_ids) + len(request.reply_ids) - 1  # the first has no logprobs
    whole = unflatten(output.prompt_logprobs, positions)
    begin = len(request.prompt_ids) - 1
    topk = RawTopK(whole.ids[begin:], whole.logprobs[begin:])
    if topk.ids[:, 0].tolist() != request.reply_ids:
        message = "vLLM's prompt logprobs are not those of the tokens that were sent"
        return Failure(request.id, "misaligned", message)
    return _completion(tokenizer, request, request.reply_ids, "stop", topk)


def unflatten(flat: Any, rows: int) -> RawTopK:
    """Return vLLM's flat lists of logprobs as arrays of the shape (T, 1 + k), where T is `rows`."""
    width, rest = divmod(len(flat.token_ids), rows)
    assert not rest, f"{len(flat.token_ids)} logprobs for {rows} tokens"
    return RawTopK(
        np.array(flat.token_ids, np.int32).reshape(rows, width),
        np.array(flat.logprobs, np.float32).reshape(rows, width),
    )


def _refuse_abort(output: Any) -> None:
    """Raise PipelineError if the engine ended the request because it is shutting down.

    On Ctrl-C the engine shuts down and aborts its requests. They must not be stored as failures.
    """
    if output.outputs[0].finish_reason == "abort":
        raise PipelineError(
            "vLLM's engine is shutting down; "
            "what is finished is kept, and the same command continues from here"
        )


def _completion(
    tokenizer: Tokenizer,
    request: Request,
    ids: list[int],
    finish_reason: FinishReason,
    topk: RawTopK | None,
) -> Answer:
    if topk is not None and np.isnan(topk.logprobs).any():
        message = "its logprobs are NaN; is engine.dtype too narrow for the model?"
        return Failure(request.id, "engine_error", message)
    usage = Usage(prompt_tokens=len(request.prompt_ids), completion_tokens=len(ids))
    return Completion(request.id, tokenizer.decode(ids), ids, finish_reason, usage, topk)
