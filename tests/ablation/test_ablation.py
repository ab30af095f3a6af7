"""pipeline ablate: which samples each arm gets, what is done only once, what results claim."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from click.testing import CliRunner

from pipeline.ablation import plan as ablation_plan
from pipeline.ablation import results, run
from pipeline.ablation.plan import Plan
from pipeline.ablation.results_model import AblationResults, Curve, TrainingSetScores
from pipeline.ablation.run import RunArm
from pipeline.cli.main import cli
from pipeline.config import Config, load
from pipeline.data.vocabulary import Vocabulary
from pipeline.errors import PipelineError
from pipeline.evaluation.bootstrap import Interval, bootstrap_sum
from pipeline.execution import runner
from pipeline.models.tokenizer import Tokenizer
from pipeline.models.weights import load_config
from pipeline.records import Rejected, Sample, Scored
from pipeline.stages import evaluate, generate, train
from pipeline.stages import filter as filter_stage
from pipeline.storage.samples import Samples, kept_rows
from pipeline.storage.shards import read_records, write_shards
from pipeline.students.source import saved_model
from pipeline.training.dataset import Rows, draw, is_held_out
from pipeline.training.dataset import load as load_rows
from tests.support.students import bpe, tiny


def filtered(workshop: Path, *overrides: str) -> Config:
    """Run generate and filter, which keeps about a third."""
    config = load(workshop / "config.yaml", overrides)
    for module in (generate, filter_stage):
        runner.execute(module, config)
    return config


def planned(
    workshop: Path,
    *overrides: str,
    arm: str | None = None,
    repeats: int = 2,
    shares: tuple[float, ...] = (0.5,),
) -> Plan:
    return ablation_plan.plan(workshop / "config.yaml", overrides, arm, repeats, shares)


def in_process(plan: Plan, log: list[str]) -> RunArm:
    """Run stages in this process, and append each call to `log`."""

    def run_arm(stage: str, arm: str) -> None:
        log.append(f"{stage} {arm}")
        if stage == "train":
            runner.execute(train, plan.config, ["init", arm])
        else:
            runner.execute(evaluate, plan.config, [arm])

    return run_arm


def stopping_before(last: str, run_arm: RunArm) -> RunArm:
    def until(stage: str, arm: str) -> None:
        if arm == last:
            raise PipelineError("not this one")
        run_arm(stage, arm)

    return until


def files(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def scores(folder: Path, arm: str) -> list[float]:
    return [answer.score.value for answer in read_records(folder / "evaluate" / arm, Scored)]


def kept_tokens(config: Config) -> set[int]:
    vocabulary = Vocabulary.read(saved_model(Path(config.run_dir) / "train" / "init")[0])
    assert vocabulary is not None
    return set(vocabulary.kept)


def arms(**settings: dict[str, Any]) -> str:
    return "train.arms=" + json.dumps(
        {name: {"method": "sft", **changes} for name, changes in settings.items()}
    )


def rows(config: Config, arm: str) -> Rows:
    """Return the training rows of an arm."""
    start, revision = saved_model(Path(config.run_dir) / "train" / "init")
    return load_rows(
        config,
        arm,
        Tokenizer(start, revision),
        load_config(start, revision).get_text_config().vocab_size,
    )


def learned(config: Config, arm: str) -> set[str]:
    return {example.id for example in rows(config, arm).train}


def test_figures_are_of_the_stored_answers_and_the_run_is_left_alone(
    workshop: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Figures of another set's answers, or an ablation that changes the user's own students."""
    config = filtered(workshop)
    run_dir = Path(config.run_dir)
    runner.execute(train, config, ["init", "sft"])
    before = files(run_dir)
    plan = planned(workshop, arm="sft")
    log: list[str] = []
    assert run.run(plan, in_process(plan, log))
    assert log[:4] == [
        "train curated-0",
        "evaluate curated-0",
        "train random-0",
        "evaluate random-0",
    ]
    assert "curated-0 done, 1 of 6; about 0:" in capsys.readouterr().out
    text = run.write(plan)
    found = AblationResults.read(plan.folder / "results.json")
    kept = len(kept_rows(run_dir / "filter" / "kept"))
    assert {group: trained.rows for group, trained in found.sets.items()} == {
        "curated": [kept, kept],
        "random": [kept, kept],
        "curated50": [round(kept / 2)] * 2,
    }
    means = {
        group: np.mean([scores(plan.folder, name) for name in names])
        for group, names in plan.groups.items()
    }
    assert found.curation.mean == pytest.approx(means["curated"] - means["random"])
    assert found.curve is not None
    assert found.curve.per_doubling.mean == pytest.approx(means["curated"] - means["curated50"])
    assert "curation is worth" in text
    assert "measure nothing" in text
    assert {
        path: at for path, at in files(run_dir).items() if plan.folder not in path.parents
    } == before
    assert not list(plan.folder.glob("train/*/checkpoints"))  # a dozen of them fill a disk


