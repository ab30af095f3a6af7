"""Filters as a config turns them on, custom filters, and the cache of measures."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.config import Config, load
from pipeline.errors import PipelineError
from pipeline.execution import manifest, runner
from pipeline.filters import build, measures
from pipeline.filters.correctness import ground_truth
from pipeline.filters.heuristics import completeness, custom
from pipeline.filters.measure_cache import MeasureCache
from pipeline.filters.measures import SAMPLE_IDS, Batch, Measure, Ragged
from pipeline.filters.named_filter import NamedFilter
from pipeline.filters.verdict import Verdict
from pipeline.records import Sample, Seed, Usage
from pipeline.stages import filter as filter_stage
from pipeline.stages import generate
from tests.support.filters import batch, reasons
from tests.support.task import PROMPT, ROOT

Make = Callable[..., Sample]
LABELS = ["yes", "no"]


def tokens(number: int) -> Usage:
    return Usage(prompt_tokens=1, completion_tokens=number)


@pytest.mark.parametrize(
    ("changes", "rejection"),
    [
        ({}, None),
        ({"finish_reason": "length"}, ("cut_at_length", "length")),
        ({"finish_reason": "abort"}, ("not_finished", "abort")),
    ],
)
def test_finished(sample: Make, changes: dict[str, Any], rejection: tuple[str, str] | None) -> None:
    """A reply that was cut off teaches the student to stop in mid-sentence."""
    assert completeness.finished(batch(sample(**changes))) == [rejection]


def test_length(sample: Make) -> None:
    """Bounds are in completion tokens, both inclusive."""
    column = completeness.tokens(
        batch(*(sample(usage=tokens(number)) for number in (5, 1, 99, 2, 50)))
    )
    assert completeness.length(np.arange(5), column, 2, 50) == {
        1: Verdict("too_short", 1),
        2: Verdict("too_long", 99),
    }
    assert completeness.length(np.array([0, 2]), column, 2, None) == {}


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
    """What the prompt asks for must be there to be trained on."""
    assert reasons(completeness.parseable(batch(sample(**changes)), [True], metric, LABELS)) == [
        reason
    ]


def test_correct(sample: Make) -> None:
    """Right, wrong, unreadable, and a seed without ground truth."""
    unknown = Seed(id="x", inputs={"number": 1})
    samples = [
        sample(),
        sample(answer="no"),
        sample(answer=None),
        sample(answer="no", seed=unknown),
    ]
    column = ground_truth.check_answers(
        batch(*samples), verifier="label", labels=LABELS, schema=None, timeout_s=1.0, memory_mib=256
    )
    wrong = {
        1: Verdict("wrong_answer", "no (is yes)"),
        2: Verdict("wrong_answer", "None (no answer found)"),
    }
    assert ground_truth.reject_wrong(np.arange(4), column, 1.0, "drop") == wrong


def test_the_config_turns_filters_on_and_off(workshop: Path) -> None:
    """A filter that is off must not run."""
    runner.execute(generate, load(workshop / "config.yaml"))
    on = [
        "contamination",
        "finished",
        "length",
        "refusal",
        "boilerplate",
        "parseable",
        "repetition",
        "correct",
        "calibrated",
        "secrets",
        "duplicate",
    ]
    assert [filter_.name for filter_ in build.active(load(workshop / "config.yaml"))] == on
    off = [
        f"filter.{name}={'null' if name in ('contamination', 'repetition', 'secrets') else 'false'}"
        for name in on
        if name not in ("length", "calibrated")
    ]
    off += ["filter.min_tokens=0", "train.arms.kd.soft_labels=false"]
    assert build.active(load(workshop / "config.yaml", off)) == []


CUSTOM = """from pipeline.records import Sample

def odd_numbers(sample: Sample):
    number = sample.seed.inputs["number"]
    return ("is_odd", number) if number % 2 else None
