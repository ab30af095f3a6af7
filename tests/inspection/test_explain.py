"""Explain a sample, and list samples, from a run's files alone."""

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
    """A run up to filter; the fake teacher gives some wrong replies and some twice."""
    config = load(workshop / "config.yaml")
    stage.execute(generate, config)
    stage.execute(filter_stage, config)
    return config


def explained(config: Config, identifier: str) -> str:
    return "\n".join(explain.explain(Path(config.run_dir), identifier))


def first_rejected(config: Config, reason: str) -> dict[str, object]:
    line = next(explain.list_samples(Path(config.run_dir), True, reason, 1))
    sample: dict[str, object] = json.loads(line)
    return sample


def test_a_rejected_sample_says_who_turned_it_down(filtered: Config) -> None:
    """Users of other tools complain that rows vanish without a reason."""
    sample = first_rejected(filtered, "correct.wrong_answer")
    text = explained(filtered, str(sample["id"]))
    assert f"sample {sample['id']}: rejected by correct: wrong_answer" in text
    assert "length         passed" in text
    assert "duplicate" not in text, "the filters after it do not see the sample"
    for words in (
        "ground truth yes",
        "fake by fake",
        "sampling seed",
        "Answer:",
        "rationale: ",
        "logprob/token",
    ):
        assert words in text


def test_a_kept_sample_has_passed_every_filter(filtered: Config) -> None:
    """All its filters are listed, and that no arm was trained yet."""
    kept = json.loads(next(explain.list_samples(Path(filtered.run_dir), False, None, 1)))["id"]
    text = explained(filtered, kept)
    assert f"sample {kept}: kept" in text
    assert text.count(" passed") == 11
    assert "train: no arm is finished" in text


def test_a_seed_tells_of_all_its_samples(filtered: Config) -> None:
    """The id of a seed explains all its samples, but not those of an id that only begins alike."""
    text = explained(filtered, "n1")
    assert text.count("\nseed n1:") == 2
    assert "n10" not in text


def test_an_unknown_id_is_refused_with_one_that_is_there(filtered: Config) -> None:
    """The error shows what an id looks like."""
    with pytest.raises(
        PipelineError, match="there is no sample or seed 'nobody'; ids look like n0/0"
    ):
        explained(filtered, "nobody")


def test_samples_are_listed_by_their_reason(filtered: Config) -> None:
    """Kept and rejected samples are all samples; a reason lists only its own."""
    runner = CliRunner()
    kept = runner.invoke(cli, ["samples", filtered.run_dir]).output.splitlines()
    rejected = runner.invoke(cli, ["samples", filtered.run_dir, "--rejected"]).output.splitlines()
    assert len(kept) + len(rejected) == 60
    duplicates = runner.invoke(
        cli, ["samples", filtered.run_dir, "--reason", "same_as", "--limit", "2"]
    ).output.splitlines()
    assert [json.loads(line)["filter"] for line in duplicates] == ["duplicate", "duplicate"]


def test_a_reason_that_there_is_not_is_told(filtered: Config) -> None:
    """An empty list for a misspelt reason looks as if it had rejected no sample."""
    with pytest.raises(
        PipelineError,
        match=r"no sample was rejected for 'wrong_anwser'; the reasons .*correct\.wrong_answer",
    ):
        list(explain.list_samples(Path(filtered.run_dir), True, "wrong_anwser", None))
    assert list(explain.list_samples(Path(filtered.run_dir), True, "correct.wrong_answer", None))


def test_the_life_before_the_filter(workshop: Path) -> None:
    """An unfinished run can be inspected, too."""
    config = load(workshop / "config.yaml")
    stage.execute(generate, config)
    assert "sample n3/1: filter has not finished" in explained(config, "n3/1")


def test_a_filter_that_left_nothing_still_tells_why(workshop: Path) -> None:
    """The error points to rejected/, which must be readable although filter is not finished."""
    config = load(workshop / "config.yaml", ["filter.max_tokens=2"])
    stage.execute(generate, config)
    refused = CliRunner().invoke(
        cli, ["samples", config.run_dir, "--rejected"], standalone_mode=False
    )
    assert "run pipeline filter first" in str(refused.exception)
    with pytest.raises(PipelineError, match="no sample is kept"):
        stage.execute(filter_stage, config)
    assert first_rejected(config, "length.too_long")["reason"] == "too_long"
    assert "rejected by length: too_long" in explained(config, "n0/0")


def test_rows_of_another_generate_are_refused(filtered: Config) -> None:
    """Kept rows are numbers; after generate ran again they would point to other samples."""
    manifest = Path(filtered.run_dir) / "generate" / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"sha256": "', '"sha256": "0'))
    with pytest.raises(PipelineError, match="run pipeline filter with --redo"):
        list(explain.list_samples(Path(filtered.run_dir), False, None, None))


@pytest.mark.parametrize(
    "arguments",
    [
        ["validate", "CONFIG"],
        ["explain", "RUN", "ID"],
        ["explain", "RUN", "no\x1b[2J\u202e"],
        ["inspect", "RUN", "ID"],
        ["inspect", "RUN", "ID", "--top", "2"],
        ["samples", "RUN"],
        ["samples", "RUN", "--rejected"],
        ["verify", "RUN"],
        ["status", "RUN"],
    ],
)
def test_data_sends_no_control_characters_to_a_terminal(
    arguments: list[str], workshop: Path
) -> None:
    """Seeds come from strangers: an id could clear the screen or turn text round."""
    hostile = "\x1b[2J\u202eevil\x9b\r"
    seeds = workshop / "seeds.jsonl"
    rows = [json.loads(line) for line in seeds.read_text().splitlines()]
    column = next(name for name in rows[0] if name not in ("id", "target", "group"))
    for row in rows:
        row |= {"id": f"{row.get('id')}{hostile}", column: f"{row[column]}{hostile}"}
    seeds.write_text("\n".join(map(json.dumps, rows)))
    config = load(workshop / "config.yaml")
    stage.execute(generate, config)
    stage.execute(filter_stage, config)
    names = {
        "CONFIG": str(workshop / "config.yaml"),
        "RUN": config.run_dir,
        "ID": f"{rows[0]['id']}/0",
    }
    given = [names.get(argument, argument) for argument in arguments]
    done = CliRunner().invoke(cli, given)
    if "ID" in arguments or arguments[0] in ("validate", "samples"):
        assert "\\u001b[2J\\u202eevil" in done.output
    shown = done.output.replace("\n", "").replace("\t", "")
    assert shown.isprintable()
    if arguments[0] == "samples":
        ids = [json.loads(line)["id"] for line in done.output.splitlines()]
        assert ids
        assert all(hostile in identifier for identifier in ids)
