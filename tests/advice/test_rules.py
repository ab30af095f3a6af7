"""The adviser's rules, and the files they read."""

from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.advice import facts, rules
from pipeline.advice.facts import Facts
from pipeline.advice.text import advise, lines
from pipeline.config import load
from pipeline.errors import PipelineError
from pipeline.evaluation.bootstrap import Interval
from pipeline.evaluation.results_model import Difference
from pipeline.execution import runner
from pipeline.storage.files import read_json
from tests.support.task import ROOT


def known(**changes: object) -> Facts:
    """Return the facts of a healthy run, with changes."""
    config = load(str(ROOT / "configs" / "tiny.yaml"))
    healthy = Facts(config, rows=2000, surprise=0.2, reply_tokens=10, steps={"kd": 120, "sft": 120})
    return replace(healthy, **changes)  # type: ignore[arg-type]


def kinds(given: Facts) -> list[str]:
    return [advice.kind for advice in rules.before(given)]


def interval(mean: float) -> Interval:
    return Interval(mean=mean, low=mean - 0.02, high=mean + 0.02)


def test_a_healthy_run_needs_no_advice() -> None:
    """Advice on every run would be read by nobody."""
    assert kinds(known()) == []


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({"cut": 0.73}, "deep_cut"),
        ({"accuracy": interval(0.44)}, "weak_teacher"),
        ({"bias": 0.27}, "biased_prompt"),
        ({"surprise": 0.015}, "sft_enough"),
        ({"surprise": 1.4}, "kd_closer"),
        ({"surprise": None}, "no_logprobs"),
        ({"rows": 120}, "few_rows"),
        ({"labels": {"spam": 4, "normal": 900}}, "rare_labels"),
        ({"steps": {"kd": 30}}, "few_steps"),
        ({"reply_tokens": 400.0}, "long_replies"),
    ],
)
def test_each_rule_speaks_where_it_should(changes: dict[str, object], kind: str) -> None:
    """A rule that stays silent leaves the user with two students that learned nothing."""
    assert kinds(known(**changes)) == [kind]


def test_a_healed_cut_is_not_warned_of() -> None:
    """Healing is the remedy that the warning names."""
    assert kinds(known(cut=0.5, healed=True)) == []


def test_predictions_follow_from_the_facts() -> None:
    """The benchmark counts them, so each kind of run must have its own."""
    assert rules.predict(known()) == rules.Prediction(True, "equal")
    assert not rules.predict(known(cut=0.73)).reaches_teacher
    assert not rules.predict(known(rows=100)).reaches_teacher
    soft = load(
        str(ROOT / "configs" / "tiny.yaml"),
        ["train.arms.kd.soft_labels=true", "filter.calibrated={}"],
    )
    assert rules.predict(known(config=soft, bias=0.3)).kd_against_sft == "better"


def test_less_divergence_counts_as_better() -> None:
    """kd - sft of a divergence is negative where KD wins."""
    nearer = Difference(mean=-0.2, low=-0.3, high=-0.1, p=0.001)
    scores = Difference(mean=0.0, low=-0.1, high=0.1, p=0.9)
    assert rules.outcome(scores) == "equal"
    assert rules.outcome(scores.model_copy(update={"kl": nearer})) == "better"
    assert rules.outcome(nearer) == "worse"


def test_advice_needs_a_finished_filter(tmp_path: Path) -> None:
    """The message says which command is missing."""
    with pytest.raises(PipelineError, match="run pipeline filter first"):
        facts.read(tmp_path)


def test_advice_on_a_filtered_run(workshop: Path) -> None:
    """The prediction is on disk before training, so that it can be checked afterwards."""
    from pipeline.stages import filter as filter_stage
    from pipeline.stages import generate

    config = load(str(workshop / "config.yaml"))
    runner.execute(generate, config)
    runner.execute(filter_stage, config)
    advised = advise(workshop / "run")
    text = "\n".join(lines(advised))
    assert "expected: the best student" in text
    assert "nats/token" in text
    stored = read_json(workshop / "run" / "advice.json")
    assert stored["prediction"] == vars(advised.prediction)
    assert [advice["kind"] for advice in stored["before"]] == [a.kind for a in advised.before]
