"""Memorisation: how rows, their control and canaries are chosen and counted."""

import math
from pathlib import Path

import pytest

from pipeline.config import Config, load
from pipeline.data.encoding import IGNORED
from pipeline.errors import PipelineError
from pipeline.evaluation import optional_figures
from pipeline.evaluation.results_model import Memorisation
from pipeline.execution import runner
from pipeline.models.fake import TOKENIZER
from pipeline.models.tokenizer import Tokenizer
from pipeline.records import Memorised
from pipeline.stages import evaluate, generate, memorisation, train
from pipeline.stages import filter as filter_stage
from pipeline.stages.memorisation import same
from pipeline.storage.files import read_json
from pipeline.storage.shards import read_records
from pipeline.training import canaries
from tests.support.task import write_seeds

ARM = "train.arms={sft: {method: sft}}"
ASKED = "evaluate.memorisation={rows: 20, prefix: 0.0, tokens: 4}"


def run(workshop: Path, *overrides: str) -> Config:
    write_seeds(workshop / "eval.jsonl", range(100, 120))
    config = load(workshop / "config.yaml", [ARM, ASKED, "evaluate.load=null", *overrides])
    for module in (generate, filter_stage, train, evaluate, memorisation):
        runner.execute(module, config)
    return config


def figures(config: Config, part: str = "sft") -> Memorisation:
    found = optional_figures.memorisation(config, part)
    assert found is not None
    return found


def test_only_what_comes_back_from_the_beginning_counts() -> None:
    """Common words further on do not count as memory of the row."""
    assert same([1, 2, 3, 4], [1, 2, 9, 4]) == 2
    assert same([1, 2], [1, 2, 3]) == 2
    assert same([1, 2], []) == 0


def test_rows_that_were_held_out_are_the_control(workshop: Path) -> None:
    """Predictable text comes back just as well from rows that nobody was trained on."""
    config = run(workshop, "train.holdout=0.4")
    rows = list(read_records(workshop / "run" / "memorisation" / "sft", Memorised))
    seen, unseen = (
        {row.row.partition("/")[0] for row in rows if row.trained is of} for of in (True, False)
    )
    assert len(seen) >= 10
    assert len(unseen) >= 10
    assert not seen & unseen
    found = figures(config)
    assert found.trained.rows + found.unseen.rows == len(rows)
    assert found.trained.verbatim is not None
    assert found.unseen.verbatim is not None
    assert found.difference == pytest.approx(found.trained.verbatim - found.unseen.verbatim)
    assert 0 < found.unseen.verbatim < 1
    evaluate.finish(config)
    assert "training rows come back word for word (4 tokens or more)" in evaluate.summary(config)


def test_without_held_out_rows_the_teachers_answers_are_the_control(workshop: Path) -> None:
    """By default every kept row is trained on, and rejected rows are no fair control."""
    config = run(workshop)
    rows = list(read_records(workshop / "run" / "memorisation" / "base", Memorised))
    answers = {row.row for row in rows if not row.trained}
    assert len(answers) == 20
    assert not any("/" in answer for answer in answers), "samples have a slash in their ids"
    assert figures(config, "base").canaries == []


def test_short_replies_are_no_text_to_memorise(workshop: Path) -> None:
    """Any good student repeats a label: a share of those would look like memory."""
    with pytest.raises(
        PipelineError,
        match=r"memorisation base: only 0 training rows have 99 tokens left .* "
        r"lower evaluate\.memorisation",
    ):
        run(workshop, "evaluate.memorisation.tokens=99")


def test_canaries_are_planted_and_ranked(workshop: Path) -> None:
    """Every arm trains on the same canaries; base is asked about them too, as a control."""
    config = run(workshop, "train.canaries=3", "evaluate.memorisation.rows=0")
    plain = run(workshop, f"run_dir={workshop / 'plain'}", ASKED)
    rows = [
        read_json(Path(one.run_dir) / "train" / "sft" / "manifest.json")["counts"]["rows"]
        for one in (config, plain)
    ]
    assert rows[0] == rows[1] + 3
    for part in ("base", "sft"):
        found = figures(config, part)
        assert [canary.text for canary in found.canaries] == [
            canary.text for canary in canaries.generate(3, 0)
        ]
        assert all(0 <= canary.exposure <= 8 for canary in found.canaries)
        assert found.difference is None
    evaluate.finish(config)
    assert "sft: exposure of 3 canaries" in evaluate.summary(config)


def test_kd_arms_take_canaries_without_a_teacher(workshop: Path) -> None:
    """Canaries have no frames, and the rows of a kd arm are checked for frames."""
    run(workshop, "train.arms={kd: {}}", "train.canaries=2", "evaluate.memorisation.rows=0")


def test_other_canaries_are_another_training(workshop: Path) -> None:
    """A student that never saw the new canaries would be asked about them."""
    run(workshop, "train.canaries=3", "evaluate.memorisation.rows=0")
    with pytest.raises(PipelineError, match=r"train.canaries: 3 -> 4"):
        run(workshop, "train.canaries=4", "evaluate.memorisation.rows=0")


def test_the_loss_is_on_the_secret_alone() -> None:
    """Loss is on the secret alone; lead and secret are tokenised as in the later request."""
    tokenizer = Tokenizer(str(TOKENIZER))
    (row,) = canaries.rows(tokenizer, 1, seed=5)
    lead, secret = canaries.generate(1, 5)[0].encode(tokenizer)
    assert row.input_ids == lead + secret
    assert row.labels == [IGNORED] * len(lead) + secret
    assert canaries.generate(2, 5)[0] == canaries.generate(1, 5)[0] != canaries.generate(1, 6)[0]


def test_alternatives_share_the_lead_and_nothing_else() -> None:
    """A secret among its own alternatives could never be the most likely."""
    canary = canaries.generate(1, 0)[0]
    others = canaries.alternatives(canary, 50, seed=0)
    assert {other.lead for other in others} == {canary.lead}
    assert len({other.secret for other in others} | {canary.secret}) == 51


def test_exposure_is_the_papers() -> None:
    """Exposure is log2 of the 8 candidates minus log2 of the rank."""
    assert canaries.exposure(-1.0, [-2.0] * 7) == 3.0
    assert canaries.exposure(-9.0, [-2.0] * 7) == 0.0
    assert canaries.exposure(-3.0, [-2.0, *[-4.0] * 6]) == 2.0
    assert canaries.exposure(-2.0, [-2.0]) == pytest.approx(1 - math.log2(1.5)), (
        "half of what is as likely stands before it"
    )


def test_nothing_to_look_for(workshop: Path) -> None:
    """rows=0 means canaries alone; without canaries it would silently measure nothing."""
    with pytest.raises(PipelineError, match="leaves only the canaries, and there are none"):
        load(workshop / "config.yaml", ["evaluate.memorisation={rows: 0}"])
