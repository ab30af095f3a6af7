"""Three hundred kills at random moments: no acknowledged sample is lost, doubled or damaged."""

import json
import os
import subprocess
import sys
from pathlib import Path

import yaml

from tests.support.task import ROOT, write_seeds


def test_three_hundred_kills(workshop: Path) -> None:
    """A kill can fall in the middle of a line, between frame and line, or during a seal."""
    write_seeds(workshop / "seeds.jsonl", range(48))
    tree = yaml.safe_load((workshop / "config.yaml").read_text())
    tree["generate"] |= {"samples": 3, "shard_size": 8}
    tree["task"]["eval_seeds"] = str(workshop / "eval.jsonl")
    write_seeds(workshop / "eval.jsonl", range(200, 208))
    (workshop / "config.yaml").write_text(yaml.safe_dump(tree))
    command = [
        sys.executable,
        "-m",
        "tests.support.kill_storm",
        str(workshop / "config.yaml"),
        "300",
        "20261121",
    ]
    storm = subprocess.run(
        command,
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "TOKENIZERS_PARALLELISM": "false"},
        check=False,
    )
    assert storm.returncode == 0, storm.stderr[-2000:]
    counts = json.loads(storm.stdout.splitlines()[-1])
    assert counts["kills"] >= 300
    assert counts["acknowledged"] > 0
