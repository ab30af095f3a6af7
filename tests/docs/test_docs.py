"""Documentation: generated pages are fresh, links lead somewhere, commands and configs parse."""

import re
import shlex
import textwrap
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from docs import check, generate
from pipeline.cli.main import cli
from pipeline.config import load
from tests.support.task import ROOT

PAGES = [page for page in check.pages() if page.name not in ("CHANGELOG.md", "log.md")]
PLACEHOLDERS = {"CONFIG", "RUN", "RUN_A", "RUN_B"}


def blocks(page: Path) -> Iterator[str]:
    """Yield the code blocks of a page, fenced or indented."""
    text = page.read_text()
    for match in re.finditer(r"^( *)```[a-z]*\n(.*?)^\1```", text, re.MULTILINE | re.DOTALL):
        yield textwrap.dedent(match.group(2))
    unfenced = re.sub(r"^( *)```.*?^\1```", "", text, flags=re.MULTILINE | re.DOTALL)
    for match in re.finditer(r"(?:^(?: {4}.*)?\n)+", unfenced, re.MULTILINE):
        if match.group().strip():
            yield textwrap.dedent(match.group())


def commands(page: Path) -> Iterator[list[str]]:
    """Yield the arguments of every `pipeline …` line in the code blocks of a page."""
    for block in blocks(page):
        for line in block.replace("\\\n", " ").splitlines():
            command = re.sub(r"^(\$ |\.venv/bin/|python -m )+", "", line.strip())
            command = re.split(r" (?:\|\|?|&&|;) ", command)[0]
            if command.startswith("pipeline ") and not {"…", "[OPTIONS]"} & set(command.split()):
                yield shlex.split(command, comments=True)[1:]


COMMANDS = sorted(
    {(str(page.relative_to(ROOT)), shlex.join(found)) for page in PAGES for found in commands(page)}
)


def test_generated_pages_are_fresh() -> None:
    """A key or an option that changed would be described as it was."""
    assert generate.stale() == [], "run: python -m docs.generate"


def test_links_lead_somewhere_and_prose_is_wrapped() -> None:
    """A reader who follows a link into nothing stops reading."""
    complaints = [
        text
        for page in check.pages()
        for text in (*check.broken_links(page), *check.wide_lines(page))
    ]
    assert complaints == []


def test_a_broken_link_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A check that finds nothing passes for ever."""
    monkeypatch.setattr(check, "ROOT", tmp_path)
    page = tmp_path / "page.md"
    page.write_text("# A heading\n\n[a](#a-heading) [b](#none) [c](none.md) `[d](code.md)`\n")
    assert [text.split(": ")[1] for text in check.broken_links(page)] == ["#none", "none.md"]


def test_there_are_commands_to_check() -> None:
    """A pattern that matches no command would let all of them pass."""
    assert len(COMMANDS) > 40


@pytest.mark.parametrize(("page", "line"), COMMANDS)
def test_commands_parse(page: str, line: str) -> None:
    """A command of the docs with an option or a key that is gone; placeholders are capitals."""
    name, *arguments = shlex.split(line)
    if name.startswith("-"):
        return
    command = cli.get_command(click.Context(cli), name)
    assert command is not None, f"{page}: pipeline {name}: no such command"
    context = command.make_context(name, arguments)
    if "overrides" not in context.params:
        return
    config = Path(context.params["config"])
    base = ROOT / config if (ROOT / config).is_file() else ROOT / "configs" / "gsm8k.yaml"
    load(base, [text for text in context.params["overrides"] if text not in PLACEHOLDERS])


def configs() -> Iterator[tuple[str, str]]:
    for page in PAGES:
        for block in blocks(page):
            if re.search(r"^task:", block, re.MULTILINE) and re.search(
                r"^teacher:", block, re.MULTILINE
            ):
                yield str(page.relative_to(ROOT)), block


@pytest.mark.parametrize(("page", "block"), configs())
def test_configs_parse(page: str, block: str, tmp_path: Path) -> None:
    """A whole config in the docs that the reader copies and that is refused."""
    path = tmp_path / "config.yaml"
    path.write_text(block)
    load(path)


def test_readme_is_short() -> None:
    """A README that is not read to its end."""
    assert len((ROOT / "README.md").read_text().splitlines()) <= 120


def test_make_targets_exist() -> None:
    """`make x` in the docs for a target that is gone."""
    targets = set(
        re.findall(r"^([a-z][\w-]*)(?: [\w-]+)*:", (ROOT / "Makefile").read_text(), re.MULTILINE)
    )
    for line in re.findall(r"^([a-z][\w -]*):", (ROOT / "Makefile").read_text(), re.MULTILINE):
        targets |= set(line.split())
    named = {
        target
        for page in PAGES
        for block in blocks(page)
        for target in re.findall(r"^(?:\$ )?make ([a-z][\w-]*)", block, re.MULTILINE)
    }
    assert named <= targets
