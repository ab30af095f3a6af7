"""What every section of a config is: strict, frozen, and able to say its values by dotted key."""

from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel, ConfigDict, Field


def runtime(default: Any, **bounds: Any) -> Any:
    """A field that can change how fast a result comes but not the result: it stays out of fingerprints."""
    return Field(default, json_schema_extra={"runtime": True}, **bounds)


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


def walk(section: BaseModel, prefix: str = "") -> Iterator[tuple[str, BaseModel, str]]:
    """(dotted key, section, field name) of every leaf."""
    for name in type(section).model_fields:
        value = getattr(section, name)
        if isinstance(value, BaseModel):
            yield from walk(value, f"{prefix}{name}.")
        elif isinstance(value, dict):
            for key, arm in value.items():
                yield from walk(arm, f"{prefix}{name}.{key}.")
        else:
            yield f"{prefix}{name}", section, name


def is_runtime(section: BaseModel, name: str) -> bool:
    extra = type(section).model_fields[name].json_schema_extra
    return isinstance(extra, dict) and bool(extra.get("runtime"))
