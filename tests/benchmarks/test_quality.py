"""The table of `make bench-quality`; tests/end_to_end runs it on real models."""

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import quality_runs, quality_table
from benchmarks.quality_runs import TASKS, Bench, repeated
from benchmarks.quality_table import Outcome
from pipeline.config import Arm, load
from tests.support.task import ROOT


def test_every_arm_is_repeated_with_a_seed_of_its_own() -> None:
    """Repeats with one random seed would be one run three times."""
    arms = {"kd": Arm(alpha=0.3), "sft": Arm(method="sft")}
    assert list(repeated(arms, 2)) == ["kd-0", "sft-0", "kd-1", "sft-1"]
    assert repeated(arms, 2)["kd-1"] == Arm(alpha=0.3, seed=1)
    assert repeated(arms, 1) == arms


def test_unknown_arms_are_refused() -> None:
    """A misspelled --arms must not run the others for an hour."""
    with pytest.raises(SystemExit, match="the config has"):
        quality_runs._arms(Bench(Path("x"), arms=["dk"]), "orders", [])


@pytest.mark.parametrize("task", TASKS)
def test_shipped_recipes_change_only_data_and_prompt(task: str) -> None:
    """A config with settings of its own would not measure the defaults."""
    config = load(ROOT / "configs" / f"{TASKS[task].config or task}.yaml")
    changed = set(config.train.model_dump(exclude_defaults=True))
    if task != "sms_spam":
        assert changed == {"prompt"}
        assert (config.student.layers, config.student.keep_layers) == (None, None)


def test_the_unhealed_student_gets_the_time_of_the_healing(tmp_path: Path) -> None:
    """A healed student that was trained for longer would win by its time alone."""
    for part, seconds in (("init", 300.0), ("kd-0", 100.0), ("kd-1", 200.0)):
        path = tmp_path / "train" / part / "manifest.json"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps({"seconds": seconds, "counts": {"epochs": 2.0}}))
    config = load(ROOT / "configs/orders.yaml")
    (arm,) = quality_runs._longer(tmp_path, config, {"kd": Arm()}).values()
    assert arm.epochs == 6.0  # 150 s of training by 2 epochs, and 300 s of healing


def test_a_figure_of_free_text_is_its_divergence() -> None:
    """A score without a right answer must not decide whether a student reached its teacher."""
    assert Outcome("kd", short=None, kl=0.14, methods=None).reached
    assert not Outcome("kd", short=None, kl=0.16, methods=None).reached
    assert Outcome("kd", short=-0.03, kl=None, methods=None).reached
    assert not Outcome("kd", short=-0.031, kl=None, methods=None).reached


def results(tmp_path: Path, task: str, scores: dict[str, float], kd_minus_sft: float) -> Path:
    """Write a run's results, its advice and the manifests of its arms."""
    folder = tmp_path / task

    def interval(mean: float) -> dict[str, float]:
        return {"mean": mean, "low": mean - 0.01, "high": mean + 0.01}

    methods = {"kd": "kd", "sft": "sft"}
    models = {
        name: {"score": interval(score), "method": methods.get(name)}
        for name, score in scores.items()
    }
    written: dict[str, Any] = {"metric": "label", "held_out": 100, "models": models}
    written["differences"] = {"kd - sft": {**interval(kd_minus_sft), "p": 0.01}}
    prediction = {"reaches_teacher": True, "kd_against_sft": "equal"}
    files = {
        "evaluate/results.json": written,
        "advice.json": {"prediction": prediction},
        "train/kd/manifest.json": {"seconds": 60, "counts": {"rows": 90, "steps": 6}},
        "train/sft/manifest.json": {"seconds": 60, "counts": {"rows": 90, "steps": 6}},
    }
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content))
    return folder


def test_bars_of_the_main_part(tmp_path: Path) -> None:
    """A bar that is met whatever the figures say."""
    near = {"teacher": 0.90, "base": 0.1, "kd": 0.80, "sft": 0.88}
    far = {"teacher": 0.90, "base": 0.1, "kd": 0.80, "sft": 0.82}
    runs = {
        "near": results(tmp_path, "near", near, kd_minus_sft=-0.08),
        "far": results(tmp_path, "far", far, kd_minus_sft=0.0),
    }
    rows = {row.what: row for row in quality_table.main_rows(runs)}
    assert rows["near: best student against its teacher"].figure == "sft: -0.020"
    found = {row.what: (row.bar, row.figure, row.met) for row in rows.values() if row.bar}
    assert list(found.values()) == [
        (">= 2", "1 of 2", False),
        (">= 1", "0 of 2", False),
        ("0", "1", False),
        ("2", "0 of 2", False),
        ("equal", "90 rows, 6 steps", True),
        ("equal", "90 rows, 6 steps", True),
    ]


def test_seven_tasks_have_the_bars_of_the_goal() -> None:
    """Six of seven near the teacher, three of seven better by KD."""
    shares = (quality_table.REACHED, quality_table.BETTER)
    assert [quality_table._share(share, range(7)) for share in shares] == [6, 3]
    assert [quality_table._share(share, range(1)) for share in shares] == [1, 1]


def test_runs_are_compared_by_the_examples_that_both_have(tmp_path: Path) -> None:
    """Two runs list their held-out examples in their own order."""
    first = [{"a": 1.0, "b": 0.0, "c": 1.0}, {"a": 1.0, "b": 0.0, "c": 0.0}]
    one, other = quality_table.paired(first, [{"c": 0.0, "a": 0.5}])
    assert one.tolist() == [[1.0, 1.0], [1.0, 0.0]]
    assert other.tolist() == [[0.5, 0.0]]
    empty, _ = quality_table.paired([], [])
    assert empty.size == 0


def test_the_curve_says_up_to_where_kd_pays(tmp_path: Path) -> None:
    """Limits whose names end alike (100 and 1,000) must not be mixed up."""
    run_dir = results(tmp_path, "curve", {"teacher": 0.9}, 0.0)
    path = run_dir / "evaluate/results.json"
    content = json.loads(path.read_text())
    for limit, difference in ((100, 0.05), (300, 0.02), (1000, 0.0)):
        interval = {"mean": difference, "low": difference - 0.01, "high": difference + 0.01}
        for method in ("kd", "sft"):
            content["models"][f"{method}-{limit}"] = {"score": interval, "method": method}
        content["differences"][f"kd-{limit} - sft-{limit}"] = interval
        content["differences"][f"kd-{limit} - sft-100"] = interval
    path.write_text(json.dumps(content))
    rows = list(quality_table.curve_rows({"curve": run_dir}))
    assert [row.what for row in rows[:3]] == [f"curve, {n} rows" for n in ("100", "300", "1,000")]
    assert rows[3].figure == "up to 300 rows"
