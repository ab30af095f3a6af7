"""Every config key in words, read from the models of config/: its values, default, meaning and an example."""

import difflib
import math
import shlex
import textwrap
from collections.abc import Iterator
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import yaml
from pydantic.fields import FieldInfo

from pipeline.config import Section
from pipeline.config.run import Config
from pipeline.errors import PipelineError

ARM, EXAMPLE_ARM = "NAME", "mine"  # what stands for an arm's name, and the one that examples add
COLUMNS = 99  # of prose
ESCAPED_BAR = "\\|"
KINDS: dict[Any, str] = {bool: "true | false", int: "whole number", float: "number", str: "text"}
INTRO = """# Every config key

A config is a YAML file. A key on the command line wins over the file:

```console
$ pipeline train configs/quickstart.yaml train.epochs=2 run_dir=runs/longer
```

- A key that is set in neither has its default.
- An unknown key is refused, with a suggestion.
- A key that "does not change the result" may differ between two commands on the same run.
- `pipeline schema teacher` prints the keys of one section.
- `pipeline validate CONFIG --origins` prints every value and where it comes from.

This page is written by `pipeline schema --markdown > docs/reference/config.md`. The texts are in
`pipeline/config/`."""


def keys(prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """(dotted key, field) of every key that is `prefix` or stands below it. Raises PipelineError if there is none."""
    for _, rows in _tables(prefix):
        yield from rows.items()


def lines(prefix: str = "") -> Iterator[str]:
    """One line a key: teacher.top_k  whole number >= 0, default 0: … Example: teacher.top_k=40."""
    for key, field in keys(prefix):
        default = default_of(field)
        default = f"default {default}" if default else "required"
        yield f"{key}  {values_of(field)}, {default}: {_meaning(field)}. Example: {shlex.quote(example_of(key, field))}"


def markdown(prefix: str = "") -> str:
    """The same as one table a section, for docs/reference/config.md."""
    blocks = [] if prefix else [INTRO]
    for heading, rows in _tables(prefix):
        blocks += [textwrap.fill(part, COLUMNS) for part in heading.split("\n\n")]
        blocks.append(
            "\n".join(
                [
                    "| key | values | default | meaning | example |",
                    "|---|---|---|---|---|",
                    *map(_row, rows.items()),
                ]
            )
        )
    return "\n\n".join(blocks)


def values_of(field: FieldInfo) -> str:
    """The values a field takes: "number in (0, 1]", "sft | kd", "[text, ...] of 2 or more". That it may be null goes unsaid."""
    annotation = field.annotation
    if get_origin(annotation) in (Union, UnionType):
        annotation = next(item for item in get_args(annotation) if item is not type(None))
    if get_origin(annotation) is Annotated:
        return " | ".join(KINDS[kind] for kind in get_args(get_args(annotation)[0]))
    if get_origin(annotation) is Literal:
        return " | ".join(get_args(annotation))
    if get_origin(annotation) is list:
        least = _bound(field, "min_length")
        item = values_of(FieldInfo.from_annotation(get_args(annotation)[0]))
        return f"[{item}, ...]" + (f" of {least} or more" if least else "")
    return KINDS[annotation] + _bounds(field)


def default_of(field: FieldInfo) -> str:
    """The default as YAML, or what a default is made from; empty for a key that must be set."""
    if field.is_required():
        return str(_extra(field).get("default", ""))
    return _yaml(field.default)


def example_of(key: str, field: FieldInfo) -> str:
    """An override that loads, such as teacher.temperature=0.7; that of an arm adds one."""
    return f"{key.replace(ARM, EXAMPLE_ARM)}={_yaml((field.examples or [None])[0])}"


def _tables(prefix: str) -> Iterator[tuple[str, dict[str, FieldInfo]]]:
    """(heading, {key: field}) of every section with keys at or below `prefix`."""
    found = False
    for path, heading, section in _sections(Config, "", "# Top level"):
        leaves = {
            f"{path}{name}": field
            for name, field in section.model_fields.items()
            if _below(field) is None
        }
        rows = {key: field for key, field in leaves.items() if _is_under(key, prefix)}
        if rows:
            found = True
            yield heading, rows
    if not found:
        raise PipelineError(f"command line: {prefix}: no such key or section; {_suggest(prefix)}")


def _sections(
    section: type[Section], path: str, title: str, about: str = ""
) -> Iterator[tuple[str, str, type[Section]]]:
    """(dotted path, heading, section) of a section and all those within it."""
    yield path, f"#{title}\n\n{about}{section.__doc__}", section
    for name, field in section.model_fields.items():
        below = _below(field)
        if below is None:
            continue
        inner, about = f"{path}{name}", ""
        if field.description:
            about = f"{field.description[0].upper()}{field.description[1:]}. "
        if field.default is None:
            about = f"{about}Default: null. "
        if get_origin(field.annotation) is dict:
            arms = {
                arm: settings.model_dump(exclude_defaults=True)
                for arm, settings in field.default.items()
            }
            inner, about = f"{inner}.{ARM}", f"{about}Default: `{inner}={_yaml(arms)}`. "
        yield from _sections(below, f"{inner}.", f"# {inner}", about)


def _below(field: FieldInfo) -> type[Section] | None:
    """The section that a field holds, by itself or under names; None for a leaf."""
    held = (field.annotation, *get_args(field.annotation))
    return next(
        (item for item in held if isinstance(item, type) and issubclass(item, Section)), None
    )


def _is_under(key: str, prefix: str) -> bool:
    """Whether a key is `prefix` or below it; an arm may be asked for by its own name."""
    asked = prefix.split(".") if prefix else []
    parts = key.split(".")[: len(asked)]
    return len(parts) == len(asked) and all(
        part in (mine, ARM) for part, mine in zip(parts, asked, strict=True)
    )


def _suggest(prefix: str) -> str:
    """What the unknown `prefix` was probably meant to be; its last part alone is enough."""
    names: dict[str, str] = {}
    for key, _ in keys():
        parts = key.split(".")
        for count in range(1, len(parts) + 1):
            path = ".".join(parts[:count])
            names[path] = path
            names.setdefault(parts[count - 1], path)
    close = difflib.get_close_matches(prefix, names, n=1, cutoff=0.5)
    return (
        f"did you mean {names[close[0]]}?"
        if close
        else f"known here: {', '.join(Config.model_fields)}"
    )


def _row(item: tuple[str, FieldInfo]) -> str:
    key, field = item
    default = default_of(field)
    default = f"`{default}`" if default else "required"
    cells = [
        f"`{key}`",
        values_of(field),
        default,
        _meaning(field),
        f"`{shlex.quote(example_of(key, field))}`",
    ]
    return f"| {' | '.join(cell.replace('|', ESCAPED_BAR) for cell in cells)} |"


def _meaning(field: FieldInfo) -> str:
    return (field.description or "") + (
        "; does not change the result" if _extra(field).get("runtime") else ""
    )


def _bounds(field: FieldInfo) -> str:
    """The bounds of a number, after a space: in [0, 2], >= 1, or nothing."""
    least, above, most, below = (_bound(field, name) for name in ("ge", "gt", "le", "lt"))
    low, high = (above if least is None else least), (below if most is None else most)
    if low is not None and high is not None:
        return f" in {'(' if least is None else '['}{low}, {high}{')' if most is None else ']'}"
    signs = {">=": least, ">": above, "<=": most, "<": below}
    return "".join(f" {sign} {bound}" for sign, bound in signs.items() if bound is not None)


def _bound(field: FieldInfo, name: str) -> Any:
    return next((getattr(item, name) for item in field.metadata if hasattr(item, name)), None)


def _extra(field: FieldInfo) -> dict[str, Any]:
    return field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}


def _yaml(value: Any) -> str:
    """A value as it is written in one line of YAML."""
    return (
        yaml.safe_dump(value, default_flow_style=True, width=math.inf, allow_unicode=True)
        .strip()
        .removesuffix("\n...")
    )
