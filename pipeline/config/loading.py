"""Load a config: YAML, overrides from the command line, and errors that name the key."""

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from pipeline.config import retired, yaml_reading
from pipeline.config.base import walk
from pipeline.config.run import Config
from pipeline.config.train import Arm, Train
from pipeline.errors import PipelineError


def load(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Read and check one config file; each override is "key.sub=value".

    Raises PipelineError with the key at fault.
    """
    return _resolve(Path(path), overrides)[0]


def describe(path: str | Path, overrides: Sequence[str] = ()) -> list[tuple[str, Any, str]]:
    """Return (key, resolved value, origin) of every key.

    The origin is "file", "command line" or "default".
    """
    config, given, commanded = _resolve(Path(path), overrides)

    def origin(key: str) -> str:
        if key in commanded:
            return "command line"
        return "file" if _is_given(given, key) else "default"

    return [(key, getattr(section, name), origin(key)) for key, section, name in walk(config)]


def _is_given(tree: Any, key: str) -> bool:
    """Return whether a tree of sections sets a dotted key."""
    for part in key.split("."):
        if not isinstance(tree, dict):
            return part == "path"  # `seeds: FILE` is short for `seeds: {path: FILE}`
        if part not in tree:
            return False
        tree = tree[part]
    return True


def _resolve(path: Path, overrides: Sequence[str]) -> tuple[Config, dict[str, Any], list[str]]:
    """Return the config, the tree of what was given, and the keys of the command line."""
    tree = _read_yaml(path)
    train = tree.get("train")
    if isinstance(train, dict) and any(text.startswith("train.arms.") for text in overrides):
        # an override of one default arm must leave the others as they are
        default: dict[str, Arm] = Train.model_fields["arms"].default
        arms = {name: arm.model_dump(exclude_defaults=True) for name, arm in default.items()}
        train.setdefault("arms", arms)
    commanded = [_override(tree, text) for text in overrides]
    for key, value in retired.pop(tree).items():
        if problem := retired.problem(key, value):
            raise PipelineError(f"{path}: {key}: {problem}; leave {key} out")
    try:
        return Config.model_validate({"run_dir": f"runs/{path.stem}", **tree}), tree, commanded
    except ValidationError as error:
        raise PipelineError(_explain(path, error)) from None


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        tree = yaml_reading.parse(path.read_text(encoding="utf-8-sig"))
    except UnicodeDecodeError as error:
        raise PipelineError(
            f"{path}: not UTF-8 ({error.reason} at byte {error.start}); save the file as UTF-8"
        ) from None
    except OSError as error:
        raise PipelineError(
            f"{path}: cannot be read ({error.strerror}); "
            "give the path of a config such as configs/quickstart.yaml"
        ) from None
    except ValueError as error:
        raise PipelineError(f"{path}: not valid YAML: {error}") from None
    if not isinstance(tree, dict):
        raise PipelineError(
            f"{path}: has no sections; start from a copy of configs/quickstart.yaml"
        )
    return tree


def _override(tree: dict[str, Any], text: str) -> str:
    """Put "key.sub=value" into the tree and return the key; the value is read as YAML."""
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise PipelineError(
            f"command line: '{text}' is not key.sub=value; for example teacher.temperature=0.7"
        )
    *parents, leaf = key.split(".")
    for parent in parents:
        section = tree.setdefault(parent, {})
        if isinstance(section, str) and parent in ("seeds", "eval_seeds"):
            section = tree[parent] = {"path": section}
        if not isinstance(section, dict):
            raise PipelineError(f"command line: {key}: {parent} is a value, not a section")
        tree = section
    try:
        tree[leaf] = yaml_reading.parse(value)
    except ValueError as error:
        raise PipelineError(
            f"command line: {key}: '{value}' is not a YAML value ({error}); quote it"
        ) from None
    return key


def _explain(path: Path, error: ValidationError) -> str:
    """Return a line for each mistake, with its key and what to do."""
    lines = []
    for item in error.errors():
        key = ".".join(str(part) for part in item["loc"])
        if item["type"] == "extra_forbidden":
            lines.append(f"{path}: {key}: unknown key; {_suggest(item['loc'])}")
        elif item["type"] == "missing":
            lines.append(
                f"{path}: {key}: missing; set it in the file or give {key}=… on the command line"
            )
        elif item["type"] == "value_error":
            where = f"{path}: {key}" if key else str(path)
            lines.append(f"{where}: {item['ctx']['error']}")
        else:
            hint = "; put it in quotes" if item["type"] == "string_type" else ""
            lines.append(f"{path}: {key}: {item['msg']}, got {item['input']!r:.200}{hint}")
    return "\n".join(lines)


def _suggest(loc: tuple[int | str, ...]) -> str:
    """Return which key the unknown one at `loc` may have meant."""
    section: type[BaseModel] = Config
    for part in loc[:-1]:
        field = section.model_fields.get(str(part))
        if field is None:
            section = Arm  # below train.arms.<name>
            continue
        for kind in (field.annotation, *get_args(field.annotation)):
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                section = kind
                break
    known = list(section.model_fields)
    close = difflib.get_close_matches(str(loc[-1]), known, n=1, cutoff=0.5)
    prefix = "".join(f"{part}." for part in loc[:-1])
    return f"did you mean {prefix}{close[0]}?" if close else f"known here: {', '.join(known)}"