def test_only_what_is_missing_is_made(workshop: Path) -> None:
    """Another repeat must not train the finished ones again."""
    filtered(workshop)
    log: list[str] = []
    single = planned(workshop, arm="sft", repeats=1, shares=())
    assert run.run(single, in_process(single, log))
    assert not run.run(single, in_process(single, log))
    double = planned(workshop, arm="sft", repeats=2, shares=())
    assert run.run(double, in_process(double, log))
    assert log == [
        f"{name} {group}-{seed}"
        for seed in (0, 1)
        for group in ("curated", "random")
        for name in ("train", "evaluate")
    ]
    other = planned(workshop, "train.learning_rate=0.001", arm="sft", repeats=1, shares=())
    with pytest.raises(PipelineError, match=r"train.learning_rate: 0.0002 -> 0.001"):
        run.run(other, in_process(other, log))


def test_random_rows_are_of_all_samples_and_of_one_number(workshop: Path) -> None:
    """A random set of only kept samples, or a smaller one, is no control; each seed draws anew."""
    config = filtered(
        workshop, arms(kept={}, a={"selection": "random"}, b={"selection": "random", "seed": 1})
    )
    runner.execute(train, config, ["init"])
    kept, a, b = (learned(config, name) for name in ("kept", "a", "b"))
    assert len(a) == len(b) == len(kept)
    assert not a <= kept
    assert a != b
    assert a == learned(config, "a")


def test_random_rows_hold_no_held_out_text(workshop: Path) -> None:
    """A random set with the answers of the evaluation would make curation look harmful."""
    config = filtered(workshop, arms(random={"selection": "random", "limit": 20}))
    runner.execute(train, config, ["init"])
    drawn = learned(config, "random")
    leaked = [
        Rejected(id=sample.id, row=row, filter="any", reason="holds_held_out", value="…")
        for row, sample in enumerate(Samples(workshop / "run" / "generate"))
        if sample.id in sorted(drawn)[:5]
    ]
    write_shards(workshop / "run" / "filter" / "rejected", leaked)
    again = learned(config, "random")
    assert len(again) == len(drawn)
    assert drawn - again == {rejected.id for rejected in leaked}


def test_shares_lie_in_one_another(workshop: Path) -> None:
    """If each set of the curve were a new draw, every step would contain noise of the draw."""
    config = filtered(
        workshop,
        arms(
            kept={}, half={"share": 0.5}, quarter={"share": 0.25}, other={"share": 0.25, "seed": 1}
        ),
    )
    runner.execute(train, config, ["init"])
    kept, half, quarter, other = (
        learned(config, name) for name in ("kept", "half", "quarter", "other")
    )
    assert quarter < half < kept
    assert [len(half), len(quarter)] == [round(len(kept) / 2), round(len(kept) / 4)]
    assert other != quarter


def test_held_out_seeds_are_in_no_draw(workshop: Path) -> None:
    """The validation split must not be trained on, and must be equal in every arm."""
    config = filtered(
        workshop,
        "train.holdout=0.3",
        arms(kept={}, random={"selection": "random"}, half={"share": 0.5}),
    )
    runner.execute(train, config, ["init"])
    found = {name: rows(config, name) for name in ("kept", "random", "half")}
    held_out = [example.id for example in found["kept"].held_out]
    for arm in found.values():
        assert not any(is_held_out(example.id.rpartition("/")[0], 0.3) for example in arm.train)
        assert [example.id for example in arm.held_out] == held_out
    assert len(found["random"].train) == len(found["kept"].train)


