"""pipeline validate finds what would fail after the teacher was paid."""

import json
import shutil
from pathlib import Path

import pytest

from pipeline.config import Config, load
from pipeline.errors import PipelineError
from pipeline.inspection import validate
from pipeline.models.fake import TOKENIZER

CONFIG = """
task: {seeds: s.jsonl, eval_seeds: e.jsonl, metric: numeric}
teacher: {backend: fake, replies: ["4"], model: fake, max_tokens: 8, logprobs: 0}
generate: {prompt: p.md}
student: {model: random}
train: {prompt: p.md, arms: {sft: {method: sft}}}
"""
FAKE = 'backend: fake, replies: ["4"]'
SERVER = 'backend: openai, base_url: "http://127.0.0.1:9/v1", tokenizer: tok'


def write(folder: Path, targets: list[object], config: str = CONFIG) -> Config:
    """Write a task with these targets as its training examples."""
    rows = [{"id": f"a{n}", "text": f"how much {n}", "target": t} for n, t in enumerate(targets)]
    (folder / "s.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "e.jsonl").write_text('{"text": "held out", "target": "5"}\n')
    (folder / "p.md").write_text("---\nformat: completion\n---\n{{ text }}\n")
    (folder / "c.yaml").write_text(config)
    return load(folder / "c.yaml")


def test_targets_that_the_metric_cannot_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They were found as unknown_correctness, after the teacher had answered them."""
    monkeypatch.chdir(tmp_path)
    config = write(tmp_path, ["4", "four", None, 2.0, ["5", "7"], {"a": "b"}])
    with pytest.raises(PipelineError) as caught:
        validate.check_config(config)
    message = str(caught.value)
    assert "numeric cannot read 2 of 6 targets" in message
    assert "s.jsonl:2 (seed a1: no number in the target: four)" in message
    assert "s.jsonl:6 (seed a5" in message


def test_chat_templates_are_tried_before_anything_loads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The template of a local tokenizer refused every request, once the teacher was up."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(TOKENIZER, tmp_path / "tok")
    (tmp_path / "tok/chat_template.jinja").unlink()
    config = write(tmp_path, ["4"], CONFIG.replace(FAKE, SERVER))
    assert validate.check_config(config)
    (tmp_path / "p.md").write_text("---\nformat: chat\n---\n{{ text }}\n")
    with pytest.raises(PipelineError, match=r"p\.md: tok: has no chat template"):
        validate.check_config(config)
