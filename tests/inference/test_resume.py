"""Resume: kill -9 loses and doubles nothing; other settings and inputs are refused."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline.config import Config, load
from pipeline.errors import PipelineError
from pipeline.execution import manifest, runner
from pipeline.records import Sample
from pipeline.stages import evaluate, generate, train
from pipeline.stages import filter as filter_stage
from pipeline.storage.files import read_json
from pipeline.storage.shards import read_lines, read_records, sealed_shards
from pipeline.storage.topk import TopKFolder
from tests.support.processes import tree


def start(workshop: Path, *overrides: str) -> subprocess.Popen[bytes]:
    command = [
        sys.executable,
        "-m",
        "pipeline",
        "generate",
        str(workshop / "config.yaml"),
        *overrides,
    ]
    return subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )


def lines(folder: Path) -> int:
    journals = sum(path.read_bytes().count(b"\n") for path in folder.glob("0*.jsonl"))
    return journals + sum(1 for path in sealed_shards(folder) for _ in read_lines(path))


def test_killed_three_times_equals_never_killed(workshop: Path) -> None:
    """After kill -9 at any moment, the same command finishes exactly the rest."""
    whole = load(workshop / "config.yaml", [f"run_dir={workshop / 'whole'}", "generate.samples=8"])
    runner.execute(generate, whole)
    dice = random.Random(7)
    folder = workshop / "run" / "generate"
    sealed: dict[str, int] = {}
    for _ in range(3):
        before = lines(folder)
        process = start(workshop, "generate.samples=8", "teacher.delay_s=0.05")
        while lines(folder) <= before and process.poll() is None:
            time.sleep(0.01)
        time.sleep(dice.uniform(0.0, 0.6))
        os.killpg(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL, "finished before it could be killed"
        assert all((folder / name).stat().st_mtime_ns == at for name, at in sealed.items()), (
            "a sealed shard was written again"
        )
        sealed = {
            path.name: path.stat().st_mtime_ns
            for path in folder.glob("0*")
            if "journal" not in path.name and path.suffix != ".lock"
        }
    assert start(workshop, "generate.samples=8").wait() == 0
    assert tree(folder) == tree(workshop / "whole" / "generate")


def test_half_an_n_sample_group_gets_only_what_it_lacks(workshop: Path) -> None:
    """The stored samples of a seed must be kept, byte for byte."""
    config = load(workshop / "config.yaml")
    runner.execute(generate, config)
    folder = workshop / "run" / "generate"
    reference = tree(folder)
    records = list(read_lines(folder / "00000.jsonl.gz"))
    (folder / "manifest.json").unlink()
    frames = (folder / "00000.topk").read_bytes()
    end = 0
    kept = []
    for line in records[:3]:  # one seed whole, one half
        record = json.loads(line)
        end = record["frame"]["offset"] + record["frame"]["nbytes"]
        record["frame"]["file"] = "00000.journal.topk"
        kept.append(json.dumps(record) + "\n")
    for name in ("00000.jsonl.gz", "00000.topk"):
        (folder / name).unlink()
    (folder / "00000.journal.topk").write_bytes(frames[:end])
    (folder / "00000.journal.jsonl").write_text("".join(kept))
    assert runner.execute(generate, config)
    assert tree(folder) == reference


def test_every_seed_has_its_samples_and_every_frame_fits(workshop: Path) -> None:
    """Counts, ids and alignment of generate's samples."""
    config = load(workshop / "config.yaml")
    runner.execute(generate, config)
    folder = workshop / "run" / "generate"
    samples = list(read_records(folder, Sample))
    assert [(s.seed.id, s.index) for s in samples] == [
        (f"n{n}", index) for n in range(30) for index in (0, 1)
    ]
    assert len({s.id for s in samples}) == 60
    assert len({s.sampling_seed for s in samples}) == 60
    frames = TopKFolder(folder)
    for sample in samples:
        assert sample.frame is not None
        assert frames.topk_of(sample).ids[:, 0].tolist() == sample.token_ids
    assert manifest.read_manifest(workshop / "run", "generate")["counts"]["samples"] == 60


def test_failure_keeps_what_was_answered(workshop: Path) -> None:
    """Samples from before an engine's death must be kept."""
    replies = [f" yes, reason {n}\n" for n in range(30)] + ["!die"]
    config = load(workshop / "config.yaml", [f"teacher.replies={json.dumps(replies)}"])
    with pytest.raises(PipelineError, match="told to fail"):
        runner.execute(generate, config)
    folder = workshop / "run" / "generate"
    first = lines(folder)
    with pytest.raises(PipelineError, match="told to fail"):
        runner.execute(generate, config)
    assert lines(folder) >= first > 0
    assert not (folder / "manifest.json").exists()


def test_what_a_kill_left_behind_is_no_output(workshop: Path) -> None:
    """A half-written manifest was listed in the next one, and later stages refused the run."""
    config = load(workshop / "config.yaml")
    runner.execute(generate, config)
    folder = workshop / "run" / "generate"
    (folder / "manifest.json").rename(folder / "manifest.json.tmp")
    assert runner.execute(generate, config)
    assert "manifest.json.tmp" not in manifest.read_manifest(workshop / "run", "generate")["files"]
    assert runner.execute(filter_stage, config)


