"""The gate: a bad student fails, a good one passes, and the line names the threshold."""

from pathlib import Path

import pytest

from pipeline.config import Config, load
from pipeline.errors import PipelineError
from pipeline.evaluation import gate
from pipeline.evaluation.results import results
from pipeline.evaluation.results_model import Cost
from pipeline.records import Score, Scored, Usage

COST = Cost(engine="vllm")


def answers(right: str, wrong: str = "no") -> list[Scored]:
    """Return one answer per character, 1 for a right one; examples alternate between two groups."""
    return [
        Scored(
            id=f"{number}",
            seed_id=f"s{number}",
            group="ab"[number % 2],
            target="yes",
            model="m",
            text="",
            finish_reason="stop",
            usage=Usage(prompt_tokens=1, completion_tokens=1),
            score=Score(
                value=float(value), answer="yes" if value == "1" else wrong, explanation=""
            ),
        )
        for number, value in enumerate(right)
    ]


def missed_lines(
    workshop: Path, setting: str, kd: str = "1110" * 10, sft: str = "1010" * 10
) -> list[str]:
    config: Config = load(workshop / "config.yaml", [f"evaluate.gate={setting}"])
    measured = {
        "teacher": (answers("1" * len(kd)), COST),
        "kd": (answers(kd), COST),
        "sft": (answers(sft), COST),
    }
    return gate.failed(config, results(config, measured))


@pytest.mark.parametrize(
    ("setting", "missed"),
    [
        ("{score: 0.7}", None),
        ("{score: 0.8}", "score 0.750, less than evaluate.gate.score=0.8"),
        ("{score: 0.7, certain: true}", "low end of the interval 0.6"),
        ("{retained: 0.75}", None),
        ("{retained: 0.9}", "keeps 75.0% of the teacher"),
        ("{over: sft}", None),
        ("{over: sft, margin: 0.25}", "minus sft is +0.250"),
        ("{arm: sft, over: kd}", "minus kd is -0.250"),
        ("{gap: 0.5}", None),
        (
            "{gap: 0.4}",
            "its groups are 0.500 apart, more than evaluate.gate.gap=0.4 (the teacher's: 0.000)",
        ),
    ],
)
def test_each_threshold(workshop: Path, setting: str, missed: str | None) -> None:
    """A gate that never fails, or always does: both sides of each threshold."""
    lines = missed_lines(workshop, setting)
    assert (not lines) if missed is None else (len(lines) == 1 and missed in lines[0])


@pytest.mark.parametrize("count", [1, 5])
def test_few_examples_are_never_certain(workshop: Path, count: int) -> None:
    """A gate with `certain` shipped on one right answer."""
    for setting in ("score: 0.1", "over: sft", "over: sft, margin: -1"):
        lines = missed_lines(workshop, f"{{{setting}, certain: true}}", "1" * count, "0" * count)
        assert any("too few held-out examples" in line for line in lines)
    assert missed_lines(workshop, "{over: sft}", "1" * count, "0" * count) == []


@pytest.mark.parametrize(
    ("better", "worse", "passes"), [(5, 0, False), (7, 1, False), (9, 1, True)]
)
def test_certain_agrees_with_p(workshop: Path, better: int, worse: int, passes: bool) -> None:
    """The gate shipped a difference that the report called not significant."""
    same = "1" * (40 - better - worse)
    kd, sft = "1" * better + "0" * worse + same, "0" * better + "1" * worse + same
    lines = missed_lines(workshop, "{over: sft, certain: true}", kd, sft)
    assert (not lines) == passes


def test_all_that_is_missed_is_named(workshop: Path) -> None:
    """Only the first missed threshold was printed."""
    assert (
        len(
            missed_lines(workshop, "{score: 0.9, retained: 0.95, over: sft, margin: 0.3, gap: 0.1}")
        )
        == 4
    )


def test_a_gate_on_nobody(workshop: Path) -> None:
    """A misspelt arm must not pass the gate, and was found only after training."""
    with pytest.raises(PipelineError, match="there is no arm 'kdd'; there are kd, sft"):
        load(workshop / "config.yaml", ["evaluate.gate={arm: kdd, score: 0.1}"])
    for setting in ("{over: sftt}", "{arm: sft, over: sft-0}"):
        with pytest.raises(PipelineError, match=r"there is no model 'sft.*teacher, base, kd, sft"):
            load(workshop / "config.yaml", [f"evaluate.gate={setting}"])


@pytest.mark.parametrize("setting", ["{over: kd}", "{arm: sft, over: sft, margin: -1}"])
def test_no_arm_is_compared_with_itself(workshop: Path, setting: str) -> None:
    """A gate that no student can pass, or that each passes, was found only after training."""
    with pytest.raises(PipelineError, match="nothing is better than itself"):
        load(workshop / "config.yaml", [f"evaluate.gate={setting}"])


def test_a_model_without_answers_cannot_be_gated(workshop: Path) -> None:
    """Results of a run with fewer arms must not pass the gate."""
    config = load(workshop / "config.yaml", ["evaluate.gate={over: base}"])
    measured = {name: (answers("11"), COST) for name in ("teacher", "kd", "sft")}
    with pytest.raises(PipelineError, match="there is no model 'base'; there are teacher, kd, sft"):
        gate.failed(config, results(config, measured))


def test_figures_beside_the_score(workshop: Path) -> None:
    """Agreement must count wrong answers too, macro-F1 every label, a group its own examples."""
    config = load(workshop / "config.yaml")
    measured = {
        "teacher": (answers("10"), COST),
        "kd": (answers("00"), COST),
        "sft": (answers("11"), COST),
    }
    models = results(config, measured).models
    assert (models["kd"].agreement, models["sft"].agreement) == (0.5, 0.5)
    assert models["sft"].macro_f1 == 0.5, "nobody said or meant no"
    assert models["kd"].macro_f1 == 0.0
    assert models["teacher"].macro_f1 == pytest.approx(2 / 3 / 2)
    groups = models["teacher"].groups
    assert {name: group.mean for name, group in groups.items()} == {"a": 1.0, "b": 0.0}
    assert models["teacher"].gap == 1.0
