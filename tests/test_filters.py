"""One case a reason, and a sample that each filter keeps."""

from collections.abc import Callable
from typing import Any

import pytest

from pipeline.config import Filter, Task
from pipeline.filters import active, correctness, duplicates, form
from pipeline.filters.verdict import Verdict
from pipeline.prompts import FrontMatter, Prompt
from pipeline.records import Sample, Seed, Usage

Make = Callable[..., Sample]
LABELS = ["yes", "no"]


def tokens(number: int) -> Usage:
    return Usage(prompt_tokens=1, completion_tokens=number)


@pytest.mark.parametrize(
    ("changes", "verdict"),
    [
        ({}, None),
        ({"finish_reason": "length"}, Verdict("cut_at_length", "length")),
        ({"finish_reason": "abort"}, Verdict("not_finished", "abort")),
    ],
)
def test_finished(sample: Make, changes: dict[str, Any], verdict: Verdict | None) -> None:
    """A reply that was cut off teaches the student to stop in mid-sentence."""
    assert form.finished([sample(**changes)]) == [verdict]


@pytest.mark.parametrize(("number", "verdict"), [(5, None), (1, Verdict("too_short", 1)), (99, Verdict("too_long", 99))])
def test_length(sample: Make, number: int, verdict: Verdict | None) -> None:
    """Bounds are in completion tokens, both ends inclusive."""
    assert form.length([sample(usage=tokens(number))], 2, 50) == [verdict]
    assert form.length([sample(usage=tokens(2)), sample(usage=tokens(50))], 2, 50) == [None, None]


@pytest.mark.parametrize("text", ["I'm sorry, but I can't help with that.", "As an AI, I have no opinion.", "I cannot assist with this."])
def test_refusal_is_found(sample: Make, text: str) -> None:
    """Refusals would be learnt as answers."""
    (verdict,) = form.refusal([sample(text=text, answer=None)])
    assert verdict is not None
    assert verdict.reason == "refused"


@pytest.mark.parametrize("text", ["Sorry for the delay, the answer is 4.", "The model said: I'm sorry.", "I can see three cats."])
def test_plain_words_are_no_refusal(sample: Make, text: str) -> None:
    """A filter that is too keen eats good rows."""
    assert form.refusal([sample(text=text, answer="4")]) == [None]


@pytest.mark.parametrize(
    ("changes", "metric", "reason"),
    [
        ({}, "label", None),
        ({"answer": None}, "label", "no_answer"),
        ({"answer": "maybe"}, "label", "not_a_label"),
        ({"answer": "many"}, "numeric", "not_a_number"),
        ({"rationale": None}, "label", "no_rationale"),
    ],
)
def test_parseable(sample: Make, changes: dict[str, Any], metric: str, reason: str | None) -> None:
    """What the prompt asked for must be there to be trained on."""
    (verdict,) = form.parseable([sample(**changes)], [True], metric, LABELS)
    assert (verdict.reason if verdict else None) == reason


def test_correct(sample: Make) -> None:
    """Right, wrong, unreadable, and a seed without ground truth."""
    unknown = Seed(id="x", inputs={"number": 1})
    samples = [sample(), sample(answer="no"), sample(answer=None), sample(answer="no", seed=unknown)]
    reasons = [verdict.reason if verdict else None for verdict in correctness.correct(samples, "label", LABELS)]
    assert reasons == [None, "wrong_answer", "wrong_answer", None]


def test_duplicate(sample: Make) -> None:
    """The first of equal pairs stays; the same reply to another input is no duplicate."""
    samples = [sample(0), sample(0, id="again", text=" Yes,  it is EVEN\n"), sample(1)]
    assert duplicates.duplicate(samples) == [None, Verdict("same_as", "s0"), None]


def test_the_config_turns_filters_on_and_off(sample: Make) -> None:
    """A filter that is off must not run; the order is the documented one."""
    task = Task.model_validate({"seeds": "a.jsonl", "eval_seeds": "b.jsonl", "metric": "label", "labels": LABELS})
    prompt = Prompt("p", FrontMatter(), None)  # type: ignore[arg-type]
    assert [f.name for f in active(Filter(), task, [prompt])] == ["finished", "length", "refusal", "parseable", "correct", "duplicate"]
    off = Filter(finished=False, min_tokens=0, parseable=False, refusal=False, correct=False, duplicate=False)
    assert active(off, task, [prompt]) == []
    (only,) = active(off.model_copy(update={"max_tokens": 3}), task, [prompt])
    assert [v.reason if v else None for v in only.apply([sample(usage=tokens(4))])] == ["too_long"]
