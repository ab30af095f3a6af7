"""The score stage: the teacher's distributions over text of every source; training on them."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from pipeline.config import Config, load
from pipeline.errors import PipelineError
from pipeline.execution import manifest, runner
from pipeline.inspection.recheck import recheck
from pipeline.inspection.verify import verify
from pipeline.models.fake import TOKENIZER
from pipeline.models.tokenizer import Tokenizer
from pipeline.records import Sample
from pipeline.stages import filter as filter_stage
from pipeline.stages import generate, score, train
from pipeline.storage.samples import Samples
from pipeline.storage.shards import read_records
from pipeline.storage.topk import TopKFolder
from tests.support.openai_server import Reply, good, row, serving


def run(workshop: Path, *overrides: str) -> tuple[Config, list[Sample]]:
    config = load(workshop / "config.yaml", overrides)
    runner.execute(score, config)
    folder = Path(config.run_dir) / "score"
    samples = list(read_records(folder, Sample))
    frames = TopKFolder(folder)
    for sample in samples:
        assert sample.frame is not None
        assert frames.topk_of(sample).ids[:, 0].tolist() == sample.token_ids
        assert frames.file(sample.frame.file).header.stage == "score"
    return config, samples


@pytest.fixture
def filtered(workshop: Path) -> Config:
    config = load(
        workshop / "config.yaml", ["teacher.logprobs=0", "train.arms={sft: {method: sft}}"]
    )
    for module in (generate, filter_stage):
        runner.execute(module, config)
    return config


def test_kept_rows_are_scored_and_no_others(workshop: Path, filtered: Config) -> None:
    """Rejected rows must cost nothing, and generation needs no logprobs."""
    _, samples = run(workshop, "teacher.logprobs=0", "score.logprobs=6", "train.rows=score")
    kept = list(Samples(workshop / "run" / "filter" / "kept"))
    assert [(s.id, s.token_ids, s.answer_tokens, s.prompt_digest) for s in samples] == [
        (s.id, s.token_ids, s.answer_tokens, s.prompt_digest) for s in kept
    ]
    assert len(samples) < 60


def test_kept_rows_are_scored_behind_the_prompt_that_they_were_asked_with(
    workshop: Path, filtered: Config
) -> None:
    """An edited prompt file or a shorter list must not put other words before the same reply."""
    prompt = workshop / "prompt.md"
    prompt.write_text(prompt.read_text().replace("Is {{", "Would you say that {{"))
    _, samples = run(workshop, "teacher.logprobs=0", "score.logprobs=6", "train.rows=score")
    asked = {s.id: s.prompt_digest for s in read_records(workshop / "run" / "generate", Sample)}
    assert all(sample.prompt_digest == asked[sample.id] for sample in samples)


def test_kept_rows_are_scored_by_a_teacher_of_another_tokenizer(
    workshop: Path, filtered: Config
) -> None:
    """The kept text is tokenised anew; the other teacher's ids must not be taken for this one's."""
    folder = workshop / "tokenizer"
    shutil.copytree(TOKENIZER, folder)
    tree = json.loads((folder / "tokenizer.json").read_text())
    vocab = tree["model"]["vocab"]
    vocab["e"], vocab["Ġ"] = vocab["Ġ"], vocab["e"]
    (folder / "tokenizer.json").write_text(json.dumps(tree))

    def reply(body: Any, times: int) -> Reply:
        return good(
            prompt_logprobs=[None, *(row((token, -0.5), (9, -1.0)) for token in body["prompt"][1:])]
        )

    with serving(reply) as server:
        options = [
            "teacher.backend=openai",
            f"teacher.base_url={server.url}",
            f"teacher.tokenizer={folder}",
            "score.logprobs=2",
        ]
        _, samples = run(workshop, "teacher.logprobs=0", "train.rows=score", *options)
    kept = {s.id: s for s in Samples(workshop / "run" / "filter" / "kept")}
    own = Tokenizer(str(folder))
    assert [(s.id, s.text, s.answer) for s in samples] == [
        (s.id, s.text, s.answer) for s in kept.values()
    ]
    made = [
        (s.token_ids, own.encode_reply(s.text)[:-1], (kept[s.id].token_ids or [])[:-1])
        for s in samples
    ]  # a stop text ends them
    assert all(ids == anew != others for ids, anew, others in made)


def test_student_learns_from_scored_rows(workshop: Path, filtered: Config) -> None:
    """train reads either stage; kd works with logprobs that only score made."""
    config, samples = run(workshop, "teacher.logprobs=0", "score.logprobs=6", "train.rows=score")
    runner.execute(train, config)
    counts = manifest.read_manifest(workshop / "run", "train/kd")["counts"]
    assert counts["rows"] == len(samples)
    assert counts["loss_kd"] > 0


def test_ground_truth_is_scored_as_a_reply(workshop: Path) -> None:
    """The teacher scores the right answer in the form that its prompt asks for."""
    prompt = workshop / "prompt.md"
    prompt.write_text(
        prompt.read_text().replace("---\nIs", 'target: " {target}, so it is\\n"\n---\nIs')
    )
    _, samples = run(workshop, "score.source=targets")
    assert [(s.id, s.text, s.answer) for s in samples[:2]] == [
        ("n0/0", " yes, so it is\n", "yes"),
        ("n1/0", " no, so it is\n", "no"),
    ]


def test_seed_without_ground_truth_is_one_rows_error(workshop: Path) -> None:
    """One row without ground truth must not end the stage."""
    path = workshop / "seeds.jsonl"
    path.write_text(path.read_text().replace(', "target": "no"}', "}", 1))
    _, samples = run(workshop, "score.source=targets")
    assert len(samples) == 29
    assert manifest.read_manifest(workshop / "run", "score")["counts"]["failed"] == 1


def test_another_runs_samples_are_scored(workshop: Path, filtered: Config) -> None:
    """Samples of another teacher, or of a student that is a run's teacher, can be scored."""
    _, samples = run(workshop, f"run_dir={workshop / 'other'}", f"score.source={workshop / 'run'}")
    made = list(read_records(workshop / "run" / "generate", Sample))
    assert [(s.id, s.token_ids) for s in samples] == [(s.id, s.token_ids) for s in made]


