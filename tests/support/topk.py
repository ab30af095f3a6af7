"""Headers of .topk files."""

from pipeline.storage.topk import Header


def header(**changes: object) -> Header:
    fields: dict[str, object] = {
        "stage": "generate",
        "teacher": "t",
        "revision": None,
        "tokenizer": "h",
        "chat_template": None,
    }
    fields |= {"vocab_size": 500, "k": 4}
    fields |= {
        "mass": 1.0,
        "threshold": 0.0,
        "logprobs_mode": "raw_logprobs",
        "head_dtype": "float32",
        "engine": "fake 1",
    }
    return Header.model_validate({**fields, **changes})
