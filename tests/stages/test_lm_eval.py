"""lm-eval's tasks on every model, with a custom task and no network."""

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.config import Config, load
from pipeline.errors import PipelineError
from pipeline.evaluation import optional_figures
from pipeline.evaluation.lm_eval_process import figures
from pipeline.execution import runner
from pipeline.stages import evaluate, generate, lm_eval, train
from pipeline.stages import filter as filter_stage

TASK = """task: parity
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "Is {{{{number}}}} even?"
doc_to_target: "{{{{right}}}}"
doc_to_choice: [" yes", " no"]
metric_list: [{{metric: acc, aggregation: mean, higher_is_better: true}}]
"""


@pytest.fixture
def trained(workshop: Path) -> Config:
    """Make a run with students, and a task beside it."""
    tasks = workshop / "tasks"
    tasks.mkdir()
    documents = [{"number": number, "right": number % 2} for number in range(12)]
    (tasks / "parity.jsonl").write_text("".join(json.dumps(one) + "\n" for one in documents))
    (tasks / "parity.yaml").write_text(TASK.format(data=tasks / "parity.jsonl"))
    asked = f"evaluate.lm_eval={{tasks: [parity], limit: 8, include_path: {tasks}}}"
    config = load(
        workshop / "config.yaml", ["train.arms={sft: {method: sft}}", "evaluate.load=null", asked]
    )
    for module in (generate, filter_stage, train, evaluate):
        runner.execute(module, config)
    return config


def test_a_task_of_ones_own(trained: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """A student gets the task's metric with its error; a fake teacher has no weights to measure."""
    pytest.importorskip("lm_eval")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert lm_eval.parts(trained) == ["base", "sft"]
    assert runner.execute(lm_eval, trained, ["sft"])
    found = optional_figures.lm_eval(trained, "sft")
    assert found is not None
    assert found["parity"]["acc"].value in [number / 8 for number in range(9)]
    assert found["parity"]["acc"].stderr is not None
    evaluate.finish(trained)
    assert "sft: parity: acc 0." in evaluate.summary(trained)
    assert optional_figures.lm_eval(trained, "teacher") is None


def test_a_task_that_cannot_be_run(trained: Config, workshop: Path) -> None:
    """The harness's traceback goes to its log; the message is one line."""
    pytest.importorskip("lm_eval")
    task = workshop / "tasks" / "parity.yaml"
    task.write_text(task.read_text().replace("right", "left"))
    with pytest.raises(
        PipelineError, match=r"forgotten base: lm-eval: .+; its output is in .*engine.log"
    ):
        runner.execute(lm_eval, trained, ["base"])
    assert "Traceback" in (workshop / "run" / "forgotten" / "base" / "engine.log").read_text()


def test_without_the_harness() -> None:
    """lm-eval is an optional package; the message must say how to install it."""
    with pytest.raises(
        PipelineError, match=r"no_such_harness is not installed; pip install 'pipeline\[lm-eval\]'"
    ):
        lm_eval.check_installed("no_such_harness")


def test_figures_of_the_harness() -> None:
    """Two filters of one metric overwrote each other; a metric may lack its standard error."""
    found: dict[str, dict[str, Any]] = {
        "t": {
            "alias": "t", "acc,none": 0.5, "acc_stderr,none": 0.1,
            "exact_match,strict": 0.25, "exact_match_stderr,strict": "N/A",
            "sample_len": 8,
        }
    }  # fmt: skip
    assert figures(found) == {
        "t": {
            "acc": {"value": 0.5, "stderr": 0.1},
            "exact_match,strict": {"value": 0.25, "stderr": None},
        }
    }