def test_what_cannot_be_learned_from_gives_way(workshop: Path) -> None:
    """An unfiltered sample that has no answer, or is too long, stopped the training of the arm."""
    replies = [" yes, it is even\n", " no, it is odd\n", " well\n", f" yes, {'very ' * 60}\n"]
    tagged = (workshop / "prompt.md").read_text().replace('[",", "\\n"]', '","')
    (workshop / "prompt.md").write_text(tagged)
    random = {"selection": "random", "form": "answer"}
    options = [
        f"teacher.replies={json.dumps(replies)}",
        "filter.max_tokens=40",
        "train.max_length=90",
    ]
    config = filtered(
        workshop,
        *options,
        arms(kept={"form": "answer"}, random=random, long={"selection": "random"}),
    )
    runner.execute(train, config, ["init"])
    number = len(rows(config, "kept").train)
    for name in ("random", "long"):
        found = rows(config, name)
        assert (len(found.train), found.passed_over > 0) == (number, True)
        assert max(len(example.input_ids) for example in found.train) <= 90


def test_draw_goes_on_until_there_is_no_more(workshop: Path) -> None:
    """A draw that does not replace unusable samples would make a smaller set."""
    config = filtered(workshop)
    samples = Samples(Path(config.run_dir) / "generate")

    def is_first(sample: Sample) -> bool:
        return sample.index == 0

    assert draw(samples, range(60), 20, 0, is_first)[0] == sorted(
        draw(samples, range(0, 60, 2), 20, 0)[0]
    )
    numbers, passed_over = draw(samples, range(60), 50, 0, is_first)
    assert (len(numbers), passed_over) == (30, 30)


def test_vocabulary_is_trimmed_to_what_may_be_drawn(workshop: Path) -> None:
    """A vocabulary of the kept samples alone lacks tokens of others, so a random arm failed."""
    tokenizer = bpe(workshop / "whole")
    tiny("llama", vocab_size=tokenizer.vocab_size).save_pretrained(workshop / "whole")
    replies = [" yes, it is even\n", " no, it is odd\n", " the filter of a stage\n"]
    options = [
        f"teacher.replies={json.dumps(replies)}",
        f"student.model={workshop / 'whole'}",
        "student.trim_vocabulary=true",
    ]
    filtered(workshop, *options, arms(kept={}))
    found = []
    for arm in ({}, {"selection": "random"}):
        config = load(workshop / "config.yaml", [*options, arms(mine=arm)])
        runner.execute(train, config, ["init"], prepare=runner.archive)
        found.append(kept_tokens(config))
    written = set(tokenizer.encode_reply(replies[2]))
    assert not written <= found[0]
    assert written <= found[1]
    assert train.reads(config, "init") == ["generate"]


def test_killed_ablation_goes_on(workshop: Path, started: list[subprocess.Popen[str]]) -> None:
    """After kill -9, the first student must not be retrained, and the second must resume."""
    filtered(workshop)
    settings = ["train.epochs=60", "train.save_steps=5"]
    plan = planned(workshop, *settings, arm="sft", repeats=1, shares=())
    with pytest.raises(PipelineError, match="not this one"):
        run.run(plan, stopping_before("random-0", in_process(plan, [])))
    first = files(plan.folder / "train" / "curated-0")
    command = [
        sys.executable,
        "-m",
        "pipeline",
        "ablate",
        str(workshop / "config.yaml"),
        "--arm",
        "sft",
        "--repeats",
        "1",
        "--no-curve",
        *settings,
    ]
    started.append(
        subprocess.Popen(
            command,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )
    )
    while not list(plan.folder.glob("train/random-0/checkpoints/*/trainer_state.json")):
        assert started[-1].poll() is None
        time.sleep(0.01)
    killed = psutil.Process(started[-1].pid).children(recursive=True)
    os.killpg(started[-1].pid, signal.SIGKILL)
    started[-1].wait()
    # a process that frees much memory exists for a while after its end, and so does its lock
    psutil.wait_procs(killed)
    assert not (plan.folder / "results.json").exists()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "2 students of sft, 1 of them done" in done.stdout
    assert "continues from checkpoint-" in done.stdout
    assert "curation is worth" in done.stdout
    assert files(plan.folder / "train" / "curated-0") == first


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--arm", "absent"], "there is no arm 'absent'; there are kd, sft"),
        (
            ["train.arms={t: {method: sft, text: truth}}"],
            "learns from the ground truth, which no filter touches",
        ),
        (["train.arms={r: {selection: random}}"], "is itself drawn at random"),
        (["train.rows=score"], "score has logprobs of the kept samples alone; choose an sft arm"),
        (
            ["train.rows=score", "score.source=targets"],
            "which filter did not choose; set train.rows=filter",
        ),
        (["filter.max_tokens=9"], "filter.max_tokens: null -> 9"),
    ],
)
def test_what_cannot_be_ablated_is_refused(
    workshop: Path, options: list[str], expected: str
) -> None:
    """The figures would not measure the filter of this config."""
    filtered(workshop)
    done = CliRunner().invoke(cli, ["ablate", str(workshop / "config.yaml"), *options])
    assert isinstance(done.exception, PipelineError)
    assert expected in str(done.exception)
    assert not (workshop / "run" / "ablate").exists()


