"""Show a sample token by token, and compare two runs."""

import re
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from pipeline.cli.main import cli
from pipeline.config import Config, load
from pipeline.errors import PipelineError
from pipeline.execution import runner
from pipeline.inspection import diff, tokens
from pipeline.stages import filter as filter_stage
from pipeline.stages import generate
from pipeline.storage.samples import Captured


@pytest.fixture
def generated(workshop: Path) -> Config:
    config = load(workshop / "config.yaml")
    runner.execute(generate, config)
    return config


def test_tokens_bear_their_own_probabilities(generated: Config) -> None:
    """If probabilities shift by one token, each stands at the wrong word."""
    run_dir = Path(generated.run_dir)
    head, text, *_ = tokens.inspect(run_dir, "n3/1", 0, False)
    item = next(item for item in Captured(run_dir / "generate").rows() if item["id"] == "n3/1")
    assert re.match(r"n3/1: answer '(yes|no)', ground truth no", head)
    without_probabilities = re.sub(r"\[\d\.\d\d\]", "", text)
    assert without_probabilities == item["text"] + "<|end|>", "the end token has one, too"
    shown = [float(value) for value in re.findall(r"\[(\d\.\d\d)\]", text)]
    known = np.exp(item["topk_logprobs"][:, 0])
    assert shown == [pytest.approx(p, abs=0.006) for p in known if p < tokens.SURE]
    assert shown


def test_colours_are_by_probability(generated: Config) -> None:
    """On a terminal every token has a background, and no text is lost."""
    text = list(tokens.inspect(Path(generated.run_dir), None, 0, True))[1]
    assert len(set(re.findall(r"48;5;(\d+)m", text))) > 1
    plain = re.sub(r"\x1b\[[\d;]*m", "", text)
    assert "even" in plain or "odd" in plain


def test_the_table_names_parts_and_others(generated: Config) -> None:
    """Each token has a line: its part of the reply, other likely tokens, and the rest."""
    lines = list(tokens.inspect(Path(generated.run_dir), "n0/0", 2, False))[2:-1]
    assert {"answer", "rationale"} <= {line.split()[1] for line in lines}
    assert all(re.search(r"others \d\.\d{3}$", line) for line in lines)


def test_an_unknown_sample(generated: Config) -> None:
    """A mistyped id is an error, not an empty output."""
    with pytest.raises(PipelineError, match="no sample or seed 'nobody'"):
        list(tokens.inspect(Path(generated.run_dir), "nobody", 0, False))


def test_runs_differ_in_what_was_set(workshop: Path, generated: Config) -> None:
    """Settings and stages of one run only are listed; equal runs have no difference."""
    other = load(
        workshop / "config.yaml", ["teacher.temperature=0.5", f"run_dir={workshop / 'other'}"]
    )
    runner.execute(generate, other)
    runner.execute(filter_stage, other)
    text = "\n".join(diff.compare_runs(workshop / "run", workshop / "other"))
    assert "generate:\n  teacher.temperature: 1.0 -> 0.5" in text
    assert "filter: only in the second run" in text
    same = CliRunner().invoke(cli, ["diff", generated.run_dir, generated.run_dir])
    assert same.output == "no difference\n"
    with pytest.raises(PipelineError, match="no stage was started here"):
        list(diff.compare_runs(workshop / "run", workshop / "run" / "generate"))
