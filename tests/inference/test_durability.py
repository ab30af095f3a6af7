"""The promises of docs/explanation/durability.md that need whole processes to test."""

import gzip
import json
import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest

from pipeline.config import load
from pipeline.errors import EngineError, PipelineError
from pipeline.execution import contract, manifest, runner
from pipeline.inference.teacher_samples import keep_prompts
from pipeline.models.fake import FakeModel
from pipeline.records import Sample
from pipeline.stages import filter as filter_stage
from pipeline.stages import generate, score
from pipeline.storage.shards import read_records
from tests.support.processes import finish, start, tree
from tests.support.task import ROOT, write_seeds


def wait_until(condition: object, process: subprocess.Popen[str]) -> None:
    assert callable(condition)
    deadline = time.monotonic() + 120
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)


def is_held(path: Path, process: subprocess.Popen[str]) -> bool:
    """Tell whether the process has the lock, without trying to take it from others."""
    return path.exists() and path.read_text().startswith(f"{process.pid} ")


def test_every_promise_has_its_test() -> None:
    """Every promise on the page names a test that exists."""
    page = (ROOT / "docs" / "explanation" / "durability.md").read_text()
    named = re.findall(r"`(tests/[a-z_/]+\.py)::(test_[a-z_]+)`", page)
    assert len(named) >= 15
    missing = [name for file, name in named if f"def {name}(" not in (ROOT / file).read_text()]
    assert missing == []


def test_workers_share_a_run(workshop: Path) -> None:
    """Three workers together give the result of one, and none is refused."""
    whole = load(
        workshop / "config.yaml",
        [f"run_dir={workshop / 'whole'}", "generate.samples=6", "generate.shard_size=2"],
    )
    runner.execute(generate, whole)
    options = ["generate.samples=6", "generate.shard_size=2", "teacher.delay_s=0.02"]
    workers = [start(workshop, *options) for _ in range(3)]
    assert [finish(worker)[0] for worker in workers] == [0, 0, 0]
    assert tree(workshop / "run" / "generate") == tree(workshop / "whole" / "generate")
    assert manifest.read_manifest(workshop / "run", "generate")["counts"]["samples"] == 180


def test_a_dead_workers_shard_is_taken_over(
    workshop: Path, started: list[subprocess.Popen[str]]
) -> None:
    """The remaining worker finishes the other's shard and keeps its acknowledged samples."""
    folder = workshop / "run" / "generate"
    slow = start(
        workshop, "teacher.delay_s=2", "generate.shard_size=30"
    )  # one shard: the other can only wait
    started.append(slow)
    wait_until(lambda: any(path.stat().st_size for path in folder.glob("*.journal.jsonl")), slow)
    acknowledged = {
        json.loads(line)["id"]: line
        for line in (folder / "00000.journal.jsonl").read_bytes().splitlines()
    }
    other = start(workshop, "generate.shard_size=30")
    started.append(other)
    time.sleep(2.0)
    assert other.poll() is None
    os.killpg(slow.pid, signal.SIGKILL)
    assert finish(other)[0] == 0
    samples = list(read_records(folder, Sample))
    assert len(samples) == len({sample.id for sample in samples}) == 60
    assert acknowledged.keys() <= {sample.id for sample in samples}


def test_workers_of_other_settings_are_turned_away(
    workshop: Path, started: list[subprocess.Popen[str]]
) -> None:
    """Workers of one run share its settings; --redo does not archive a run in use."""
    folder = workshop / "run" / "generate"
    slow = start(workshop, "teacher.delay_s=3")
    started.append(slow)
    wait_until(lambda: list(folder.glob("*.journal.jsonl")), slow)
    code, output = finish(start(workshop, "teacher.temperature=0.5"))
    assert (code, "started from other settings" in output) == (1, True)
    code, output = finish(start(workshop, "--redo"))
    assert (code, f"process {slow.pid} on" in output) == (1, True)


def test_seeds_edited_while_a_run_goes_on_are_refused(workshop: Path) -> None:
    """The shards after the edit were once made of the new seeds.

    With the old file back, nothing is lost.
    """
    write_seeds(workshop / "seeds.jsonl", range(400))
    options = ["generate.samples=1", "generate.shard_size=60"]
    slow = start(workshop, "teacher.delay_s=0.02", *options)
    wait_until((workshop / "run" / "generate" / "00000.jsonl.gz").exists, slow)
    write_seeds(workshop / "seeds.jsonl", range(1, 401))
    code, output = finish(slow)
    assert (code, "seeds.jsonl: was changed while the stage is at work on it" in output) == (
        1,
        True,
    ), output
    before = {
        path.name: path.read_bytes() for path in (workshop / "run" / "generate").glob("0*.jsonl.gz")
    }
    write_seeds(workshop / "seeds.jsonl", range(400))
    runner.execute(generate, load(workshop / "config.yaml", options))
    samples = list(read_records(workshop / "run" / "generate", Sample))
    assert [sample.seed.id for sample in samples] == [f"n{n}" for n in range(400)]
    assert before.items() <= tree(workshop / "run" / "generate").items()


def test_engine_death_costs_what_was_in_flight(workshop: Path) -> None:
    """Samples from before the engine's death stay, and the same command continues."""
    folder = workshop / "run" / "generate"
    replies = [*[f" yes, reason {n}\n" for n in range(30)], "!die"]
    config = load(workshop / "config.yaml", [f"teacher.replies={json.dumps(replies)}"])
    for _ in range(2):
        with pytest.raises(PipelineError, match="told to fail"):
            runner.execute(generate, config)
    assert any(path.stat().st_size for path in folder.glob("0*.jsonl*"))
    assert not (folder / "manifest.json").exists()


