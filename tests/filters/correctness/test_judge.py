"""The judge: who is asked, how often, and what becomes of its marks."""

from pathlib import Path

import numpy as np
import pytest

from pipeline.config import Config, load
from pipeline.errors import PipelineError
from pipeline.execution import manifest, runner
from pipeline.filters.correctness.judge import Bench, agreement, low
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
MARKS = [" Score: 5 out of 5\n", " Score: 2/5\n", " no idea\n", " Score: 50\n"]


@pytest.fixture
def judged(workshop: Path) -> list[str]:
    """Overrides of a run with a fake judge, generate finished."""
    (workshop / "rubric.md").write_text(RUBRIC)
    runner.execute(generate, load(workshop / "config.yaml"))
    return [f"filter.judge={{prompt: {workshop / 'rubric.md'}, model: judge, replies: {MARKS!r}}}"]


def run(workshop: Path, overrides: list[str]) -> Config:
    config = load(workshop / "config.yaml", overrides)
    runner.execute(filter_stage, config, prepare=runner.set_aside)
    return config


def asked(workshop: Path) -> int:
    return sum(
        1
        for path in (workshop / "run" / "measured").glob("judge-*/*.jsonl.gz")
        for _ in read_lines(path)
    )


def test_low_marks_and_none(workshop: Path, judged: list[str]) -> None:
    """Below the bar, and no mark on the scale; only those are asked whom the other filters left."""
    run(workshop, judged)
    counts = manifest.read_manifest(workshop / "run", "filter")["counts"]
    assert counts["rejected"]["judge.low_mark"] > 0
    assert counts["rejected"]["judge.unjudged"] > 0
    others = sum(
        number for name, number in counts["rejected"].items() if not name.startswith("judge.")
    )
    assert asked(workshop) == 60 - others


def test_nobody_is_asked_twice(workshop: Path, judged: list[str]) -> None:
    """Another bar asks no one; a looser filter before it sends only those who never came so far."""
    run(workshop, judged)
    first = asked(workshop)
    run(workshop, [*judged, "filter.judge.least=5"])
    assert asked(workshop) == first
    run(workshop, [*judged, "filter.correct=false"])
    assert asked(workshop) > first
    assert len(list((workshop / "run" / "measured").glob("judge-*/*.jsonl.gz"))) == 2
    run(workshop, [*judged, "filter.judge.max_tokens=99"])
    assert len(list((workshop / "run" / "measured").glob("judge-*"))) == 2, (
        "another judge's marks are others"
    )


def test_another_scale_reads_the_same_marks(workshop: Path, judged: list[str]) -> None:
    """50 is a mark where the scale goes so far; it is read anew from what was said, and nobody is asked."""
    run(workshop, judged)
    first = (
        asked(workshop),
        manifest.read_manifest(workshop / "run", "filter")["counts"]["rejected"]["judge.unjudged"],
    )
    run(workshop, [*judged, "filter.judge.highest=100"])
    assert asked(workshop) == first[0]
    assert (
        manifest.read_manifest(workshop / "run", "filter")["counts"]["rejected"]["judge.unjudged"]
        < first[1]
    )


def test_a_kill_loses_no_mark(workshop: Path, judged: list[str]) -> None:
    """What the journal of a killed command holds is not asked again."""
    run(workshop, judged)
    (sealed,) = (workshop / "run" / "measured").glob("judge-*/*.jsonl.gz")
    lines = list(read_lines(sealed))
    sealed.with_name("00000.journal.jsonl").write_bytes(b"".join(lines[:5]) + b'{"id": "torn')
    sealed.unlink()
    run(workshop, judged)
    shards = sorted((workshop / "run" / "measured").glob("judge-*/*.jsonl.gz"))
    assert [len(list(read_lines(path))) for path in shards] == [5, len(lines) - 5]


