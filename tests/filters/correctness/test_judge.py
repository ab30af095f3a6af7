"""The judge: which replies it reads, how often, and what its scores decide."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.config import Config, Teacher, load
from pipeline.errors import PipelineError
from pipeline.execution import manifest, runner
from pipeline.filters.correctness.judge import ReplyJudge, Scores, reject_low_scores, roc_auc
from pipeline.filters.verdict import Verdict
from pipeline.inspection import validate
from pipeline.stages import filter as filter_stage
from pipeline.stages import generate
from pipeline.storage.shards import read_lines

RUBRIC = """---
format: completion
stop: ["\\n"]
answer: {start: "Score:", end: "\\n"}
---
Is {{ number }} even? Reply: {{ reply }} Truth: {{ ground_truth }}
"""
REPLIES = [" Score: 5 out of 5\n", " Score: 2/5\n", " no idea\n", " Score: 50\n"]


@pytest.fixture
def judged(workshop: Path) -> list[str]:
    """Return the overrides of a run with a fake judge; its generate stage is finished."""
    rubric = workshop / "rubric.md"
    rubric.write_text(RUBRIC)
    runner.execute(generate, load(workshop / "config.yaml"))
    return [f"filter.judge={{prompt: {rubric}, model: judge, replies: {REPLIES!r}}}"]


def run(workshop: Path, overrides: list[str]) -> Config:
    config = load(workshop / "config.yaml", overrides)
    runner.execute(filter_stage, config, prepare=runner.archive)
    return config


def shards(workshop: Path) -> list[Path]:
    return sorted((workshop / "run" / "measured").glob("judge-*/*.jsonl.gz"))


def count_opinions(workshop: Path) -> int:
    return sum(len(list(read_lines(path))) for path in shards(workshop))


def rejected(workshop: Path) -> dict[str, Any]:
    counts: dict[str, Any] = manifest.read_manifest(workshop / "run", "filter")["counts"]
    return counts["rejected"]


def model_of(workshop: Path, *overrides: str) -> Teacher:
    config = load(workshop / "config.yaml", list(overrides))
    assert config.filter.judge is not None
    return ReplyJudge(config.filter.judge, config).model


def test_low_marks_and_none(workshop: Path, judged: list[str]) -> None:
    """Replies that other filters had rejected were judged, and a score off the scale passed."""
    run(workshop, judged)
    reasons = rejected(workshop)
    assert reasons["judge.low_mark"] > 0
    assert reasons["judge.unjudged"] > 0
    others = sum(number for name, number in reasons.items() if not name.startswith("judge."))
    assert count_opinions(workshop) == 60 - others


def test_nobody_is_asked_twice(workshop: Path, judged: list[str]) -> None:
    """Replies were judged again after a changed threshold; only new ones may be, and a new judge
    keeps its scores apart."""
    run(workshop, judged)
    first = count_opinions(workshop)
    run(workshop, [*judged, "filter.judge.least=5"])
    assert count_opinions(workshop) == first
    run(workshop, [*judged, "filter.correct=false"])
    assert count_opinions(workshop) > first
    assert len(shards(workshop)) == 2
    run(workshop, [*judged, "filter.judge.max_tokens=99"])
    assert len(list((workshop / "run" / "measured").glob("judge-*"))) == 2


def test_another_scale_reads_the_same_marks(workshop: Path, judged: list[str]) -> None:
    """A changed scale asked the judge again; 50 can be read from the stored opinion."""
    run(workshop, judged)
    opinions = count_opinions(workshop)
    unjudged = rejected(workshop)["judge.unjudged"]
    run(workshop, [*judged, "filter.judge.highest=100"])
    assert count_opinions(workshop) == opinions
    assert rejected(workshop)["judge.unjudged"] < unjudged


def test_a_kill_loses_no_mark(workshop: Path, judged: list[str]) -> None:
    """Opinions in the journal of a killed command were asked for again."""
    run(workshop, judged)
    (sealed,) = shards(workshop)
    lines = list(read_lines(sealed))
    sealed.with_name("00000.journal.jsonl").write_bytes(b"".join(lines[:5]) + b'{"id": "torn')
    sealed.unlink()
    run(workshop, judged)
    sizes = [len(list(read_lines(path))) for path in shards(workshop)]
    assert sizes == [5, len(lines) - 5]


def test_what_is_not_judged_may_stay(workshop: Path, judged: list[str]) -> None:
    """Replies without a score were rejected although the config keeps them."""
    run(workshop, [*judged, "filter.judge.unjudged=keep"])
    assert "judge.unjudged" not in rejected(workshop)


def test_a_rubric_that_names_what_is_not_there(workshop: Path, judged: list[str]) -> None:
    """The error names rubric, sample and the names it may use, before a model is loaded."""
    (workshop / "rubric.md").write_text(RUBRIC.replace("ground_truth", "truth"))
    message = r"rubric\.md: 'truth' is undefined for seed n0/0, whose inputs are number, reply"
    with pytest.raises(PipelineError, match=message):
        run(workshop, judged)


def test_the_judge_has_the_teachers_settings_but_for_its_own(workshop: Path) -> None:
    """A judge behind a server used the teacher's engine, and the teacher's tokenizer."""
    judge = "filter.judge={model: other, backend: openai, base_url: http://127.0.0.1:1/v1}"
    model = model_of(workshop, judge, "teacher.timeout_s=7")
    assert (model.model, model.backend, model.base_url, model.tokenizer, model.timeout_s) == (
        "other",
        "openai",
        "http://127.0.0.1:1/v1",
        None,
        7.0,
    )
    assert model_of(workshop, "filter.judge={}").model == "fake"


def test_the_judge_has_the_teachers_key_unless_it_has_its_own(workshop: Path) -> None:
    """A default of the judge hid the teacher's key, and the server refused every request."""
    overrides = [
        "filter.judge={model: other, backend: openai, base_url: http://127.0.0.1:1/v1}",
        "teacher.api_key_env=TEACHERS",
    ]
    assert model_of(workshop, *overrides).api_key_env == "TEACHERS"
    own_key = model_of(workshop, *overrides, "filter.judge.api_key_env=OWN")
    assert own_key.api_key_env == "OWN"


