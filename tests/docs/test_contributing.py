"""CONTRIBUTING.md: the files that it names exist, and its steps for a new loss lead to one."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from tests.support.task import ROOT

PAGE = ROOT / "CONTRIBUTING.md"
STEPS = re.compile(r"## Add a loss\n.*?(?=\n## )", re.DOTALL)
HELLINGER = '''

def hellinger(teacher: Tensor, student: Tensor) -> Tensor:
    """Squared Hellinger distance: half of the sum of (sqrt p - sqrt q)^2, at most 1."""
    return 0.5 * ((teacher / 2).exp() - (student / 2).exp()).square().sum(dim=1)


DIVERGENCES["hellinger"] = lambda teacher, student, beta: hellinger(teacher, student)
'''


def test_named_files_exist() -> None:
    """Steps that send a newcomer to a file that has moved."""
    named = set(re.findall(r"`((?:pipeline|tests|docs|benchmarks)/[\w/.-]+)`", PAGE.read_text()))
    named -= {"pipeline/filters/heuristics/digits.py", "pipeline/stages/NAME.py"}  # to be written
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []


def test_the_steps_for_a_loss_add_a_loss(tmp_path: Path, workshop: Path) -> None:
    """Steps that leave one out: follow them on a copy, then train with the new divergence."""
    steps = STEPS.search(PAGE.read_text())
    assert steps is not None
    losses, config = re.findall(r"`(pipeline/[\w/]+\.py)`", steps.group())[:2]
    copy = tmp_path / "copy"
    shutil.copytree(ROOT / "pipeline", copy / "pipeline")
    with (copy / losses).open("a") as file:
        file.write(HELLINGER)
    text = (copy / config).read_text()
    assert text.count('"total_variation"') == 1
    (copy / config).write_text(text.replace('"total_variation"', '"total_variation", "hellinger"'))

    divergence = "train.arms={kd: {method: kd, alpha: 0.0, divergence: hellinger}}"
    env = {**os.environ, "PYTHONPATH": str(copy)}
    for stage in ("generate", "filter", "train"):
        command = [
            sys.executable,
            "-m",
            "pipeline",
            stage,
            str(workshop / "config.yaml"),
            divergence,
        ]
        done = subprocess.run(
            command, capture_output=True, text=True, env=env, cwd=copy, check=False
        )
        assert done.returncode == 0, done.stderr
    losses_seen = re.findall(r"loss ([\d.]+)", done.stdout)
    assert losses_seen
    assert all(0.0 < float(loss) <= 1.0 for loss in losses_seen)  # a Hellinger distance, no KL
