"""What reaches a terminal: nothing that it would obey, and the same JSON as before."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.execution.console import printable
from tests.support.task import ROOT

HOSTILE = {
    "colour": "\x1b[31m",
    "title": "\x1b]0;owned\x07",
    "8-bit escape": "\x9b31m",
    "carriage return": "good\rbad",
    "backspace": "good\b\b",
    "nul": "\x00",
    "delete": "\x7f",
    "override": "\u202egpj.exe",
    "isolate": "\u2066x\u2069",
    "mark": "\u200fx\u200e\u061c",
    "line separator": "a\u2028b\u2029c",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_terminal_obeys_no_character_of_data(name: str) -> None:
    """An id could clear the screen, set the title, or show a text in another order."""
    shown = printable(HOSTILE[name])
    assert shown.isprintable()
    assert json.loads(f'"{shown}"') == HOSTILE[name]


@pytest.mark.parametrize("text", ["plain", "two\nlines\tand a tab", "müßig 漢字 👩\u200d🚀 नमस्ते"])
def test_other_text_is_not_changed(text: str) -> None:
    """Letters of every script, and joiners within emoji, are good data."""
    assert printable(text) == text


def test_json_stays_the_same_value() -> None:
    """The output of `pipeline samples` is read by programs."""
    content = {"id": "a\u202eb\x7f\x9b", "text": "\x1b[2J\r\n\u2028"}
    line = printable(json.dumps(content, ensure_ascii=False))
    assert json.loads(line) == content
    assert line.isprintable()


def test_errors_on_the_command_line_are_printable(tmp_path: Path) -> None:
    """A file's name or a key of a config is data, too."""
    config = tmp_path / "config.yaml"
    config.write_text('"\\e[31mteacher": 1\n"task\\u202E": 1\n')
    for arguments in (["validate", str(config)], ["validate\x1b[31m"], ["status", "a\x1b[2Jb"]):
        done = subprocess.run(
            [sys.executable, "-m", "pipeline", *arguments],
            capture_output=True,
            text=True,
            cwd=ROOT,
        )
        assert done.returncode != 0
        assert done.stderr.replace("\n", "").isprintable()
