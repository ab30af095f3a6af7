"""Text similarity, JSON fields, calibration, and metrics in addition to the task's own."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from pipeline.config import Config, load
from pipeline.errors import PipelineError
from pipeline.evaluation.calibration import calibration
from pipeline.evaluation.metrics import further, shared_fields
from pipeline.records import Score, Scored, Usage
from pipeline.verifiers.scorers import chrf, rouge_l
from pipeline.verifiers.verify import load_check, score


def scored(
    answer: str | None, target: str, value: float = 0.0, confidence: float | None = None
) -> Scored:
    return Scored(
        id="i",
        seed_id="s",
        target=target,
        model="m",
        text="",
        finish_reason="stop",
        usage=Usage(prompt_tokens=1, completion_tokens=1),
        score=Score(value=value, answer=answer, explanation=""),
        confidence=confidence,
    )


@pytest.mark.parametrize(
    ("answer", "value"),
    [
        ("The cat sat on the mat.", 1.0),
        ("the cat lay on the mat", 5 / 6),
        ("mat the on sat cat the", 3 / 6),
        ("dogs bark", 0.0),
        ("?!", 0.0),
        ("", 0.0),
        (None, 0.0),
    ],
)
def test_rouge_l(answer: str | None, value: float) -> None:
    """Words in order must count; case and punctuation must not."""
    assert rouge_l(answer, "the cat sat on the mat").value == pytest.approx(value)


def test_rouge_l_knows_other_letters() -> None:
    """The library's own tokenizer knows only a to z, so every other text would score 0."""
    assert rouge_l("Größe ändern", "größe ändern").value == 1.0
    assert rouge_l("Größe lassen", "Größe ändern").value == 0.5


@pytest.mark.parametrize(
    ("answer", "low", "high"),
    [
        ("see you at nine", 1.0, 1.0),
        ("see you at ten", 0.5, 0.95),
        ("zzz", 0.0, 0.0),
        ("\u200b", 0.0, 0.0),
        ("", 0.0, 0.0),
        (None, 0.0, 0.0),
    ],
)
def test_chrf(answer: str | None, low: float, high: float) -> None:
    """The score must be a share of 1, not of 100, and 0 for unreadable or empty text."""
    assert low - 1e-9 <= chrf(answer, "see you at nine").value <= high + 1e-9


def test_overlap_is_of_the_answer_to_the_target() -> None:
    """chrF counts recall double, so with its arguments swapped it would favour short texts."""
    whole, half = "see you at nine in the old harbour", "see you at nine"
    assert chrf(whole, half).value > chrf(half, whole).value


def test_a_task_can_be_scored_by_overlap(workshop: Path) -> None:
    """A metric that the config accepts and the verifier does not know."""
    config = load(workshop / "config.yaml", ["task.metric=chrf", "task.labels=null"])
    found = score(load_check(config.task), "yes", "yes")
    assert (round(found.value, 6), found.answer, found.explanation) == (1.0, "yes", "chrf 1.000")


@pytest.mark.parametrize(
    ("answer", "parts"),
    [
        ('{"a": 1.0, "b": ["y", "x"]}', (6, 6)),
        ('{"a": 2, "b": ["x"]}', (2, 5)),
        ('{"a": true, "c": 1, "b": ["x", "x"]}', (2, 7)),
        ("{}", (0, 4)),
        ('```json\n{"a": 1}\n```', (2, 4)),
        ("[1e99999999999]", (0, 4)),
        ("{a: 1}", (0, 3)),
        ("[" * 90_000, (0, 3)),
        ("", (0, 3)),
        (None, (0, 3)),
    ],
)
def test_fields_that_are_shared(answer: str | None, parts: tuple[int, int]) -> None:
    """Order must not count, true must not equal 1, and unreadable text must have no fields."""
    assert shared_fields(answer, '{"a": 1, "b": ["x", "y"]}') == parts


def of_json(workshop: Path, answers: Sequence[Scored], *settings: str) -> dict[str, float]:
    config: Config = load(
        workshop / "config.yaml", ["task.metric=json", "task.labels=null", *settings]
    )
    return {name: interval.mean for name, interval in further(config, answers).items()}


def test_json_answers_as_a_whole(workshop: Path) -> None:
    """F1 must be over the fields of all answers: 2 * 2 of (2 + 1 + 0) + (2 + 1 + 1)."""
    answers = [
        scored('{"a": 1, "b": 2}', '{"a": 1, "b": 2}'),
        scored('{"a": 9}', '{"a": 1}'),
        scored(None, '{"a": 1}'),
    ]
    found = of_json(workshop, answers)
    assert found == {"json_valid": pytest.approx(2 / 3), "json_field_f1": pytest.approx(4 / 7)}
    (workshop / "schema.json").write_text('{"properties": {"a": {"maximum": 5}}}')
    assert of_json(workshop, answers, f"task.verifier.json_schema={workshop / 'schema.json'}")[
        "json_valid"
    ] == pytest.approx(1 / 3)


def test_further_metrics_see_the_stored_answers(workshop: Path) -> None:
    """Metrics must need no new answers, and the task's own must not appear twice."""
    config = load(
        workshop / "config.yaml",
        ["task.metric=exact", "task.labels=null", "evaluate.also=[rouge_l, exact, numeric]"],
    )
    found = further(config, [scored("7 cats", "7 dogs"), scored(None, "7 dogs")])
    assert {name: interval.mean for name, interval in found.items()} == {
        "rouge_l": 0.25,
        "numeric": 0.5,
    }
    with pytest.raises(PipelineError, match=r"evaluate.also: under metric code"):
        load(
            workshop / "config.yaml",
            ["task.metric=code", "task.labels=null", "evaluate.also=[chrf]"],
        )


def test_calibration_by_hand() -> None:
    """Two answers too confident by 0.45, one too unsure by 0.25; 1 belongs to the last bin."""
    found = calibration(
        [scored("a", "a", 1.0, 1.0), scored("a", "b", 0.0, 0.9), scored("a", "a", 1.0, 0.75)],
        "exact",
    )
    assert found is not None
    assert found.ece == pytest.approx((2 * 0.45 + 1 * 0.25) / 3)
    assert found.brier == pytest.approx((0.0 + 0.81 + 0.0625) / 3)
    assert [(bin_.low, bin_.high, bin_.count, bin_.accuracy) for bin_ in found.bins] == [
        (0.7, 0.8, 1, 1.0),
        (0.9, 1.0, 2, 0.5),
    ]
    assert found.bins[1].confidence == pytest.approx(0.95)


def test_calibration_of_what_knows_no_probabilities() -> None:
    """An answer without a confidence must not count as one of confidence 0."""
    assert calibration([scored(None, "a"), scored("a", "a", 1.0)], "exact") is None
    assert calibration([scored("a", "a", 0.3, 0.5)], "chrf") is None
    some = calibration([scored(None, "a"), scored("a", "a", 1.0, 0.5)], "exact")
    assert some is not None
    assert (some.answers, some.ece) == (1, 0.5)
