"""Compare JSON answers by value, and check them against a JSON schema.

`compare` runs in the sandbox: a schema's patterns are the user's, and the nesting is the model's.
"""

import json
from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

from pipeline.errors import PipelineError
from pipeline.verifiers.code_fence import last_block

SHOWN = 80


def compare(request: Mapping[str, Any]) -> dict[str, Any]:
    """Compare {"answer", "target", "schema"}: {"value", "answer", "explanation"} or {"unknown"}.

    The value is 1 if both are the same JSON value and the answer fits the schema, if there is one.
    The order of keys does not count, and numbers compare by value.
    """
    answer, target = last_block(request["answer"]), last_block(request["target"])
    schema = request.get("schema")
    try:
        expected = parse(target)
    except (ValueError, RecursionError) as error:
        return {"unknown": f"the target is not JSON: {error}"}
    try:
        given = parse(answer)
    except RecursionError:
        return {"unknown": "nested too deep"}
    except ValueError as error:
        return {"value": 0.0, "explanation": f"not JSON: {error}"}
    misfit = None if schema is None else _misfit(answer, schema)
    if misfit is not None:
        return {"value": 0.0, "answer": answer, "explanation": misfit}
    right = equal(given, expected)
    explanation = "equal" if right else f"is {target[:SHOWN]}"
    return {"value": float(right), "answer": answer, "explanation": explanation}


def load_schema(path: Path) -> Any:
    """Read a JSON schema (draft 2020-12, or what `$schema` names), or raise PipelineError."""
    from jsonschema.exceptions import SchemaError
    from jsonschema.validators import validator_for

    try:
        schema = json.loads(path.read_text(encoding="utf-8-sig"))
        if not isinstance(schema, dict | bool):
            raise ValueError(f"holds {type(schema).__name__}, not a schema")
        validator_for(schema).check_schema(schema)
    except (OSError, ValueError) as error:
        raise PipelineError(
            f"{path}: cannot be read as JSON ({error}); "
            "the config names it as a file with a JSON schema"
        ) from None
    except SchemaError as error:
        raise PipelineError(
            f"{path}: is no JSON schema: {error.json_path}: {error.message}; fix it"
        ) from None
    return schema


def validator(schema: Any, **keywords: Any) -> Any:
    """Return a validator that fetches nothing from elsewhere; `keywords` replace its checks."""
    from jsonschema import validators
    from referencing import Registry

    kind = validators.validator_for(schema)
    if keywords:
        kind = validators.extend(kind, keywords)
    return kind(schema, registry=Registry())


def parse(text: str) -> Any:
    """Parse JSON strictly: no NaN, no duplicate key; numbers as Decimal. Raises ValueError."""
    try:
        return json.loads(
            text,
            parse_int=Decimal,
            parse_float=Decimal,
            parse_constant=refuse_constant,
            object_pairs_hook=_object,
        )
    except InvalidOperation:
        raise ValueError("a number out of all range") from None


def equal(left: Any, right: Any) -> bool:
    """Return whether two JSON values are equal; true is not 1."""
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(equal(left[key], right[key]) for key in left)
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(equal, left, right))
    return type(left) is type(right) and left == right


def refuse_constant(name: str) -> Any:
    """Raise ValueError for NaN and the infinities, which Python's parser would accept."""
    raise ValueError(f"{name} is no JSON number")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        raise ValueError("a key occurs twice")
    return content


def _misfit(answer: str, schema: Any) -> str | None:
    """Return how an answer breaks its JSON schema, if it does."""
    error = next(validator(schema).iter_errors(json.loads(answer)), None)
    if error is None:
        return None
    return f"does not fit the schema at {error.json_path}: {error.message[:SHOWN]}"