"""


@pytest.fixture
def made(workshop: Path, monkeypatch: pytest.MonkeyPatch) -> Config:
    """Run generate, in the working directory of the command."""
    monkeypatch.chdir(workshop)
    config = load(workshop / "config.yaml")
    runner.execute(generate, config)
    return config


def test_a_custom_filter(workshop: Path, made: Config) -> None:
    """A custom function has its reason in the waterfall, and a change to it is noticed."""
    (workshop / "mine.py").write_text(CUSTOM)
    config = load(workshop / "config.yaml", ["filter.custom=[mine:odd_numbers]"])
    runner.execute(filter_stage, config)
    assert (
        manifest.read_manifest(workshop / "run", "filter")["counts"]["rejected"][
            "custom.odd_numbers.is_odd"
        ]
        == 30
    )
    (workshop / "mine.py").write_text(CUSTOM + "\n")
    with pytest.raises(PipelineError, match=r"file .*mine\.py"):
        runner.execute(filter_stage, config)


def test_a_change_in_an_import_of_a_custom_filter_is_noticed(
    workshop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A change in an imported file was not noticed, and old verdicts were used.

    A list of words has no __module__ that would name its file.
    """
    monkeypatch.chdir(workshop)
    (workshop / "words_deep.py").write_text("MORE = ['rude']\n")
    (workshop / "words_bad.py").write_text("import json\nfrom words_deep import MORE as BAD\n")
    (workshop / "filter_words.py").write_text(
        "from words_bad import BAD\ndef rude(sample):\n    return None\n"
    )
    (workshop / "bystander.py").write_text("")
    assert [path.name for path in custom.files("filter_words:rude")] == [
        "filter_words.py",
        "words_bad.py",
        "words_deep.py",
    ]
    before = custom.measure("filter_words:rude").name
    (workshop / "words_deep.py").write_text("MORE = ['ruder']\n")
    assert custom.measure("filter_words:rude").name != before