def test_unfinished_filter_is_refused(workshop: Path) -> None:
    """Without a finished filter it is unknown which samples are kept."""
    with pytest.raises(
        PipelineError,
        match="ablate needs generate, which is not finished; run pipeline generate first",
    ):
        planned(workshop)
    runner.execute(generate, load(workshop / "config.yaml"))
    with pytest.raises(
        PipelineError, match="ablate needs filter, which is not finished; run pipeline filter first"
    ):
        planned(workshop)


@pytest.mark.parametrize(
    "options",
    [["--share", "1"], ["--share", "0"], ["--repeats", "0"], ["--no-curve", "--share", "0.5"]],
)
def test_senseless_options_exit_2(workshop: Path, options: list[str]) -> None:
    """A share must be less than all kept samples, and --no-curve has no shares."""
    assert (
        CliRunner().invoke(cli, ["ablate", str(workshop / "config.yaml"), *options]).exit_code == 2
    )


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        (
            "train.arms.sft={method: sft, text: truth, share: 0.5}",
            "selection and share are for samples",
        ),
        (
            "train.arms.sft={method: sft, text: truth, selection: random}",
            "selection and share are for samples",
        ),
        ("train.arms.sft.share=0", "greater than 0"),
        (
            "train={rows: score, prompt: p.md, arms: {a: {selection: random}}}",
            "draws from all samples, and score has only some",
        ),
    ],
)
def test_arms_that_cannot_draw_are_refused(workshop: Path, override: str, expected: str) -> None:
    """A selection or share that would silently have no effect."""
    with pytest.raises(PipelineError, match=expected):
        load(workshop / "config.yaml", [override])


def test_all_sets_make_as_many_steps(workshop: Path) -> None:
    """Fewer samples with the same epochs are fewer steps, so the curve would measure those."""
    filtered(workshop)
    found = planned(
        workshop, "train.epochs=2", "train.arms.kd.alpha=0.5", shares=(0.25, 0.125)
    ).config.train.arms
    first = {name: arm for name, arm in found.items() if name.endswith("-0")}
    assert {name: (arm.share, arm.epochs) for name, arm in first.items()} == {
        "curated-0": (1.0, None),
        "random-0": (1.0, None),
        "curated25-0": (0.25, 8.0),
        "curated12_5-0": (0.125, 16.0),
    }
    assert {arm.alpha for arm in found.values()} == {0.5}


