"""The filters that a config turns on: their order, and the settings that each one reads."""

import re
from pathlib import Path

import pytest

from pipeline.config import Config, load
from pipeline.errors import PipelineError
from pipeline.execution import manifest, runner
from pipeline.filters import build
from pipeline.filters.confidence.logprobs import CERTAINTY
from pipeline.filters.measure_cache import columns_of_run
from pipeline.records import Rejected
from pipeline.stages import filter as filter_stage
from pipeline.stages import generate, score
from pipeline.storage.shards import read_records
from tests.support.task import ROOT

ALL = [
    "filter.boilerplate=true",
    "filter.format={pattern: 'yes|no', choices: ['yes', 'no']}",
    "filter.language={}",
    "filter.answer_before_rationale=true",
    "filter.leak={}",
    "filter.consistent=true",
    "filter.confidence={min_mean_logprob: -9}",
    "filter.calibrated={}",
    "filter.agreement={}",
    "filter.prompts_agree={}",
    "filter.teachers_agree={run: RUN}",
    "filter.pii={}",
    "filter.near={}",
    "filter.semantic={model: FOLDER}",
    "filter.judge={}",
    "filter.difficulty={lowest: 0.1}",
    "filter.balance={factor: 9}",
    "filter.diversity={number: 50, model: FOLDER}",
    "filter.budget={number: 50, per_seed: 2}",
]
PLAIN = [
    "correct",
    "parseable",
    "repetition",
    "contamination",
    "duplicate",
]  # what is on by default and turns some of the fake's replies down


@pytest.fixture
def generated(workshop: Path) -> Path:
    runner.execute(generate, load(workshop / "config.yaml"))
    return workshop


def reasons(config: Config) -> list[str]:
    runner.execute(filter_stage, config, prepare=runner.archive)
    rejections = read_records(Path(config.run_dir) / "filter" / "rejected", Rejected)
    return sorted({f"{rejected.filter}.{rejected.reason}" for rejected in rejections})


def only(workshop: Path, *overrides: str) -> list[str]:
    """Return the reasons of a run with no other filters than these."""
    off = [
        f"filter.{name}={'null' if name in ('repetition', 'contamination') else 'false'}"
        for name in PLAIN
    ]
    return reasons(load(workshop / "config.yaml", [*off, *overrides]))


def test_the_order_is_the_documented_one(generated: Path) -> None:
    """docs/reference/filters.md lists all filters, in the order in which they run."""
    (generated / "encoder").mkdir()
    (generated / "encoder" / "config.json").write_text("{}")
    folder = {"RUN": str(generated / "run"), "FOLDER": str(generated / "encoder")}
    overrides = [re.sub("RUN|FOLDER", lambda match: folder[match.group()], text) for text in ALL]
    overrides.append(f"generate.prompt=[{generated / 'prompt.md'}, {generated / 'prompt.md'}]")
    names = [filter_.name for filter_ in build.active(load(generated / "config.yaml", overrides))]
    rows = re.findall(
        r"^\| `(\w+)` \|", (ROOT / "docs" / "reference" / "filters.md").read_text(), re.MULTILINE
    )
    assert [name for name in rows if name != "custom"] == names


def test_every_reason_has_a_case() -> None:
    """A reason that no test produces may be one that no sample can get."""
    page = (ROOT / "docs" / "reference" / "filters.md").read_text()
    table = [
        row.split("|")[-2]
        for row in re.sub(r"\\\|", "", page).splitlines()
        if row.startswith("| `")
    ]
    reasons = {
        reason
        for cell in table
        for group in re.findall(r"((?:`\w+`,? ?)+):", cell)
        for reason in re.findall(r"`(\w+)`", group)
    }
    tests = "".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    assert len(reasons) > 40
    assert sorted(reason for reason in reasons if not re.search(rf"[\"'.]{reason}\b", tests)) == []


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["filter.format={pattern: 'no'}"], ["format.not_in_format"]),
        (["filter.format={choices: ['no']}"], ["format.not_listed"]),
        (["filter.confidence={min_mean_logprob: 50%}"], ["confidence.low_mean_logprob"]),
        (["filter.confidence={max_entropy: 25%}"], ["confidence.high_entropy"]),
        (
            ["filter.confidence={max_rationale_perplexity: 30%}"],
            ["confidence.high_rationale_perplexity"],
        ),
        (["filter.balance={number: 10}"], ["balance.over_balance"]),
        (["filter.balance={factor: 1, by: target, best_by: mean_logprob}"], []),
        (["filter.budget={per_seed: 1}"], ["seed_budget.over_seed_budget"]),
        (["filter.budget={number: 7, best_by: answer_margin}"], ["budget.over_budget"]),
        (["filter.agreement={min_vote_share: 1.0, majority: false}"], ["agreement.low_vote_share"]),
        (["filter.difficulty={lowest: 0.9}"], ["difficulty.too_hard"]),
        (["filter.near={of: [reply], best_by: votes}"], ["near.near_same_as"]),
        (["filter.leak={}", "filter.min_tokens=0"], []),
    ],
)
def test_a_setting_reaches_its_filter(
    generated: Path, overrides: list[str], expected: list[str]
) -> None:
    """A section that is read but not passed on is a dead option."""
    assert only(generated, *overrides) == expected