def test_source_that_is_not_there(workshop: Path) -> None:
    """The most common mistake says what to do."""
    with pytest.raises(
        PipelineError,
        match="score needs generate, which is not finished; run pipeline generate first",
    ):
        run(workshop)
    with pytest.raises(PipelineError, match=r"nowhere/generate/manifest\.json: no such file"):
        run(workshop, "score.source=nowhere")


def test_stored_distributions_are_held_against_a_fresh_pass(
    workshop: Path, filtered: Config
) -> None:
    """The fake gives the same logprobs each time, so only rounding in storage may differ."""
    run(
        workshop,
        "teacher.logprobs=0",
        "score.logprobs=6",
        "train.rows=score",
        "teacher.logprob_threshold=0",
    )
    line = recheck(workshop / "run", "score", 10)
    assert "10 samples" in line
    stored, again = (
        float(part.split()[0]) for part in (line.split("fresh) ")[1], line.split("passes ")[1])
    )
    assert stored < 0.01
    assert again == 0.0
    with pytest.raises(PipelineError, match="has no logprobs"):
        recheck(workshop / "run", "generate", 10)
    assert any(
        text.startswith("score ") and "exact entries" in text for text in verify(workshop / "run")
    )


def test_several_prompts_a_seed(workshop: Path) -> None:
    """Every prompt asks each seed, and the filter reads a sample by the rules of its own prompt."""
    other = (
        (workshop / "prompt.md")
        .read_text()
        .replace('rationale: {start: ",", end: "\\n"}\n', "")
        .replace("Is {{", "Say if {{")
    )
    (workshop / "other.md").write_text(other)
    prompts = json.dumps([str(workshop / "prompt.md"), str(workshop / "other.md")])
    config = load(workshop / "config.yaml", [f"generate.prompt={prompts}"])
    runner.execute(generate, config)
    samples = list(read_records(workshop / "run" / "generate", Sample))
    assert [(s.id, s.prompt) for s in samples[:4]] == [
        ("n0/0", 0),
        ("n0/1", 0),
        ("n0/2", 1),
        ("n0/3", 1),
    ]
    assert samples[0].prompt_digest == samples[1].prompt_digest != samples[2].prompt_digest
    assert samples[0].rationale is not None
    assert samples[2].rationale is None
    runner.execute(filter_stage, config)
    assert {s.prompt for s in Samples(workshop / "run" / "filter" / "kept")} == {0, 1}