def test_what_is_not_judged_may_stay(workshop: Path, judged: list[str]) -> None:
    run(workshop, [*judged, "filter.judge.unjudged=keep"])
    assert (
        "judge.unjudged"
        not in manifest.read_manifest(workshop / "run", "filter")["counts"]["rejected"]
    )


def test_a_rubric_that_names_what_is_not_there(workshop: Path, judged: list[str]) -> None:
    """The error names the rubric, the sample and what it may name, before a model is loaded."""
    (workshop / "rubric.md").write_text(RUBRIC.replace("ground_truth", "truth"))
    with pytest.raises(
        PipelineError,
        match=r"rubric\.md: 'truth' is undefined for seed n0/0, whose inputs are number, reply",
    ):
        run(workshop, judged)


def test_the_judge_has_the_teachers_settings_but_for_its_own(workshop: Path) -> None:
    """A server's judge must not be asked of the teacher's engine, nor the teacher's tokenizer taken for its."""
    own = "filter.judge={model: other, backend: openai, base_url: http://127.0.0.1:1/v1}"
    model = Bench(load(workshop / "config.yaml", [own, "teacher.timeout_s=7"])).model
    assert (model.model, model.backend, model.base_url, model.tokenizer, model.timeout_s) == (
        "other",
        "openai",
        "http://127.0.0.1:1/v1",
        None,
        7.0,
    )
    assert Bench(load(workshop / "config.yaml", ["filter.judge={}"])).model.model == "fake"


def test_the_judge_has_the_teachers_key_unless_it_has_its_own(workshop: Path) -> None:
    """A default of the judge's hid the teacher's; with another model on the teacher's server every request was refused."""
    overrides = [
        "filter.judge={model: other, backend: openai, base_url: http://127.0.0.1:1/v1}",
        "teacher.api_key_env=TEACHERS",
    ]
    assert Bench(load(workshop / "config.yaml", overrides)).model.api_key_env == "TEACHERS"
    assert (
        Bench(
            load(workshop / "config.yaml", [*overrides, "filter.judge.api_key_env=OWN"])
        ).model.api_key_env
        == "OWN"
    )


def test_an_input_with_a_name_of_the_rubrics(workshop: Path, judged: list[str]) -> None:
    """The judge was shown the teacher's reply in the place of the seed's own input, or the other way round."""
    (workshop / "seeds.jsonl").write_text(
        '{"id": "a", "number": 2, "reply": "hello", "target": "yes"}\n'
    )
    config = load(workshop / "config.yaml", [*judged, f"run_dir={workshop / 'other'}"])
    with pytest.raises(
        PipelineError,
        match="seed a has an input 'reply', which the rubric has for its own; rename the input",
    ):
        validate.check(config)
    runner.execute(generate, config)
    with pytest.raises(PipelineError, match="seed a has an input 'reply'"):
        runner.execute(filter_stage, config)


def test_low_is_strict_at_the_bar() -> None:
    """A mark at the bar is kept."""
    found = ({2: "what?"}, np.array([4.0, 3.5, np.nan]))
    assert low(np.arange(3), found, 4.0, True) == {
        1: Verdict("low_mark", 3.5),
        2: Verdict("unjudged", "what?"),
    }
    assert low(np.array([0, 2]), found, 4.0, False) == {}


def test_agreement_is_the_area_under_the_curve() -> None:
    """1 where marks part right from wrong, one half where they say nothing, none where there is nothing to part."""
    right = np.array([1.0, 1.0, 0.0, 0.0, np.nan])
    assert agreement(np.array([5.0, 4.0, 2.0, 1.0, 3.0]), right) == 1.0
    assert agreement(np.array([3.0, 3.0, 3.0, 3.0, 3.0]), right) == 0.5
    assert agreement(np.array([5.0, 1.0, 3.0, 2.0, 3.0]), right) == 0.5
    assert agreement(np.array([5.0, 1.0]), np.array([1.0, 1.0])) is None
