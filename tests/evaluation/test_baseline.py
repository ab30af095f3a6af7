"""The majority baseline, and what is said of a student that does not beat it."""

from pathlib import Path

from pipeline.config import load
from pipeline.evaluation.baseline import warnings
from pipeline.evaluation.results import results
from pipeline.evaluation.results_model import Cost, Results
from pipeline.evaluation.table import table
from pipeline.records import Score, Scored, Usage

TARGETS = ["yes"] * 60 + ["no"] * 40


def answers(given: list[str]) -> list[Scored]:
    return [
        Scored(
            id=f"{number}",
            seed_id=f"n{number}",
            target=target,
            model="m",
            text=answer,
            finish_reason="stop",
            usage=Usage(prompt_tokens=1, completion_tokens=1),
            score=Score(value=float(answer == target), answer=answer, explanation=""),
        )
        for number, (answer, target) in enumerate(zip(given, TARGETS, strict=True))
    ]


def figures(workshop: Path, student: list[str]) -> Results:
    """Return the results of a teacher that is always right and one student."""
    config = load(str(workshop / "config.yaml"), ["train.arms={sft: {method: sft}}"])
    cost = Cost(engine="none")
    measured = {"teacher": (answers(TARGETS), cost), "sft": (answers(student), cost)}
    return results(config, measured)


def test_a_student_of_one_answer_is_named_first(workshop: Path) -> None:
    """Such a student kept 60 % of its teacher's score, and no line said that it learned nothing."""
    found = figures(workshop, ["yes"] * 100)
    assert found.baseline is not None
    assert found.baseline.score.mean == 0.6
    first, second, *_ = table(found).splitlines()
    assert first == "sft is not significantly better than always answering 'yes' (0.600)."
    assert second.startswith("sft answers 'yes' to 100% of the examples")


def test_a_student_that_learned_is_not_warned_of(workshop: Path) -> None:
    """A warning on every run would be read by nobody."""
    assert not list(warnings(figures(workshop, TARGETS[:95] + ["yes"] * 5)))


def test_results_of_an_older_version_have_no_baseline(workshop: Path, tmp_path: Path) -> None:
    """A run evaluated before the baseline existed must still be read."""
    path = tmp_path / "results.json"
    old = figures(workshop, TARGETS).model_dump(exclude={"baseline"})
    Results.model_validate(old).write(path)
    assert Results.read(path).baseline is None
