"""The base of every section of a config: strict, frozen, with values by dotted key."""

import re
from collections.abc import Iterator
from typing import Any

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    field_validator,
)

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
# a provider's prefix; capitals, small letters and digits; or digits in a long run of characters
KEY = re.compile(
    r"^(?:sk|pk|hf|gsk|xai|ghp|key)_|^(?=.*[a-z])(?=.*[A-Z])(?=.*\d)|(?=[A-Za-z]*\d)[A-Za-z0-9]{16}"
)


def runtime(default: Any, **bounds: Any) -> Any:
    """Return a field that can change the speed but not the result.

    Fingerprints leave the field out, so its value may differ between two commands on the same run.
    """
    return Field(default, json_schema_extra={"runtime": True}, **bounds)


class Section(BaseModel):
    """A section of a config. The docstring below a field is its description in the docs."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True
    )

    @field_validator("api_key_env", check_fields=False)
    @classmethod
    def names_a_variable(cls, value: str | None) -> str | None:
        """Raise ValueError, which does not show the value, for one that looks like a key itself."""
        if value is None or (NAME.fullmatch(value) and not KEY.search(value)):
            return value
        raise ValueError(
            "is no name of an environment variable, such as OPENAI_API_KEY; "
            "export the key in a variable, and give the variable's name here"
        )


def one_error(advice: str) -> WrapValidator:
    """Return a validator for a key of several types: one error with `advice`, not one a type."""

    def check(value: Any, handler: ValidatorFunctionWrapHandler) -> Any:
        try:
            return handler(value)
        except ValidationError:
            raise ValueError(f"{advice}, got {value!r}") from None

    return WrapValidator(check)


def walk(section: BaseModel, prefix: str = "") -> Iterator[tuple[str, BaseModel, str]]:
    """Yield (dotted key, section, field name) of every key that is not a section."""
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
    """Return whether a field was made by `runtime`."""
    extra = type(section).model_fields[name].json_schema_extra
    return isinstance(extra, dict) and bool(extra.get("runtime"))