def test_the_worst_tenth_is_a_tenth(generated: Path) -> None:
    """A bound in per cent is a quantile from the worse end, for lower and upper bounds alike."""
    for bound in ("min_mean_logprob", "max_entropy"):
        only(generated, f"filter.confidence={{{bound}: 10%}}")
        counts = manifest.read_manifest(generated / "run", "filter")["counts"]
        assert 4 <= sum(counts["rejected"].values()) <= 6, f"of {counts['samples']}"


def test_another_runs_rows_count_as_earlier_ones(generated: Path) -> None:
    """Rows that a student was trained on are rejected as duplicates; the value names the run."""
    assert only(generated, "filter.duplicate=true") == ["duplicate.same_as"]
    (generated / "run").rename(generated / "before")
    runner.execute(generate, load(generated / "config.yaml", ["generate.seed=1"]))
    only(
        generated,
        f"filter.against=[{generated / 'before'}]",
        "filter.duplicate=true",
        "generate.seed=1",
    )
    rejected = read_records(generated / "run" / "filter" / "rejected", Rejected)
    assert any(str(sample.value).startswith("before:n") for sample in rejected)


def test_teachers_that_disagree(generated: Path) -> None:
    """The other teacher gives another answer; its samples are measured in its own folder."""
    (generated / "run").rename(generated / "other")
    runner.execute(generate, load(generated / "config.yaml", ["generate.seed=5"]))
    overrides = [f"filter.teachers_agree={{run: {generated / 'other'}}}", "generate.seed=5"]
    assert only(generated, *overrides) == ["teachers_agree.teachers_disagree"]


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        (
            "filter.confidence={min_mean_logprob: often}",
            "the share of the worst that is rejected, such as 10%",
        ),
        ("filter.confidence={max_entropy: 120%}", "such as 10%"),
        ("filter.format={}", "asks for nothing; set pattern, schema_file or choices"),
        ("filter.budget={}", "set number or per_seed"),
        ("filter.judge={least: 9}", "least must lie between lowest and highest"),
        ("filter.calibrated={shares: [1, 2], content_free: [N/A]}", "are two ways to calibrate"),
        ("filter.calibrated={shares: [1, 2, 3]}", "has 3 numbers for 2 labels"),
        ("filter.near={treshold: 0.9}", "did you mean filter.near.threshold?"),
    ],
)
def test_settings_without_effect_are_refused(generated: Path, override: str, expected: str) -> None:
    """A section that has no effect, or cannot work, is a mistake in the config."""
    with pytest.raises(PipelineError, match=re.escape(expected)):
        load(generated / "config.yaml", [override])


def test_difficulty_by_a_students_loss(generated: Path) -> None:
    """The loss is found in the other run by the sample's id.

    All samples are too hard below the least loss, none above the greatest.
    """
    student = [
        f"score.source={generated / 'run'}",
        f"run_dir={generated / 'student'}",
        "teacher.model=student",
    ]
    runner.execute(score, load(generated / "config.yaml", student))
    losses = -columns_of_run(
        generated / "student", "score", (CERTAINTY,), load(generated / "config.yaml").filter
    )[0][:, 0]
    middle = float(sorted(losses)[30])
    override = f"filter.difficulty={{losses: {generated / 'student'}, highest: {middle}}}"
    assert only(generated, override) == ["difficulty.too_hard"]
    assert manifest.read_manifest(generated / "run", "filter")["counts"]["rejected"][
        "difficulty.too_hard"
    ] == sum(losses > middle)
    assert only(generated, override.replace("highest", "lowest")) == ["difficulty.too_easy"]
