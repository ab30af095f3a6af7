"""The commands as a user meets them: exit codes, messages, a whole run from seeds to figures."""

import importlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline.cli.main import cli
from pipeline.evaluation.format import shown
from pipeline.evaluation.results_model import Results
from pipeline.execution import manifest
from pipeline.storage.files import read_json
from pipeline.storage.shards import read_lines
from tests.support.processes import pipeline


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole run of configs/tiny.yaml."""
    run_dir = tmp_path_factory.mktemp("runs") / "tiny"
    done = pipeline("run", "configs/tiny.yaml", f"run_dir={run_dir}")
    assert done.returncode == 0, done.stderr
    assert "kd - sft" in done.stdout
    return run_dir


def test_the_whole_way(tiny: Path) -> None:
    """Every stage is finished, and every figure has its name."""
    results = json.loads((tiny / "evaluate" / "results.json").read_text())
    assert list(results["models"]) == ["teacher", "base", "kd", "sft"]
    assert results["held_out"] == 16
    for model in results["models"].values():
        assert 0 <= model["score"]["low"] <= model["score"]["mean"] <= model["score"]["high"] <= 1
    assert set(results["differences"]) == {
        "kd - sft",
        "kd - base",
        "sft - base",
        "kd - teacher",
        "sft - teacher",
    }
    assert "measure nothing" in results["note"]
    for arm in ("kd", "sft"):
        assert (tiny / "train" / arm / "model" / "model.safetensors").is_file()
        assert list((tiny / "train" / arm / "tensorboard").rglob("events.*"))


def test_a_bad_student_is_held_back(tiny: Path) -> None:
    """A script holds back a release by exit code 2 of evaluate or run on a finished run."""
    for command in ("evaluate", "run"):
        held = pipeline(
            command, "configs/tiny.yaml", f"run_dir={tiny}", "evaluate.gate={arm: sft, score: 1.0}"
        )
        assert held.returncode == 2
        assert "gate: sft: score 0." in held.stderr
        assert "less than evaluate.gate.score=1" in held.stderr
    assert (
        pipeline(
            "evaluate", "configs/tiny.yaml", f"run_dir={tiny}", "evaluate.gate={gap: 1.0}"
        ).returncode
        == 0
    )


def test_ends_with_the_report(tiny: Path) -> None:
    """The report's path is the last line; a report that cannot be written hides no gate."""
    page = tiny / "report" / "index.html"
    for command in ("run", "evaluate"):
        page.unlink()
        done = pipeline(command, "configs/tiny.yaml", f"run_dir={tiny}")
        assert done.stdout.splitlines()[-1] == f"report: {page}"
        assert page.is_file()
    text = page.with_name("report.md").read_text()
    results = Results.read(tiny / "evaluate" / "results.json")
    assert all(shown(model.score) in text for model in results.models.values())
    page.unlink()
    page.mkdir()
    held = pipeline(
        "evaluate", "configs/tiny.yaml", f"run_dir={tiny}", "evaluate.gate={arm: sft, score: 1.0}"
    )
    page.rmdir()
    assert held.returncode == 2
    assert f"error: {page}" in held.stderr
    assert "gate: sft" in held.stderr


def test_figures_come_from_the_stored_answers(tiny: Path) -> None:
    """results.json must be what the records say, not what a process remembered."""
    results = json.loads((tiny / "evaluate" / "results.json").read_text())
    for name, model in results["models"].items():
        values = [
            json.loads(line)["score"]["value"]
            for line in read_lines(tiny / "evaluate" / name / "00000.jsonl.gz")
        ]
        assert model["score"]["mean"] == pytest.approx(sum(values) / 16)


def test_asking_again_does_nothing(tiny: Path) -> None:
    """A second run says so in seconds and changes no file; only the report is written anew."""

    def times() -> dict[Path, int]:
        files = [path for path in tiny.rglob("*") if path.is_file()]
        return {path: path.stat().st_mtime_ns for path in files if "report" not in path.parts}

    # a test before this one may have left the verdicts of a gate in results.json
    pipeline("run", "configs/tiny.yaml", f"run_dir={tiny}")
    before = times()
    again = pipeline("run", "configs/tiny.yaml", f"run_dir={tiny}")
    assert again.returncode == 0
    assert "all stages are done already" in again.stdout
    assert times() == before


OUTPUTS = {
    "generate": ["0*.jsonl.gz", "0*.topk", "prompts/0.md"],
    "filter": ["kept/rows.npz", "kept/soft_labels.npz", "rejected/00000.jsonl.gz"],
    "train": ["student.json", "model/*"],
    "evaluate": ["00000.jsonl.gz"],
}