def test_an_input_with_a_name_of_the_rubrics(workshop: Path, judged: list[str]) -> None:
    """The rubric showed the teacher's reply in place of an input of that name, or the reverse."""
    (workshop / "seeds.jsonl").write_text(
        '{"id": "a", "number": 2, "reply": "hello", "target": "yes"}\n'
    )
    config = load(workshop / "config.yaml", [*judged, f"run_dir={workshop / 'other'}"])
    message = "seed a has an input 'reply', a name that the rubric uses itself; rename the input"
    with pytest.raises(PipelineError, match=message):
        validate.check_config(config)
    runner.execute(generate, config)
    with pytest.raises(PipelineError, match="seed a has an input 'reply'"):
        runner.execute(filter_stage, config)


def test_low_is_strict_at_the_bar() -> None:
    """A score equal to the threshold was rejected."""
    scores = Scores(np.array([4.0, 3.5, np.nan]), {2: "what?"})
    assert reject_low_scores(np.arange(3), scores, 4.0, True) == {
        1: Verdict("low_mark", 3.5),
        2: Verdict("unjudged", "what?"),
    }
    assert reject_low_scores(np.array([0, 2]), scores, 4.0, False) == {}


def test_agreement_is_the_area_under_the_curve() -> None:
    """The area is 1 for a perfect judge, 0.5 for a useless one, None if one kind is missing."""
    right = np.array([1.0, 1.0, 0.0, 0.0, np.nan])
    assert roc_auc(np.array([5.0, 4.0, 2.0, 1.0, 3.0]), right) == 1.0
    assert roc_auc(np.array([3.0, 3.0, 3.0, 3.0, 3.0]), right) == 0.5
    assert roc_auc(np.array([5.0, 1.0, 3.0, 2.0, 3.0]), right) == 0.5
    assert roc_auc(np.array([5.0, 1.0]), np.array([1.0, 1.0])) is None
