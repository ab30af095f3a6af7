"""Failed requests and their retries.

Each failure is stored in errors/ with its reason and retried by --retry-errors, also after repairs.
"""

import json
from pathlib import Path

import pytest

from pipeline.config import Config, load
from pipeline.errors import PipelineError
from pipeline.execution import contract, runner
from pipeline.inference import work_queue
from pipeline.inspection.verify import repair
from pipeline.records import Sample
from pipeline.stages import filter as filter_stage
from pipeline.stages import generate
from pipeline.storage.journal import read_failures
from pipeline.storage.shards import read_records
from tests.support.processes import finish, start, tree
from tests.support.task import write_seeds

GOOD = [" yes, it is even\n", " no, it is odd\n"]
REFUSING = [
    f"teacher.replies={json.dumps([*GOOD * 8, '!refuse'])}",
    "generate.max_error_rate=0.5",
]  # some seeds, always


def answering(config: Config) -> contract.Job:
    """Return the job of the same run with a teacher that refuses nothing."""
    teacher = config.teacher.model_copy(update={"replies": GOOD})
    return contract.Job(
        config.model_copy(update={"teacher": teacher}),
        "generate",
        "",
        Path(config.run_dir) / "generate",
    )


def failures(folder: Path) -> dict[str, str]:
    return {
        failed.id: failed.reason
        for path in sorted((folder / "errors").glob("*.jsonl"))
        for failed in read_failures(path)
    }