def test_second_ablation_at_once_is_refused_and_redo_sets_aside(workshop: Path) -> None:
    """Two commands must not write one folder, and --redo must not lose old results."""
    filtered(workshop)
    plan = planned(workshop)
    wait = "import sys, pathlib; from pipeline.storage.locks import Lock; "
    wait += "a = Lock(pathlib.Path(sys.argv[1])); print(a.take(), flush=True); input()"
    plan.folder.mkdir()
    (plan.folder / "results.json").write_text("{}")
    with subprocess.Popen(
        [sys.executable, "-c", wait, plan.folder / "lock"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "True\n"
        with pytest.raises(PipelineError, match=f"process {other.pid} .* is at work here"):
            run.run(plan, in_process(plan, []))
        other.communicate("\n")
    with pytest.raises(PipelineError, match="not this one"):
        run.run(plan, stopping_before("curated-0", in_process(plan, [])), redo=True)
    assert [path.name for path in (workshop / "run" / "replaced").glob("ablate-*/*")] == [
        "results.json"
    ]


def test_slope_is_that_of_least_squares() -> None:
    """The slope must be per doubling, whatever the shares are."""
    random = np.random.default_rng(0)
    runs = {
        share: random.normal(0.8 + 0.05 * np.log2(share), 0.1, (3, 200))
        for share in (0.1, 0.5, 1.0)
    }
    found = results.curve(runs)
    means = [runs[share].mean() for share in runs]
    slope = np.polyfit(np.log2(list(runs)), means, 1)[0]
    assert found.per_doubling.mean == pytest.approx(slope)
    assert found.per_doubling.low < 0.05 < found.per_doubling.high
    assert found.last_step.mean == pytest.approx(means[2] - means[1])


def test_interval_of_a_sum_is_the_textbook_one() -> None:
    """All sides must share the resampled items, but not the repeats."""
    random = np.random.default_rng(0)
    items = random.normal(0, 3, 300)
    sides = [
        items + random.normal(0, 1, 300) + random.normal(0, 0.2, 40)[:, None] for _ in range(3)
    ]
    weights = [0.5, 0.5, -1.0]
    interval = bootstrap_sum(sides, weights)
    summed = sum(weight * side.mean(0) for weight, side in zip(weights, sides, strict=True))
    variance = np.var(summed) / 300 + sum(
        weight**2 * side.mean(1).var() / 40 for weight, side in zip(weights, sides, strict=True)
    )
    assert interval.high - interval.low == pytest.approx(2 * 1.96 * np.sqrt(variance), rel=0.05)


def claims(
    curation: Interval,
    slope: Interval,
    last: Interval,
    kept: int,
) -> str:
    """Return the text of an ablation with these results."""
    same = Interval(mean=0.5, low=0.5, high=0.5)
    figures = AblationResults(
        metric="label",
        held_out=9,
        arm="kd",
        repeats=1,
        samples=100,
        kept=kept,
        sets={"curated12_5": TrainingSetScores(arms=["a"], rows=[5], score=same, each=[0.5])},
        curation=curation,
        curve=Curve(shares=[1.0, 0.5, 0.25], per_doubling=slope, last_step=last),
    )
    return results.report(figures)


BELOW = Interval(mean=-0.02, low=-0.03, high=-0.01)
ROUND = Interval(mean=0.01, low=-0.02, high=0.04)
ABOVE = Interval(mean=0.02, low=0.01, high=0.03)


@pytest.mark.parametrize(
    ("curation", "slope", "last", "kept", "expected"),
    [
        (
            ABOVE,
            ABOVE,
            ABOVE,
            40,
            [
                "size: significant (95 %)\n",
                "filter kept 40 of 100 samples (40.0%)",
                "likely, if the curve continues",
            ],
        ),
        (
            ROUND,
            ABOVE,
            ROUND,
            95,
            [
                "size: no significant difference, the interval holds 0\n",
                "not significant, though it has helped so far",
                "from 0.5 of the samples",
            ],
        ),
        (
            BELOW,
            ROUND,
            ROUND,
            96,
            [
                "significantly worse",
                "more than +0.040 for twice the data is outside it",
                "are nearly the same",
            ],
        ),
        (ABOVE, BELOW, BELOW, 40, ["no, fewer did better", "curated, 12.5 %"]),
    ],
)
def test_no_more_is_claimed_than_was_seen(
    curation: Interval, slope: Interval, last: Interval, kept: int, expected: list[str]
) -> None:
    """An interval around 0 shows no difference, and nearly equal sets cannot show one."""
    text = claims(curation, slope, last, kept)
    assert all(words in text for words in expected), text
    assert ("nearly the same" in text) == (kept > 95)
