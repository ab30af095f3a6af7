"""Fixtures that tests share: a config that runs in seconds, on its own seeds."""

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.execution import console
from pipeline.records import Sample, Seed, Usage
from tests.support.task import PROMPT, REPLIES, write_seeds


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start the longest tests first, so that no process waits for them at the end."""
    items.sort(key=lambda item: item.get_closest_marker("real") is None)


@pytest.fixture(autouse=True, scope="session")
def _console() -> None:
    """Print messages of stages in the test's own process as the command line does."""
    console.configure()


@pytest.fixture
def workshop(tmp_path: Path) -> Path:
    """Make a folder with seeds, prompts and a config.yaml of absolute paths, for the fake."""
    write_seeds(tmp_path / "seeds.jsonl", range(30))
    write_seeds(tmp_path / "eval.jsonl", range(100, 108))
    (tmp_path / "prompt.md").write_text(PROMPT)
    tree: dict[str, Any] = {
        "run_dir": str(tmp_path / "run"),
        "task": {
            "seeds": str(tmp_path / "seeds.jsonl"),
            "eval_seeds": str(tmp_path / "eval.jsonl"),
            "metric": "label",
            "labels": ["yes", "no"],
        },
        "teacher": {
            "backend": "fake",
            "model": "fake",
            "replies": REPLIES,
            "logprobs": 4,
            "engine": {"max_in_flight": 4},
        },
        "generate": {"prompt": str(tmp_path / "prompt.md"), "samples": 2, "shard_size": 8},
        "student": {"model": "random"},
        "train": {
            "prompt": str(tmp_path / "prompt.md"),
            "batch_size": 8,
            "epochs": 1,
            "learning_rate": 2e-4,
            "group_by_length": False,
            "dtype": "float32",
            "report_to": [],
        },
        "evaluate": {"backend": "fake"},
    }
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(tree))
    return tmp_path


@pytest.fixture
def started() -> Iterator[list[subprocess.Popen[str]]]:
    """Collect processes that must not outlive the test."""
    processes: list[subprocess.Popen[str]] = []
    yield processes
    for process in processes:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


@pytest.fixture
def sample() -> Callable[..., Sample]:
    """Return a function that makes a good sample; keyword arguments change it."""

    def make(number: int = 0, **changes: Any) -> Sample:
        fields: dict[str, Any] = {
            "id": f"s{number}",
            "seed": Seed(id=f"n{number}", inputs={"number": number}, target="yes"),
            "index": 0,
            "teacher": "fake",
            "prompt_digest": "0",
            "text": " yes, it is even\n",
            "rationale": "it is even",
            "answer": "yes",
            "finish_reason": "stop",
            "usage": Usage(prompt_tokens=9, completion_tokens=7),
        }
        return Sample(**{**fields, **changes})

    return make