def test_engine_that_died_is_started_anew(
    workshop: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An engine that died at night once cost the rest of the night."""
    config = load(workshop / "config.yaml")
    job = contract.Job(config, "generate", "", workshop / "run" / "generate")
    job.folder.mkdir(parents=True)
    keep_prompts(config.generate.prompt, job.folder)
    replies = ["!die", *[f" yes, reason {n}\n" for n in range(30)]]
    models = [
        FakeModel("fake", answers, config.teacher.engine) for answers in (replies, replies[1:])
    ]
    generate.capturing(job).run(lambda: models.pop(0))
    assert len(list(read_records(job.folder, Sample))) == 60
    assert (
        "told to fail here\ngenerate: restarting the model, 1 of teacher.restarts=2"
        in capsys.readouterr().err
    )


@pytest.mark.parametrize(("restarts", "opened"), [(0, 1), (2, 2)])
def test_engine_that_dies_of_the_same_again_ends_the_stage(
    workshop: Path, restarts: int, opened: int
) -> None:
    """A request that kills the engine would restart it forever."""
    config = load(workshop / "config.yaml", [f"teacher.restarts={restarts}"])
    job = contract.Job(config, "generate", "", workshop / "run" / "generate")
    job.folder.mkdir(parents=True)
    keep_prompts(config.generate.prompt, job.folder)
    replies = ["!die", *[f" yes, reason {n}\n" for n in range(30)]]
    models = [FakeModel("fake", replies, config.teacher.engine) for _ in range(4)]
    with pytest.raises(EngineError):
        generate.capturing(job).run(lambda: models.pop(0))
    assert 4 - len(models) == opened


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_drains_and_says_how_to_go_on(
    workshop: Path, number: signal.Signals, started: list[subprocess.Popen[str]]
) -> None:
    """Requests in flight are stored, within five seconds; so too after a Slurm job's SIGTERM."""
    folder = workshop / "run" / "generate"
    process = start(workshop, "teacher.delay_s=1", "generate.shard_size=30")
    started.append(process)
    wait_until(lambda: any(path.stat().st_size for path in folder.glob("*.journal.jsonl")), process)
    time.sleep(0.4)  # the next batch is in flight now
    lines = (folder / "00000.journal.jsonl").read_bytes().count(b"\n")
    began = time.monotonic()
    process.send_signal(number)
    code, output = finish(process)
    assert time.monotonic() - began < 30  # five seconds, and a busy machine
    assert code == 128 + number
    assert "the same command continues from here" in output
    assert (folder / "00000.journal.jsonl").read_bytes().count(
        b"\n"
    ) >= lines + 4  # a batch was in flight
    assert finish(start(workshop, "generate.shard_size=30"))[0] == 0


def test_signal_ends_a_hanging_engine(workshop: Path, started: list[subprocess.Popen[str]]) -> None:
    """An engine that never answers must not keep the user waiting."""
    folder = workshop / "run" / "generate"
    process = start(workshop, "teacher.delay_s=1000")
    started.append(process)
    wait_until(lambda: "loading" in (process.stdout.readline() if process.stdout else ""), process)
    wait_until(
        lambda: is_held(folder / "00000.lock", process), process
    )  # it is asleep in its first batch now
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    code, _ = finish(process)
    assert (code, time.monotonic() - began < 30) == (130, True)  # five seconds, and a busy machine


def test_no_disk_keeps_what_is_there(workshop: Path, tmp_path: Path) -> None:
    """A full disk gives one line and exit code 1; the command continues when there is space."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "none", disk], capture_output=True, check=False
    ).returncode:
        pytest.skip("may not mount a small disk here")
    folder = disk / "run" / "generate"
    options = [f"run_dir={disk / 'run'}", "generate.samples=40", "generate.shard_size=30"]
    try:
        code, output = finish(start(workshop, *options))
        assert (code, "the disk is full" in output) == (1, True), output
        journal = (folder / "00000.journal.jsonl").read_bytes().splitlines(keepends=True)
        assert len([line for line in journal if line.endswith(b"\n")]) > 0
        subprocess.run(["mount", "-o", "remount,size=64m", disk], check=True)
        assert finish(start(workshop, *options))[0] == 0
        lines = gzip.decompress((folder / "00000.jsonl.gz").read_bytes()).splitlines()
        samples = [json.loads(line)["id"] for line in lines]
        assert len(samples) == len(set(samples)) == 1200
    finally:
        subprocess.run(["umount", disk], check=True)


def test_score_is_as_durable_as_generate(
    workshop: Path, started: list[subprocess.Popen[str]]
) -> None:
    """A score stage that was killed and continued equals one that was never killed."""
    for run in ("run", "whole"):
        config = load(workshop / "config.yaml", [f"run_dir={workshop / run}"])
        runner.execute(generate, config)
        runner.execute(filter_stage, config)
    runner.execute(score, load(workshop / "config.yaml", [f"run_dir={workshop / 'whole'}"]))
    folder = workshop / "run" / "score"
    process = start(
        workshop, "teacher.delay_s=0.3", "teacher.engine.max_in_flight=1", stage_name="score"
    )
    started.append(process)
    wait_until(lambda: any(path.stat().st_size for path in folder.glob("*.journal.jsonl")), process)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert finish(start(workshop, stage_name="score"))[0] == 0
    assert tree(folder) == tree(workshop / "whole" / "score")
