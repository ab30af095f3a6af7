"""Fidelity of students: against dense logits, over forms and vocabularies, by the command."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.config import Config, load
from pipeline.errors import PipelineError
from pipeline.evaluation import fidelity as figures
from pipeline.evaluation.results import measured, results
from pipeline.evaluation.table import table
from pipeline.execution import runner
from pipeline.inspection import validate
from pipeline.losses.distillation import Logits, Teacher
from pipeline.losses.token_kl import most_likely, token_kl
from pipeline.models.tokenizer import Tokenizer
from pipeline.models.weights import load_weights
from pipeline.records import Faithful, Scored
from pipeline.stages import evaluate, fidelity, train
from pipeline.storage import topk
from pipeline.storage.shards import read_records
from pipeline.storage.topk import TopKFolder
from tests.support.processes import pipeline
from tests.support.task import write_seeds
from tests.support.topk import header
from tests.support.training import prepared, student_of_another_tokenizer

ON = "evaluate.fidelity={logprobs: 300}"


def answered(workshop: Path, *overrides: str) -> Config:
    """Make a run with trained students and all answers, before fidelity is measured."""
    config = prepared(workshop, ON, *overrides)
    for module in (train, evaluate):
        runner.execute(module, config)
    return config


def read(config: Config, part: str) -> dict[str, Faithful]:
    return {one.id: one for one in read_records(Path(config.run_dir) / "fidelity" / part, Faithful)}


@pytest.mark.parametrize(
    "logits", [Logits(), Logits(scale=0.5, softcap=3.0, bias=torch.linspace(-1, 1, 50))]
)
def test_kl_and_likeliest_are_the_dense_ones(logits: Logits) -> None:
    """With the whole vocabulary as entries the KL is exact; a tail hides part of it, adds none."""
    random = torch.Generator().manual_seed(0)
    hidden, weight = torch.randn(7, 16, generator=random), torch.randn(50, 16, generator=random)
    z = logits.scale * (hidden @ weight.T + (0.0 if logits.bias is None else logits.bias))
    z = z if logits.softcap is None else logits.softcap * torch.tanh(z / logits.softcap)
    p = torch.randn(7, 50, generator=random).mul(2).log_softmax(1)
    ids = p.argsort(dim=1, descending=True)
    whole = Teacher(
        ids,
        p.gather(1, ids),
        torch.full((7,), -torch.inf),
        torch.full((7,), 50),
        torch.ones(7, dtype=torch.bool),
    )
    dense = (p.exp() * (p - z.log_softmax(1))).sum(dim=1)
    assert torch.allclose(token_kl(hidden, weight, whole, logits), dense, atol=1e-5)
    part = Teacher(
        ids[:, :5],
        whole.logprobs[:, :5],
        torch.log1p(-whole.logprobs[:, :5].exp().sum(1)),
        whole.exact // 10,
        whole.known,
    )
    assert (token_kl(hidden, weight, part, logits) <= dense + 1e-5).all()
    assert torch.equal(most_likely(hidden, weight, logits), z.argmax(dim=1))


def test_a_tail_that_was_rounded_away_comes_back() -> None:
    """What rounded entries leave is no tail: it would count against a confident student."""
    logprobs = np.log(np.array([[0.97, 0.97, 0.02, 0.01 - 2e-6]], np.float32))
    ids = np.array([[5, 5, 8, 2]])
    exact = topk.tail_mass(ids, logprobs)
    assert exact == pytest.approx(2e-6, abs=2e-7)
    stored = topk.decode(
        topk.encode(ids, logprobs, header(k=3, mass=1.0, threshold=0.0), 0), [5], np.dtype("<u2")
    )
    mended = topk.with_tail(stored, exact)
    assert np.exp(mended.tail) == pytest.approx(exact)
    assert np.exp(mended.logprobs).sum() == pytest.approx(1.0 - 2e-6, abs=1e-6)
    assert np.exp(mended.logprobs[0]) == pytest.approx([0.97, 0.02, 0.01], rel=0.06)


def test_every_seed_is_measured_as_its_dense_logits_say(workshop: Path) -> None:
    """Prompts, padding, shifts, frames and batches give the figures of one answer at a time."""
    write_seeds(workshop / "eval.jsonl", range(100, 120))  # more than one batch
    config = answered(workshop)
    runner.execute(fidelity, config)
    run_dir, found = Path(config.run_dir), read(config, "kd")
    path = train.student_path(run_dir, "kd")
    model, tokenizer, frames = (
        load_weights(path, None, torch.float32),
        Tokenizer(path),
        TopKFolder(run_dir / "evaluate" / "teacher"),
    )
    answers = list(read_records(run_dir / "evaluate" / "teacher", Scored))
    assert set(found) == {answer.seed_id for answer in answers}
    for answer in answers:
        assert answer.token_ids is not None
        assert answer.frame is not None
        begin = tokenizer.hf(f"Is {answer.seed_id[1:]} even?\nAnswer:")["input_ids"]
        student = (
            model(torch.tensor([begin + answer.token_ids]))
            .logits[0, len(begin) - 1 : -1]
            .log_softmax(1)
        )
        stored = frames.frame(answer.frame, answer.token_ids)
        p = torch.full_like(student, -torch.inf).scatter(
            1, torch.tensor(stored.ids), torch.tensor(stored.logprobs)
        )
        p = p.log_softmax(
            1
        )  # the file's entries are rounded, and here there is nothing beside them
        nats = torch.where(p == -torch.inf, 0.0, p.exp() * (p - student)).sum().item()
        one = found[answer.seed_id]
        assert (one.tokens, one.same) == (
            len(answer.token_ids),
            int((student.argmax(1) == torch.tensor(answer.token_ids)).sum()),
        )
        assert one.nats == pytest.approx(nats, rel=1e-4)


def test_a_student_that_says_what_the_teacher_says(workshop: Path) -> None:
    """Fake students repeat the fake teacher's answer to the same prompt: then overlap is 1."""
    config = answered(workshop)
    runner.execute(fidelity, config)
    texts = [
        {
            one.seed_id: one.text
            for one in read_records(Path(config.run_dir) / "evaluate" / name, Scored)
        }
        for name in ("teacher", "kd")
    ]
    for name, one in read(config, "kd").items():
        assert (one.rouge_l == pytest.approx(1.0)) == (texts[0][name] == texts[1][name])
        assert 0.0 < one.chrf <= 1.0