def test_every_file_is_an_output_a_note_or_bookkeeping(tiny: Path) -> None:
    """A new side file of a stage, taken for an output, would make all later stages stale."""
    kinds = set()
    for path in tiny.glob("*/**/manifest.json"):
        folder, name = path.parent, path.relative_to(tiny).parts[0]
        stage = importlib.import_module(f"pipeline.stages.{name}")
        outputs = read_json(path)["files"]
        for file in (file for file in folder.rglob("*") if file.is_file()):
            kind = {
                "output": any(file.relative_to(folder).match(glob) for glob in OUTPUTS[name]),
                "note": manifest.is_note(file, folder, stage.NOTES),
                "bookkeeping": manifest.is_bookkeeping(file, folder),
            }
            assert sum(kind.values()) == 1 or kind["note"], file
            assert kind["output"] == (str(file.relative_to(folder)) in outputs), file
            kinds |= {(name, kind_) for kind_, holds in kind.items() if holds}
    assert kinds == {(name, kind) for name in OUTPUTS for kind in ("output", "bookkeeping")} | {
        ("filter", "note"), ("train", "note"), ("evaluate", "note"),
    }  # fmt: skip


def test_status_tells_what_is_done(tiny: Path) -> None:
    """Status prints one line a part."""
    lines = pipeline("status", tiny).stdout.splitlines()
    assert [line.split()[0] for line in lines][:3] == ["generate", "filter", "train/init"]
    assert all(" done " in line for line in lines)


def test_status_of_an_unfinished_run(workshop: Path) -> None:
    """Status counts what the journals hold so far."""
    failing = [f" yes, {n}\\n" for n in range(30)] + ["!die"]
    assert (
        pipeline(
            "generate", workshop / "config.yaml", f"teacher.replies={json.dumps(failing)}"
        ).returncode
        == 1
    )
    assert "not finished:" in pipeline("status", workshop / "run").stdout
    assert pipeline("status", workshop / "nothing").returncode == 1


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (
            ["generate", "configs/quickstart.yaml", "teacher.temprature=1"],
            "did you mean teacher.temperature?",
        ),
        (["generate", "configs/absent.yaml"], "cannot be read"),
        (["generate", "configs/tiny.yaml", "task.seeds=data/absent.jsonl"], "no such file"),
        (
            ["validate", "configs/tiny.yaml", "generate.prompt=prompts/absent.md"],
            "prompt cannot be read",
        ),
        (
            ["validate", "configs/quickstart.yaml", "teacher.model=package:nothing/x.gguf"],
            "is not installed",
        ),
        (["validate", "configs/quickstart.yaml", "teacher.model=./absent"], "no model folder"),
        (["filter", "configs/tiny.yaml"], "run pipeline generate first"),
        (
            ["evaluate", "configs/tiny.yaml", "--model", "absent"],
            "there is no 'absent'; there are teacher, base, kd, sft",
        ),
    ],
)
def test_mistakes_are_one_line_and_exit_1(
    tmp_path: Path, arguments: list[str], expected: str
) -> None:
    """A user error prints what to do, never a traceback."""
    done = pipeline(*arguments, f"run_dir={tmp_path / 'run'}")
    assert done.returncode == 1
    assert expected in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_unknown_command_and_option_exit_2() -> None:
    """A mistake in the command itself exits with 2, as in every shell tool.

    Once, --recheck beside --repair was silently ignored.
    """
    assert pipeline("verify", "runs/none", "--repair", "--recheck", "3").returncode == 2
    assert pipeline("generat").returncode == 2
    assert pipeline("generate", "configs/tiny.yaml", "--rdo").returncode == 2


@pytest.mark.parametrize("command", sorted(cli.commands))
def test_every_help_has_an_example(command: str) -> None:
    """Users copy the example of a help text."""
    assert "Example: pipeline" in pipeline(command, "--help").stdout


def test_validate_shows_the_prompt_and_where_values_come_from() -> None:
    """validate prints everything that needs no model."""
    done = pipeline("validate", "configs/tiny.yaml", "--origins", "teacher.top_p=0.9")
    assert done.returncode == 0
    assert "teacher.top_p = 0.9  (command line)" in done.stdout
    assert "the teacher's first prompt:" in done.stdout


def test_ctrl_c_keeps_what_is_there(workshop: Path) -> None:
    """Ctrl-C prints how to continue and exits with 130; the same command then finishes."""
    command = [sys.executable, "-m", "pipeline", "generate", str(workshop / "config.yaml")]
    process = subprocess.Popen(
        [*command, "teacher.delay_s=0.1"],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    folder = workshop / "run" / "generate"
    while not list(folder.glob("0*.jsonl*")) and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, words = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "the same command continues from here" in words
    assert list(folder.glob("0*.jsonl*"))
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_read_only_folder_is_said_plainly(workshop: Path) -> None:
    """A folder that cannot be written gives no traceback."""
    (workshop / "run").mkdir(mode=0o500)
    done = pipeline("generate", workshop / "config.yaml")
    assert done.returncode == 1
    assert "permission is denied" in done.stderr


def test_full_disk_is_said_plainly(workshop: Path) -> None:
    """A full disk loses nothing; the same command continues when there is room."""
    script = (
        "import resource, runpy, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000)); "
        "runpy.run_module('pipeline', run_name='__main__')"
    )
    command = [sys.executable, "-c", script, "generate", str(workshop / "config.yaml")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "the same command continues from here" in done.stderr
    assert "Traceback" not in done.stderr
    assert pipeline("generate", workshop / "config.yaml").returncode == 0
