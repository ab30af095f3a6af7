"""What became of a sample, from files alone."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from pipeline.cli.main import cli
from pipeline.config import Config, load
from pipeline.errors import PipelineError
from pipeline.execution import runner as stage
from pipeline.inspection import explain
from pipeline.stages import filter as filter_stage
from pipeline.stages import generate


@pytest.fixture
def filtered(workshop: Path) -> Config:
    """A run up to its filter: of the fake's replies some are wrong, and some said twice."""
    config = load(workshop / "config.yaml")
    stage.execute(generate, config)
    stage.execute(filter_stage, config)
    return config


def lives(config: Config, identifier: str) -> str:
    return "\n".join(explain.explain(Path(config.run_dir), identifier))


def rejected(config: Config, reason: str) -> dict[str, object]:
    found: dict[str, object] = json.loads(
        next(explain.list_samples(Path(config.run_dir), True, reason, 1))
    )
    return found


def test_a_rejected_sample_says_who_turned_it_down(filtered: Config) -> None:
    """Rows that vanish without a reason are what users of other tools complain of."""
    one = rejected(filtered, "correct.wrong_answer")
    told = lives(filtered, str(one["id"]))
    assert f"sample {one['id']}: turned down by correct: wrong_answer" in told
    assert "length         passed" in told
    assert "duplicate" not in told, "it was never asked"
    for said in (
        "ground truth yes",
        "fake by fake",
        "sampling seed",
        "Answer:",
        "rationale: ",
        "logprob a token",
    ):
        assert said in told


def test_a_kept_sample_has_passed_every_filter(filtered: Config) -> None:
    """Every filter that it went through is named, and the training that waits for it."""
    kept = json.loads(next(explain.list_samples(Path(filtered.run_dir), False, None, 1)))["id"]
    told = lives(filtered, kept)
    assert f"sample {kept}: kept" in told
    assert told.count(" passed") == 10
    assert "train: no arm is finished" in told


def test_a_seed_tells_of_all_its_samples(filtered: Config) -> None:
    """What n samples of one question came to is seen at once; an id that only begins alike is another's."""
    told = lives(filtered, "n1")
    assert told.count("\nseed n1:") == 2
    assert "n10" not in told


def test_an_unknown_id_is_refused_with_one_that_is_there(filtered: Config) -> None:
    with pytest.raises(
        PipelineError, match="there is no sample or seed 'nobody'; ids look like n0/0"
    ):
        lives(filtered, "nobody")


def test_samples_are_listed_by_their_reason(filtered: Config) -> None:
    """kept + rejected is all; a reason names only its own."""
    runner = CliRunner()
    kept = runner.invoke(cli, ["samples", filtered.run_dir]).output.splitlines()
    gone = runner.invoke(cli, ["samples", filtered.run_dir, "--rejected"]).output.splitlines()
    assert len(kept) + len(gone) == 60
    some = runner.invoke(
        cli, ["samples", filtered.run_dir, "--reason", "same_as", "--limit", "2"]
    ).output.splitlines()
    assert [json.loads(line)["filter"] for line in some] == ["duplicate", "duplicate"]


def test_a_reason_that_there_is_not_is_told(filtered: Config) -> None:
    """Nothing at all for a misspelt reason reads as if nobody had been turned down for it."""
    with pytest.raises(
        PipelineError,
        match=r"nothing was turned down for 'wrong_anwser'; there are .*correct\.wrong_answer",
    ):
        list(explain.list_samples(Path(filtered.run_dir), True, "wrong_anwser", None))
    assert list(explain.list_samples(Path(filtered.run_dir), True, "correct.wrong_answer", None))


def test_the_life_before_the_filter(workshop: Path) -> None:
    """An unfinished run tells what there is so far."""
    config = load(workshop / "config.yaml")
    stage.execute(generate, config)
    assert "sample n3/1: filter has not been run to its end" in lives(config, "n3/1")


def test_a_filter_that_left_nothing_still_tells_why(workshop: Path) -> None:
    """The error points to rejected/; there the samples must be readable, though the stage is not finished."""
    config = load(workshop / "config.yaml", ["filter.max_tokens=2"])
    stage.execute(generate, config)
    refused = CliRunner().invoke(
        cli, ["samples", config.run_dir, "--rejected"], standalone_mode=False
    )
    assert "run pipeline filter first" in str(refused.exception)
    with pytest.raises(PipelineError, match="no sample is kept"):
        stage.execute(filter_stage, config)
    assert rejected(config, "length.too_long")["reason"] == "too_long"
    assert "turned down by length: too_long" in lives(config, "n0/0")


def test_rows_of_another_generate_are_refused(filtered: Config) -> None:
    """Kept rows are numbers; of a generate that was made again they would be other samples."""
    manifest = Path(filtered.run_dir) / "generate" / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"sha256": "', '"sha256": "0'))
    with pytest.raises(PipelineError, match="make filter again with --redo"):
        list(explain.list_samples(Path(filtered.run_dir), False, None, None))