def test_what_was_measured_is_not_measured_again(workshop: Path) -> None:
    """After a kill between two batches only the rest is measured; nothing is lost or doubled."""
    config = answered(workshop)
    runner.execute(fidelity, config)
    before = read(config, "sft")
    folder = Path(config.run_dir) / "fidelity" / "sft"
    (folder / "manifest.json").unlink()
    (folder / "00000.jsonl.gz").unlink()
    kept = list(before.values())[:3]
    (folder / "00000.journal.jsonl").write_bytes(b"".join(one.to_line() for one in kept))
    assert runner.execute(fidelity, config)
    assert {name: one.tokens for name, one in read(config, "sft").items()} == {
        name: one.tokens for name, one in before.items()
    }


def test_forms_and_vocabularies_that_lack_an_answer_are_counted(workshop: Path) -> None:
    """A student trained on answers alone is measured on those; missing tokens are counted."""
    config = answered(
        workshop, "student.trim_vocabulary=true", "train.arms={whole: {}, answer: {form: answer}}"
    )
    runner.execute(fidelity, config)
    whole, answer = read(config, "whole"), read(config, "answer")
    assert all(0 < answer[name].tokens < whole[name].tokens for name in whole)
    lost = [
        whole["n100"].model_copy(update={"tokens": 0, "nats": 0.0}),
        Faithful(id="x", tokens=4, nats=2.0, same=1, rouge_l=1.0, chrf=1.0),
    ]
    found = figures.figures(lost)
    assert found.kl is not None
    assert (found.left_out, found.tokens, found.kl.mean, found.top1) == (1, 4, 0.5, 0.25)
    assert figures.figures(lost[:1]).kl is None


def test_results_compare_by_seeds_that_all_have(workshop: Path) -> None:
    """KL is paired by held-out example as scores are, and is in the table only where measured."""
    config = answered(workshop)
    names = evaluate.parts(config)
    before = results(config, measured(config, names), figures.readings(config, names))
    assert before.models["kd"].fidelity is None
    assert "KL" not in table(before)
    runner.execute(fidelity, config)
    found = results(config, measured(config, names), figures.readings(config, names))
    assert found.models["teacher"].fidelity is None
    kd, sft = (found.models[name].fidelity for name in ("kd", "sft"))
    difference = found.differences["kd - sft"].kl
    assert kd is not None
    assert sft is not None
    assert kd.kl is not None
    assert sft.kl is not None
    assert difference is not None
    assert difference.mean == pytest.approx(kd.kl.mean - sft.kl.mean)
    assert "kl" not in found.differences["kd - teacher"].model_dump(exclude_unset=True)
    assert "chrF to teacher" in table(found)