def test_changed_hub_dataset_is_noticed(workshop: Path) -> None:
    """A hub dataset can change under the same name."""
    folder = workshop / "dataset"
    folder.mkdir()
    (folder / "train.jsonl").write_text((workshop / "seeds.jsonl").read_text())
    config = load(workshop / "config.yaml", [f"task.seeds={{dataset: {folder}}}"])
    runner.execute(generate, config)
    (folder / "train.jsonl").write_text((workshop / "seeds.jsonl").read_text().replace("29", "31"))
    with pytest.raises(PipelineError, match="model seeds"):
        runner.execute(generate, config)


def test_evaluate_killed_before_its_cost_was_written(workshop: Path) -> None:
    """Such a stage could never be finished; the speed over the rest is not the model's speed."""
    config = load(workshop / "config.yaml")
    for module in (generate, filter_stage, train, evaluate):
        runner.execute(module, config)
    folder = workshop / "run" / "evaluate" / "kd"
    for name in ("manifest.json", "cost.json"):
        (folder / name).unlink()
    assert runner.execute(evaluate, config)
    evaluate.finish(config)
    assert read_json(folder.parent / "results.json")["models"]["kd"]["answers_per_s"] is None


def test_done_is_done(workshop: Path) -> None:
    """Running a finished stage again must not touch a file."""
    config = load(workshop / "config.yaml")
    assert runner.execute(generate, config)
    before = tree(workshop / "run" / "generate")
    assert not runner.execute(generate, config)
    assert tree(workshop / "run" / "generate") == before


@pytest.fixture
def generated(workshop: Path) -> Config:
    config = load(workshop / "config.yaml")
    runner.execute(generate, config)
    return config


def test_changed_setting_is_refused_with_its_difference(workshop: Path, generated: Config) -> None:
    """A run must not be half of one temperature and half of another."""
    changed = load(workshop / "config.yaml", ["teacher.temperature=0.5"])
    with pytest.raises(
        PipelineError,
        match=r"(?s)started from other settings.*--redo\n  teacher\.temperature: 1\.0 -> 0\.5",
    ):
        runner.execute(generate, changed)


def test_edited_seeds_are_refused(workshop: Path, generated: Config) -> None:
    """The content of input files is part of a run's identity."""
    path = workshop / "seeds.jsonl"
    path.write_text(path.read_text().replace('"number": 3,', '"number": 33,'))
    with pytest.raises(PipelineError, match=r"seeds\.jsonl: [0-9a-f]{12}… -> "):
        runner.execute(generate, generated)


def test_regenerated_upstream_is_refused(workshop: Path, generated: Config) -> None:
    """Otherwise kept rows of samples that no longer exist would be trained on."""
    runner.execute(filter_stage, generated)
    again = load(workshop / "config.yaml", ["generate.seed=5"])
    runner.execute(generate, again, prepare=runner.archive)
    with pytest.raises(PipelineError, match="output of generate"):
        runner.execute(filter_stage, again)
    assert len(list((workshop / "run" / "replaced").glob("generate-*/00000.jsonl.gz"))) == 1


def test_stage_before_its_upstream_is_refused(workshop: Path) -> None:
    """The message says what to run first."""
    with pytest.raises(
        PipelineError,
        match="filter needs generate, which is not finished; run pipeline generate first",
    ):
        runner.execute(filter_stage, load(workshop / "config.yaml"))


def test_upstream_with_a_file_cut_is_refused(workshop: Path, generated: Config) -> None:
    """Reading on past a shortened shard would silently drop rows."""
    path = workshop / "run" / "generate" / "00001.jsonl.gz"
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(PipelineError, match=r"00001\.jsonl\.gz: is not as generate left it"):
        runner.execute(filter_stage, generated)


def test_filter_counts_add_up_and_say_why(workshop: Path, generated: Config) -> None:
    """Every sample is either kept or rejected with filter, reason and value."""
    runner.execute(filter_stage, generated)
    counts = manifest.read_manifest(workshop / "run", "filter")["counts"]
    assert counts["samples"] == 60 == counts["kept"] + sum(counts["rejected"].values())
    rejected = [
        json.loads(line)
        for line in read_lines(workshop / "run" / "filter" / "rejected" / "00000.jsonl.gz")
    ]
    assert {"correct.wrong_answer", "duplicate.same_as"} == {
        f"{r['filter']}.{r['reason']}" for r in rejected
    }
    assert all(r["value"] for r in rejected)
    assert "kept" in filter_stage.summary(generated)


def test_empty_result_names_the_filter_that_ate_it(workshop: Path) -> None:
    """ "0 rows" without a reason leaves the user to guess which filter rejected everything."""
    config = load(workshop / "config.yaml", ["filter.max_tokens=2"])
    runner.execute(generate, config)
    with pytest.raises(
        PipelineError,
        match=r"no sample is kept: filter 'length' rejected the last 60 samples \(60 as too_long",
    ):
        runner.execute(filter_stage, config)
    assert not (workshop / "run" / "filter" / "manifest.json").exists()
    mended = load(
        workshop / "config.yaml"
    )  # as the error says; nothing was made, so nothing is in the way
    assert runner.execute(filter_stage, mended)