def test_failing_requests_are_set_aside_and_retried(workshop: Path) -> None:
    """A bad row fails alone.

    --retry-errors asks for it alone, and the other samples stay as they are.
    """
    folder = workshop / "run" / "generate"
    rows = [json.loads(line) for line in (workshop / "seeds.jsonl").read_text().splitlines()]
    rows[7]["number"] = "x" * 4000
    (workshop / "seeds.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    limit = "teacher.engine.max_model_len=2000"
    code, output = finish(start(workshop, limit))
    assert code == 3
    assert "2 requests failed (2 too_long" in output
    assert failures(folder) == {"n7/0": "too_long", "n7/1": "too_long"}
    assert len(list(read_records(folder, Sample))) == 58
    assert finish(start(workshop, limit))[0] == 3  # done already, with errors
    before = tree(folder)
    runner.execute(filter_stage, load(workshop / "config.yaml", [limit]))
    code, output = finish(start(workshop, limit, "--retry-errors"))
    assert code == 3  # it is still too long
    assert not runner.execute(
        filter_stage, load(workshop / "config.yaml", [limit])
    )  # nothing has changed for it
    assert {name: tree(folder)[name] for name in before} == before
    assert failures(folder) == {"n7/0": "too_long", "n7/1": "too_long"}
    assert len(list(read_records(folder, Sample))) == 58


def test_retried_errors_can_succeed(workshop: Path) -> None:
    """Every retried sample is stored once, in shards behind the others, and read later."""
    folder = workshop / "run" / "generate"
    config = load(workshop / "config.yaml", REFUSING)
    runner.execute(generate, config)
    failed = failures(folder)
    assert failed
    retried = sorted(failed)
    work_queue.retry_errors(contract.Job(config, "generate", "", folder))
    work_queue.retry_errors(
        contract.Job(config, "generate", "", folder)
    )  # as after a crash between its steps
    generate.run(answering(config))
    samples = list(read_records(folder, Sample))
    assert len(samples) == len({sample.id for sample in samples}) == 60
    assert sorted(sample.id for sample in samples[-len(retried) :]) == retried
    assert failures(folder) == {}


def test_repair_does_not_double_what_was_retried(workshop: Path) -> None:
    """A repaired shard must leave its failed samples to the shard that retried them."""
    folder = workshop / "run" / "generate"
    config = load(workshop / "config.yaml", REFUSING)
    runner.execute(generate, config)
    failed = next(iter(failures(folder)))
    work_queue.retry_errors(contract.Job(config, "generate", "", folder))
    generate.run(answering(config))
    shard = next(
        path
        for path in sorted((folder / "errors" / "retried").glob("0*.jsonl"))
        if failed in path.read_text()
    ).stem
    (folder / f"{shard}.topk").write_bytes(b"")
    assert len(list(repair(workshop / "run"))) == 1
    generate.run(answering(config))
    samples = [sample.id for sample in read_records(folder, Sample)]
    assert len(samples) == len(set(samples)) == 60


def test_retry_of_many_lasting_failures_ends(workshop: Path) -> None:
    """A retry of lasting failures alone would look like a run that mostly fails, and never end."""
    rows = [
        {"id": f"n{n}", "number": n if n < 280 else "x" * 4000, "target": "yes"} for n in range(300)
    ]
    (workshop / "seeds.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = load(
        workshop / "config.yaml",
        [
            "teacher.engine.max_model_len=2000",
            "generate.shard_size=300",
            "generate.max_error_rate=0.2",
        ],
    )
    assert runner.execute(generate, config)
    assert runner.execute(generate, config, prepare=work_queue.retry_errors)
    assert len(failures(workshop / "run" / "generate")) == 40
    assert len(list(read_records(workshop / "run" / "generate", Sample))) == 560


def test_retry_under_other_settings_is_refused_before_anything_is_done(workshop: Path) -> None:
    """A refusal must leave a finished stage finished."""
    config = load(workshop / "config.yaml", REFUSING)
    runner.execute(generate, config)
    before = failures(workshop / "run" / "generate")
    with pytest.raises(PipelineError, match="started from other settings"):
        runner.execute(
            generate,
            load(workshop / "config.yaml", ["teacher.top_p=0.5"]),
            prepare=work_queue.retry_errors,
        )
    assert failures(workshop / "run" / "generate") == before
    assert (workshop / "run" / "generate" / "manifest.json").exists()


def test_settings_can_change_while_all_has_failed(workshop: Path) -> None:
    """After a try without samples, other settings are accepted and old failures dropped."""
    with pytest.raises(PipelineError, match="requests failed"):
        runner.execute(generate, load(workshop / "config.yaml", ['teacher.replies=["!refuse"]']))
    assert runner.execute(generate, load(workshop / "config.yaml", ["task.seeds.limit=20"]))
    assert len(list(read_records(workshop / "run" / "generate", Sample))) == 40


def test_template_error_is_one_rows_error(workshop: Path) -> None:
    """A row without the prompt's input, late in the file, fails alone."""
    path = workshop / "seeds.jsonl"
    path.write_text(path.read_text().replace('"number": 25', '"nummer": 25'))
    assert runner.execute(generate, load(workshop / "config.yaml"))
    assert failures(workshop / "run" / "generate") == {
        "n25/0": "template_error",
        "n25/1": "template_error",
    }


def test_mostly_failing_run_stops_early(workshop: Path) -> None:
    """A wrong setting must not cost a night: the first rows show it."""
    write_seeds(workshop / "seeds.jsonl", range(5000))
    config = load(workshop / "config.yaml", ['teacher.replies=["!refuse"]'])
    with pytest.raises(
        PipelineError, match=r"32 of 32 requests failed, .*max_error_rate=0.1.*told to refuse"
    ):
        runner.execute(generate, config)
    assert len(failures(workshop / "run" / "generate")) < 100


def test_run_in_which_all_fails_is_no_success(workshop: Path) -> None:
    """Too few rows for an error rate, and no answer at all, must still be an error."""
    config = load(workshop / "config.yaml", ['teacher.replies=["!refuse"]', "task.seeds.limit=3"])
    with pytest.raises(PipelineError, match=r"no request got an answer \(refused"):
        runner.execute(generate, config)


@pytest.mark.parametrize("damaged", ["the seeds' own", "the first retry", "the second retry"])
def test_repair_of_what_was_retried_twice(workshop: Path, damaged: str) -> None:
    """A sample that failed twice has a place in three shards.

    Only the last may store it, whichever is repaired.
    """
    folder = workshop / "run" / "generate"
    config = load(workshop / "config.yaml", REFUSING)
    runner.execute(generate, config)
    first = len(list(folder.glob("0*.jsonl.gz")))
    failed = failures(folder)
    runner.execute(generate, config, prepare=work_queue.retry_errors)
    assert failures(folder) == failed
    work_queue.retry_errors(contract.Job(config, "generate", "", folder))
    generate.run(answering(config))
    first_shard = next(
        path
        for path in sorted((folder / "errors" / "retried").glob("0*.jsonl"))
        if next(iter(failed)) in path.read_text()
    ).stem
    shard = {
        "the seeds' own": first_shard,
        "the first retry": f"{first:05d}",
        "the second retry": f"{first + 1:05d}",
    }[damaged]
    before = tree(folder)
    (folder / f"{shard}.jsonl.gz").write_bytes(b"damaged")
    assert len(list(repair(workshop / "run"))) == 1
    generate.run(answering(config))
    ids = [sample.id for sample in read_records(folder, Sample)]
    assert len(ids) == len(set(ids)) == 60
    assert tree(folder).keys() == before.keys()
    if damaged != "the seeds' own":  # their replies were those of the refusing teacher
        assert tree(folder) == before
