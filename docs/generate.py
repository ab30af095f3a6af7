"""Write the pages of docs/reference/ that come from the code; `--check` only says which are stale.

python -m docs.generate [--check]
"""

import inspect
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args

import click
from pydantic import BaseModel

from pipeline.cli.main import cli
from pipeline.config.reference import markdown
from pipeline.data.prompts import FrontMatter, Prefixes
from pipeline.data.spans import Span

REFERENCE = Path(__file__).parent / "reference"
COLUMNS = 99


def config_page() -> str:
    """Return every config key as tables, one a section."""
    return markdown("") + "\n"


def cli_page() -> str:
    """Return usage, options and an example of every command, and the exit codes."""
    context = click.Context(cli, info_name="pipeline")
    names = cli.list_commands(context)
    lines = [
        "# The command line",
        "",
        "Generated from the code by `python -m docs.generate`; `pipeline COMMAND --help` prints",
        "the same. Any config key can be overridden behind the config file, for example",
        "`teacher.temperature=0.7`; the keys are in [the config reference](config.md).",
        "[Resume and repair](../how-to/resume-and-repair.md) lists the exit codes.",
        "",
        "| command | what it does |",
        "|---|---|",
    ]
    lines += [
        f"| [`{name}`](#pipeline-{name}) | {_first_line(cli.commands[name])} |" for name in names
    ]
    for name in names:
        lines += ["", *_command(cli.commands[name], context, name)]
    return "\n".join(lines).rstrip("\n") + "\n"


def prompt_files_page() -> str:
    """Return the keys of a prompt file's front matter, with an example."""
    lines = [
        "# Prompt files",
        "",
        "Generated from the code by `python -m docs.generate`.",
        "",
        "A prompt file is Markdown: front matter that says how to read the reply, then a template",
        "over the fields of an [example](../glossary.md#example). Fields are values only: text in",
        "them never becomes part of the template, and control tokens lose their effect.",
        "",
        "    ---",
        "    format: chat",
        '    rationale: {start: "", end: "<answer>"}',
        '    answer: {start: "<answer>", end: "</answer>"}',
        "    ---",
        "    Which team should handle this ticket: billing, access or other?",
        "",
        "    {{ text }}",
        "",
        "    Think it over in two sentences, then give the team between <answer> and </answer>.",
        "",
        "The two markers decide the order. Here the rationale comes first. With",
        '`answer: {end: ","}` and `rationale: {start: ","}` the answer comes first.',
        "`rationale: think` is for models that reason up to the token `</think>`.",
        "`pipeline validate CONFIG` prints the first rendered prompt.",
        "",
        "In chat a reply ends with the token that the chat template writes behind it, also where",
        "that is not the tokenizer's `eos_token` (Gemma, Phi, base models with a template). Some",
        "templates refuse or drop a system message: then move the text of `system` to the",
        "beginning of the body. A model without a template needs `format: completion`. `validate`",
        "tries the templates of tokenizers that are in a folder.",
    ]
    models = (("Front matter", FrontMatter), ("answer, rationale", Span), ("prefixes", Prefixes))
    for title, model in models:
        lines += ["", f"## {title}", "", *_fields(model)]
    return "\n".join(lines) + "\n"


PAGES: dict[str, Callable[[], str]] = {
    "config.md": config_page,
    "cli.md": cli_page,
    "prompt-files.md": prompt_files_page,
}


def stale() -> list[str]:
    """Return the pages that differ from what the code says now."""
    return [name for name, page in PAGES.items() if _text_of(name) != page()]


def _text_of(name: str) -> str:
    path = REFERENCE / name
    return path.read_text() if path.exists() else ""


def _first_line(command: click.Command) -> str:
    return (command.help or "").strip().split("\n\n")[0].replace("\n", " ")


def _command(command: click.Command, parent: click.Context, name: str) -> Iterator[str]:
    context = click.Context(command, info_name=name, parent=parent)
    yield f"## pipeline {name}"
    yield ""
    yield f"    {command.get_usage(context).removeprefix('Usage: ')}"
    yield ""
    for paragraph in inspect.cleandoc(command.help or "").split("\n\n"):
        yield textwrap.fill(paragraph, COLUMNS)
        yield ""
    options = [param for param in command.params if isinstance(param, click.Option)]
    if options:
        yield "| option | meaning |"
        yield "|---|---|"
    for option in options:
        record = option.get_help_record(context)
        assert record is not None, f"{name}: {option.name} has no help"
        left, right = (" ".join(text.split()).replace("|", "\\|") for text in record)
        yield f"| `{left}` | {right} |"
    if command.epilog:
        if options:
            yield ""
        yield "Example:"
        yield ""
        yield f"    {command.epilog.removeprefix('Example: ')}"


def _fields(model: type[BaseModel]) -> Iterator[str]:
    yield "| key | values | default | meaning |"
    yield "|---|---|---|---|"
    for name, field in model.model_fields.items():
        meaning = " ".join((field.description or "").split()).replace("|", "\\|")
        default = field.default
        shown = "see below" if isinstance(default, BaseModel) else f"`{default!r}`"
        yield f"| `{name}` | {_values(field.annotation)} | {shown} | {meaning} |"


def _values(annotation: Any) -> str:
    """Return a type in words."""
    names = {
        str: "text",
        bool: "true or false",
        type(None): "null",
        Span: "a span",
        Prefixes: "both",
    }
    if annotation in names:
        return names[annotation]
    parts = get_args(annotation)
    if getattr(annotation, "__origin__", None) is list:
        return f"list of {_values(parts[0])}"
    if parts:
        return ", ".join(_values(part) for part in parts)
    return f"`{annotation}`"


def main() -> int:
    """Write the pages, or with --check return 1 if one is stale."""
    if "--check" in sys.argv[1:]:
        for name in stale():
            print(f"docs/reference/{name} is stale; run: python -m docs.generate")
        return int(bool(stale()))
    for name, page in PAGES.items():
        (REFERENCE / name).write_text(page())
    return 0


if __name__ == "__main__":
    sys.exit(main())