def test_the_documented_example(workshop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The example in docs/reference/filters.md must work as it is."""
    example = re.findall(
        r"```python\n(.*?)```", (ROOT / "docs" / "reference" / "filters.md").read_text(), re.DOTALL
    )
    (workshop / "my_filters.py").write_text(example[0])
    seeds = [
        json.dumps({"question": text, "target": "yes"})
        for text in ("is it so ?", "is it ?", "so ?")
    ]
    (workshop / "seeds.jsonl").write_text("\n".join(seeds) + "\n")
    (workshop / "prompt.md").write_text(PROMPT.replace("number", "question"))
    monkeypatch.chdir(workshop)
    config = load(
        workshop / "config.yaml",
        ["filter.custom=[my_filters:short_question]", "filter.correct=false"],
    )
    runner.execute(generate, config)
    runner.execute(filter_stage, config)
    assert (
        manifest.read_manifest(workshop / "run", "filter")["counts"]["rejected"][
            "custom.short_question.too_few_words"
        ]
        == 2
    )


@pytest.mark.parametrize(
    ("name", "code", "expected"),
    [
        ("nowhere", "", "names no function"),
        ("gone:f", "", "has no attribute 'f'"),
        ("no_such_module.at_all:f", "", "No module named"),
        ("bad_a:f", "f = 1", "is no function"),
        ("bad_d:f", "def f(sample: return", "cannot be imported: SyntaxError"),
        ("':f'", "", "names no function"),
        ("bad_e:f", "def f(sample): return 'x', float('nan')", "must return None"),
        ("bad_g:f", "def f(sample): return 'x', float('inf')", "must return None"),
        ("bad_b:f", "def f(sample): return 'Too Rude'", "must return None"),
        ("bad_c:f", "def f(sample): raise KeyError('x')", "fails on sample n0/0: KeyError"),
    ],
)
def test_a_bad_custom_filter_is_named(
    workshop: Path, made: Config, name: str, code: str, expected: str
) -> None:
    """A mistake in a custom function must name the function and the sample."""
    (workshop / f"{name.strip(chr(39)).partition(':')[0] or 'none'}.py").write_text(code)
    with pytest.raises(PipelineError, match=expected):
        runner.execute(filter_stage, load(workshop / "config.yaml", [f"filter.custom=[{name}]"]))


def pids(batch: Batch) -> np.ndarray:
    return np.full(len(batch.samples), os.getpid())


def deadly(batch: Batch, victims: list[str]) -> list[Any]:
    """Kill this process at some samples."""
    for sample in batch.samples:
        if sample.id in victims:
            os.kill(os.getpid(), signal.SIGKILL)
    return [[1.0, sample.id] for sample in batch.samples]


def test_a_sample_that_kills_its_process_costs_that_sample(made: Config) -> None:
    """Such a run could once never be filtered: the same command died at the same sample."""
    measured = MeasureCache(Path(made.run_dir))
    measured.fill([SAMPLE_IDS], 1)
    ids = np.asarray(measured.column(SAMPLE_IDS)).tolist()
    victims = [ids[3]]
    measure = Measure(deadly, {"victims": victims}, slow=True, lost=(None, "lost"))
    measured.fill([measure], 1)
    column = measured.column(measure)
    assert isinstance(column, list)
    assert [tuple(row) for row in column] == [
        (None, "lost") if name in victims else (1.0, name) for name in ids
    ]


def test_a_sample_without_a_row_for_it_is_named(made: Config) -> None:
    """A filter that must know each sample's figure cannot leave one out."""
    measured = MeasureCache(Path(made.run_dir))
    measured.fill([SAMPLE_IDS], 1)
    victim = np.asarray(measured.column(SAMPLE_IDS)).tolist()[2]
    with pytest.raises(PipelineError, match=r"jsonl\.gz:3: the process that measures this sample"):
        measured.fill([Measure(deadly, {"victims": [victim]}, slow=True)], 2)


def correct(config: Config) -> NamedFilter:
    return next(filter_ for filter_ in build.active(config) if filter_.name == "correct")


def test_few_samples_of_a_slow_measure_take_all_cores(workshop: Path, made: Config) -> None:
    """One core of many once ran 2,000 programs and their tests, one after the other."""
    measured = MeasureCache(Path(made.run_dir))
    quick, slow = Measure(pids), Measure(pids, {}, slow=True)
    measured.fill([quick], 2)
    assert set(np.asarray(measured.column(quick))) == {os.getpid()}
    shutil.rmtree(measured.cache / quick.name)
    measured.fill([slow], 2)
    assert os.getpid() not in np.asarray(measured.column(slow))
    assert not correct(made).measures[0].slow
    code = load(
        workshop / "config.yaml",
        ["task.metric=code", "task.labels=null", "train.arms={sft: {method: sft}}"],
    )
    assert correct(code).measures[0].slow


def test_workers_do_not_change_the_result(workshop: Path, made: Config) -> None:
    """Two processes write the same bytes as one."""
    contents = []
    for workers in (1, 2):
        code = (
            "from pipeline.filters import measure_cache; measure_cache.FEW = 0;"
            "from pipeline.execution import runner; from pipeline.config import load;"
            "from pipeline.stages import filter as stage;"
            f"runner.execute(stage, load('config.yaml', ['filter.workers={workers}']))"
        )
        subprocess.run([sys.executable, "-c", code], check=True)
        contents.append(
            [
                (path.name, path.read_bytes())
                for path in sorted((workshop / "run").glob("filter/*/*[pz]"))
            ]
        )
        measured = {
            str(path.relative_to(workshop)): path.read_bytes()
            for path in (workshop / "run" / "measured").rglob("*.npz")
        }
        contents.append(sorted(measured.items()))
        for name in ("filter", "measured"):
            (workshop / "run" / name).rename(workshop / f"{name}{workers}")
    assert contents[0] == contents[2]
    assert contents[1] == contents[3]
    assert len(contents[0]) == 3


def test_a_changed_threshold_measures_nothing_again(workshop: Path, made: Config) -> None:
    """The next filter command reuses what was measured."""
    runner.execute(filter_stage, made)
    before = {
        path: path.stat().st_mtime_ns for path in (workshop / "run" / "measured").rglob("*.npz")
    }
    config = load(workshop / "config.yaml", ["filter.max_tokens=99"])
    runner.execute(filter_stage, config, prepare=runner.archive)
    after = {
        path: path.stat().st_mtime_ns for path in (workshop / "run" / "measured").rglob("*.npz")
    }
    assert before == after
    assert before


def test_columns_come_back_as_they_were(tmp_path: Path) -> None:
    """Arrays, lists and ragged rows, over several shards."""
    parts: list[Any] = [np.array([1.5, 2.0]), np.array([3.0])]
    for number, part in enumerate(parts):
        measures.save_column(tmp_path / f"{number}.npz", part)
    whole = measures.join_columns(
        [measures.load_column(tmp_path / f"{number}.npz") for number in range(2)]
    )
    assert isinstance(whole, np.ndarray)
    assert whole.tolist() == [1.5, 2.0, 3.0]
    measures.save_column(tmp_path / "list.npz", [None, ["a", 1]])
    assert measures.join_columns([measures.load_column(tmp_path / "list.npz"), ["ü"]]) == [
        None,
        ["a", 1],
        "ü",
    ]
    measures.save_column(tmp_path / "ragged.npz", Ragged(np.array([1, 2, 3]), np.array([2, 2, 3])))
    ragged = measures.join_columns(
        [measures.load_column(tmp_path / "ragged.npz"), Ragged(np.array([4]), np.array([0, 1]))]
    )
    assert [list(ragged[row]) for row in range(len(ragged))] == [[1, 2], [], [3], [], [4]]


def test_a_measure_is_known_by_what_decides_it() -> None:
    """Another setting gives other values, so it needs another name."""
    known = Measure(completeness.finished, {"a": 1})
    assert known.name == Measure(completeness.finished, {"a": 1}).name
    assert (
        len(
            {
                known.name,
                Measure(completeness.finished, {"a": 2}).name,
                Measure(completeness.tokens, {"a": 1}).name,
            }
        )
        == 3
    )
    assert custom.REASON.fullmatch("too_rude")
