"""Describe every config key from the pydantic classes: values, default, meaning and example."""

import difflib
import math
import shlex
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import yaml
from pydantic.fields import FieldInfo

from pipeline.config import Section
from pipeline.config.run import Config
from pipeline.errors import PipelineError

# in keys, a placeholder for an arm's name; in examples, the name of an arm that they add
ARM_PLACEHOLDER, EXAMPLE_ARM = "NAME", "mine"
COLUMNS = 99  # width of prose
ESCAPED_BAR = "\\|"
KINDS: dict[Any, str] = {bool: "true | false", int: "whole number", float: "number", str: "text"}
SIGNS = {">=": "ge", ">": "gt", "<=": "le", "<": "lt"}  # lower bounds come first
OPENING, CLOSING = {">=": "[", ">": "("}, {"<=": "]", "<": ")"}
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


@dataclass(frozen=True)
class Table:
    """Those keys of one section that the caller asked for."""

    path: str  # dotted; empty for the top level
    heading: str
    section: type[Section]
    rows: dict[str, FieldInfo]


def keys(prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Yield (dotted key, field) of the key `prefix`, or of every key of the section `prefix`.

    Raises PipelineError if there is none.
    """
    for table in _tables(prefix):
        yield from table.rows.items()


def lines(prefix: str = "") -> Iterator[str]:
    """Yield a line per key, such as `teacher.top_k  whole number >= 0, default 0: … Example: …`."""
    for key, field in keys(prefix):
        default = default_of(field)
        default = f"default {default}" if default else "required"
        example = shlex.quote(example_of(key, field))
        yield f"{key}  {values_of(field)}, {default}: {_meaning(field)} Example: {example}"


def markdown(prefix: str = "") -> str:
    """Return one Markdown table for each section, for docs/reference/config.md.

    If two sections have the same class, the second only links to the first.
    """
    blocks = [] if prefix else [INTRO]
    paths: dict[type[Section], str] = {}
    for table in _tables(prefix):
        if (twin := paths.get(table.section)) is not None:
            anchor = twin.replace(".", "")
            blocks += _wrapped(f"{table.heading} It has the keys of [{twin}](#{anchor}).")
            continue
        paths[table.section] = table.path
        header = "| key | values | default | meaning | example |\n|---|---|---|---|---|"
        blocks += _wrapped(table.heading)
        blocks.append("\n".join([header, *map(_row, table.rows.items())]))
    return "\n\n".join(blocks)


def values_of(field: FieldInfo) -> str:
    """Return the allowed values, such as "number in (0, 1]" or "sft | kd"; null is not listed."""
    annotation: Any = field.annotation
    if get_origin(annotation) in (Union, UnionType):
        kinds = [item for item in get_args(annotation) if item is not type(None)]
        if len(kinds) > 1:
            return " | ".join(values_of(FieldInfo.from_annotation(kind)) for kind in kinds)
        annotation = kinds[0]
    if get_origin(annotation) is Annotated:
        return values_of(FieldInfo.from_annotation(annotation))
    if get_origin(annotation) is Literal:
        return " | ".join(get_args(annotation))
    if get_origin(annotation) is list:
        least, most = _bound(field, "min_length"), _bound(field, "max_length")
        item = values_of(FieldInfo.from_annotation(get_args(annotation)[0]))
        if most:
            return f"[{', '.join([item] * most)}]"
        return f"[{item}, ...]" + (f" of {least} or more" if least else "")
    return KINDS[annotation] + _bounds(field)


def default_of(field: FieldInfo) -> str:
    """Return the default as YAML; an empty string for a key that must be set.

    If the default comes from elsewhere, return a text that says from where, such as runs/CONFIG.
    """
    if field.is_required():
        return str(_extra(field).get("default", ""))
    return _yaml(field.default)


def example_of(key: str, field: FieldInfo) -> str:
    """Return a valid override, such as teacher.temperature=0.7.

    For a key of an arm, the override adds a new arm named `mine`.
    """
    return f"{key.replace(ARM_PLACEHOLDER, EXAMPLE_ARM)}={_yaml((field.examples or [None])[0])}"


def _wrapped(text: str) -> list[str]:
    return [textwrap.fill(paragraph, COLUMNS) for paragraph in text.split("\n\n")]


def _tables(prefix: str) -> Iterator[Table]:
    """Yield a table for every section that has keys at or below `prefix`."""
    is_known = False
    for path, heading, section in _sections(Config, "", "# Top level"):
        rows = {}
        for name, field in section.model_fields.items():
            if _section_of(field) is None and _is_under(f"{path}{name}", prefix):
                rows[f"{path}{name}"] = field
        if rows:
            is_known = True
            yield Table(path.removesuffix("."), heading, section, rows)
    if not is_known:
        raise PipelineError(f"command line: {prefix}: no such key or section; {_suggest(prefix)}")


def _sections(
    section: type[Section], path: str, title: str, about: Sequence[str] = ()
) -> Iterator[tuple[str, str, type[Section]]]:
    """Yield (dotted path, heading, section) of a section and of all sections inside it.

    `about` holds the description and the default of the field that contains this section.
    """
    description, default = about or ("", "")
    sentences = (description, _one_line(section.__doc__), default)
    yield path, f"#{title}\n\n{' '.join(filter(None, sentences))}", section
    for name, field in section.model_fields.items():
        inner_section = _section_of(field)
        if inner_section is None:
            continue
        inner, default = f"{path}{name}", ""
        if field.default is None:
            default = "Default: null."
        if get_origin(field.annotation) is dict:
            arms = {
                arm: settings.model_dump(exclude_defaults=True)
                for arm, settings in field.default.items()
            }
            inner, default = f"{inner}.{ARM_PLACEHOLDER}", f"Default: `{inner}={_yaml(arms)}`."
        about = (_one_line(field.description), default)
        yield from _sections(inner_section, f"{inner}.", f"# {inner}", about)


def _section_of(field: FieldInfo) -> type[Section] | None:
    """Return the Section class of a field or of its dict's values; None if it has none."""
    for kind in (field.annotation, *get_args(field.annotation)):
        if isinstance(kind, type) and issubclass(kind, Section):
            return kind
    return None


def _is_under(key: str, prefix: str) -> bool:
    """Return True if a key is `prefix` or below it; in `prefix` an arm may have any name."""
    wanted = prefix.split(".") if prefix else []
    parts = key.split(".")[: len(wanted)]
    pairs = zip(parts, wanted, strict=False)
    return len(parts) == len(wanted) and all(
        part in (name, ARM_PLACEHOLDER) for part, name in pairs
    )


def _suggest(prefix: str) -> str:
    """Return which key the user may have meant by the unknown `prefix`.

    The last part of a key is enough to find it, such as top_k for teacher.top_k.
    """
    names: dict[str, str] = {}
    for key, _ in keys():
        parts = key.split(".")
        for count in range(1, len(parts) + 1):
            path = ".".join(parts[:count])
            names[path] = path
            names.setdefault(parts[count - 1], path)
    close = difflib.get_close_matches(prefix, names, n=1, cutoff=0.5)
    if close:
        return f"did you mean {names[close[0]]}?"
    return f"known here: {', '.join(Config.model_fields)}"


def _row(item: tuple[str, FieldInfo]) -> str:
    key, field = item
    default = default_of(field)
    default = f"`{default}`" if default else "required"
    example = f"`{shlex.quote(example_of(key, field))}`"
    cells = [f"`{key}`", values_of(field), default, _meaning(field), example]
    return f"| {' | '.join(cell.replace('|', ESCAPED_BAR) for cell in cells)} |"


def _meaning(field: FieldInfo) -> str:
    meaning = _one_line(field.description)
    return f"{meaning} Does not change the result." if _extra(field).get("runtime") else meaning


def _one_line(text: str | None) -> str:
    return " ".join((text or "").split())


def _bounds(field: FieldInfo) -> str:
    """Return a number's bounds, such as " in [0, 2]" or " >= 1"; an empty string if it has none."""
    ends = {sign: _bound(field, name) for sign, name in SIGNS.items()}
    ends = {sign: bound for sign, bound in ends.items() if bound is not None}
    if len(ends) == 2:
        (first, low), (last, high) = ends.items()
        return f" in {OPENING[first]}{low}, {high}{CLOSING[last]}"
    return "".join(f" {sign} {bound}" for sign, bound in ends.items())


def _bound(field: FieldInfo, name: str) -> Any:
    return next((getattr(item, name) for item in field.metadata if hasattr(item, name)), None)


def _extra(field: FieldInfo) -> dict[str, Any]:
    return field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}


def _yaml(value: Any) -> str:
    """Return a value as one line of YAML."""
    return (
        yaml.safe_dump(value, default_flow_style=True, width=math.inf, allow_unicode=True)
        .strip()
        .removesuffix("\n...")
    )
