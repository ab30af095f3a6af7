"""Equality of JSON values. Runs in the sandbox: a schema's patterns are the user's, and nesting is the model's."""

import json
from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

from pipeline.errors import PipelineError
from pipeline.verifiers.code_fence import unfenced

SHOWN = 80


def judge(request: Mapping[str, Any]) -> dict[str, Any]:
    """{"answer", "target", "schema"} to {"value", "answer", "explanation"}, or {"unknown"}.

    1 if both are the same JSON value, whatever the order of keys, numbers by value; and the answer fits the schema, if there is one.
    """
    answer, target, schema = (
        unfenced(request["answer"]),
        unfenced(request["target"]),
        request.get("schema"),
    )
    try:
        wanted = read(target)
    except (ValueError, RecursionError) as error:
        return {"unknown": f"the target is not JSON: {error}"}
    try:
        given = read(answer)
    except RecursionError:
        return {"unknown": "nested too deep"}
    except ValueError as error:
        return {"value": 0.0, "explanation": f"not JSON: {error}"}
    misfit = _misfit(answer, schema) if schema is not None else None
    right = misfit is None and same(given, wanted)
    return {
        "value": float(right),
        "answer": answer,
        "explanation": misfit or ("equal" if right else f"is {target[:SHOWN]}"),
    }


def load_schema(path: Path) -> Any:
    """A JSON schema (draft 2020-12, or what `$schema` names) from a file. Raises PipelineError if it is none."""
    from jsonschema.exceptions import SchemaError
    from jsonschema.validators import validator_for

    try:
        schema = json.loads(path.read_text(encoding="utf-8-sig"))
        if not isinstance(schema, dict | bool):
            raise ValueError(f"holds {type(schema).__name__}, no schema")
        validator_for(schema).check_schema(schema)
    except (OSError, ValueError) as error:
        raise PipelineError(
            f"{path}: cannot be read as JSON ({error}); the config names it as a file with a JSON schema"
        ) from None
    except SchemaError as error:
        raise PipelineError(
            f"{path}: is no JSON schema: {error.json_path}: {error.message}; mend it"
        ) from None
    return schema


def read(text: str) -> Any:
    """Parsed strictly: no NaN, no key twice; numbers as Decimal. Raises ValueError."""
    try:
        return json.loads(
            text,
            parse_int=Decimal,
            parse_float=Decimal,
            parse_constant=_constant,
            object_pairs_hook=_object,
        )
    except InvalidOperation:
        raise ValueError("a number out of all range") from None


def same(one: Any, other: Any) -> bool:
    """Equality, but true is not 1."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    return type(one) is type(other) and one == other


def _constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON number")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key stands twice")
    return found


def _misfit(answer: str, schema: Any) -> str | None:
    """How an answer breaks its JSON schema, if it does."""
    from jsonschema.validators import validator_for
    from referencing import Registry

    first = next(
        validator_for(schema)(schema, registry=Registry()).iter_errors(json.loads(answer)), None
    )
    return (
        f"does not fit the schema at {first.json_path}: {first.message[:SHOWN]}" if first else None
    )