@pytest.mark.parametrize("there", [5, 8])
def test_teacher_that_was_killed_keeps_its_frames(workshop: Path, there: int) -> None:
    """Frames from before and after a kill make one file, with some answers or all unsealed."""
    config = prepared(workshop, ON)
    runner.execute(evaluate, config, ["teacher"])
    folder, journal = Path(config.run_dir) / "evaluate" / "teacher", "00000.journal.topk"
    lines = []
    for record in list(read_records(folder, Scored))[:there]:
        assert record.frame is not None
        lines.append(
            record.model_copy(
                update={"frame": record.frame.model_copy(update={"file": journal})}
            ).to_line()
        )
    (folder / "00000.topk").rename(folder / journal)
    for name in ("00000.jsonl.gz", "manifest.json"):
        (folder / name).unlink()
    (folder / "00000.journal.jsonl").write_bytes(b"".join(lines))
    runner.execute(evaluate, config, ["teacher"])
    frames, answers = TopKFolder(folder), list(read_records(folder, Scored))
    assert len(answers) == 8
    for answer in answers:
        assert answer.frame is not None
        assert (
            frames.frame(answer.frame, answer.token_ids or []).ids[:, 0].tolist()
            == answer.token_ids
        )


def test_confidence_is_that_of_the_answers_tokens(workshop: Path) -> None:
    """Confidence is the product over the answer's tokens, without the rationale's."""
    config = answered(workshop)
    frames = TopKFolder(Path(config.run_dir) / "evaluate" / "teacher")
    for answer in read_records(frames.folder, Scored):
        assert answer.frame is not None
        assert answer.token_ids is not None
        assert answer.confidence is not None
        logprobs = frames.frame(answer.frame, answer.token_ids).logprobs[:, 0]
        begin = answer.text.index(str(answer.score.answer))  # the fake's tokens are bytes
        assert answer.confidence == pytest.approx(
            float(
                torch.tensor(logprobs)[begin : begin + len(str(answer.score.answer))].sum().exp()
            ),
            rel=0.1,
        )
    assert all(
        one.confidence for one in read_records(Path(config.run_dir) / "evaluate" / "kd", Scored)
    )


def test_student_of_another_tokenizer_is_refused(workshop: Path) -> None:
    """Token ids of another tokenizer are other words; the config is refused before any request."""
    config = prepared(workshop)
    other = student_of_another_tokenizer(config, workshop / "other")
    swapped = load(
        workshop / "config.yaml", [f"student.model={other}", ON, "train.arms={sft: {method: sft}}"]
    )
    with pytest.raises(PipelineError, match=r"evaluate.fidelity: the tokenizer of .* differs"):
        validate.check_config(swapped)
    server = [
        "teacher={backend: openai, model: m, base_url: 'http://127.0.0.1:9/v1', "
        "tokenizer: null, logprobs: 0}",
        "train.arms={sft: {method: sft}}", "evaluate.backend=vllm",
    ]  # fmt: skip
    with pytest.raises(PipelineError, match=r"evaluate.fidelity needs the teacher's token ids"):
        load(workshop / "config.yaml", [*server, ON])


def test_the_command_measures_when_all_have_answered(workshop: Path) -> None:
    """evaluate and run both measure fidelity; --model of one model does not wait for the others."""
    config, run = workshop / "config.yaml", workshop / "run"
    for name in ("generate", "filter", "train"):
        assert pipeline(name, config, ON).returncode == 0
    alone = pipeline("evaluate", config, ON, "--model", "teacher")
    assert (alone.returncode, (run / "fidelity").exists()) == (0, False)
    whole = pipeline("run", config, ON)
    assert whole.returncode == 0, whole.stderr
    assert (
        json.loads((run / "evaluate" / "results.json").read_text())["models"]["base"]["fidelity"][
            "tokens"
        ]
        > 0
    )
    assert "all stages are done already" in pipeline("run", config, ON).stdout
    assert "evaluate: done already" in pipeline("evaluate", config, ON).stdout
