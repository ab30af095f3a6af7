"""Options of training: held-out rows, stopping, several processes, and settings that must not
change the result."""

import dataclasses
import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from pipeline.config import Config, load
from pipeline.data import prompts
from pipeline.errors import PipelineError
from pipeline.execution import contract, manifest, runner
from pipeline.models.tokenizer import Tokenizer
from pipeline.models.weights import load_weights
from pipeline.records import Seed
from pipeline.stages import train
from pipeline.training import distributed
from pipeline.training.callbacks import runaway, since_best
from pipeline.training.dataset import is_held_out
from pipeline.training.validation import Examiner
from tests.support.training import history, losses, prepared

FAST = ("train.batch_size=4", "train.log_steps=1", "train.epochs=2", "train.learning_rate=0.003")


def folder_of(config: Config, arm: str = "kd") -> Path:
    return Path(config.run_dir) / "train" / arm


def logged(config: Config, key: str = "eval_loss", arm: str = "kd") -> list[float]:
    return [entry[key] for entry in history(config, arm) if key in entry]


def unfinish(folder: Path, last: int) -> None:
    """Remove from a finished arm its model and its `last` checkpoints, as if it had been killed."""
    steps = sorted(
        folder.glob("checkpoints/checkpoint-*"), key=lambda path: int(path.name.split("-")[1])
    )
    for path in steps[len(steps) - last :]:
        shutil.rmtree(path)
    shutil.rmtree(folder / "model")
    (folder / "manifest.json").unlink()


def again(workshop: Path, *overrides: str, arm: str = "kd") -> Config:
    """Train the arm again from the same start under other settings."""
    config = load(workshop / "config.yaml", [*FAST, *overrides])
    runner.execute(train, config, [arm], prepare=runner.archive)
    return config


def trained(workshop: Path, *overrides: str) -> Config:
    config = prepared(workshop, *FAST, *overrides)
    runner.execute(train, config, ["init", "kd"])
    return config


def test_the_same_seeds_are_held_out_of_every_arm(workshop: Path) -> None:
    """Arms that hold out different rows cannot be compared. A seed whose sample was trained on is
    not held out."""
    truth = "method: sft, text: truth"
    arms = f"train.arms={{kd: {{}}, truth: {{{truth}}}, few: {{{truth}, limit: 5}}}}"
    config = prepared(workshop, "train.holdout=0.3", "train.batch_size=64", arms)
    runner.execute(train, config)
    counts = {
        arm: manifest.read_manifest(Path(config.run_dir), f"train/{arm}")["counts"]
        for arm in config.train.arms
    }
    held = sum(is_held_out(f"n{number}", 0.3) for number in range(30))
    assert (counts["truth"]["held_out"], counts["truth"]["rows"]) == (held, 30 - held)
    assert (counts["few"]["held_out"], counts["few"]["rows"]) == (held, 5)
    share = sum(is_held_out(f"seed {number}", 0.3) for number in range(2000)) / 2000
    assert abs(share - 0.3) < 0.03
    small = [f"{number}" for number in range(100) if is_held_out(f"{number}", 0.2)]
    assert all(is_held_out(seed, 0.5) for seed in small)


def test_held_out_loss_is_the_mean_over_tokens(workshop: Path) -> None:
    """A mean over batches changed with the batch size; without learning, a loss must not change."""
    options = ["train.holdout=0.4", "train.learning_rate=1e-12", "train.eval_steps=2"]
    values = logged(trained(workshop, *options))
    assert len(values) > 1
    assert values == pytest.approx([values[0]] * len(values), rel=1e-5)
    packed = again(workshop, *options, "train.batch_size=5", "train.packing=true")
    assert logged(packed)[0] == pytest.approx(values[0], rel=1e-5)


def test_patience_stops_and_the_best_weights_are_saved(workshop: Path) -> None:
    """The last weights of a student that got worse were saved as the best."""
    options = [
        "train.holdout=0.4",
        "train.eval_steps=1",
        "train.patience=2",
        "train.learning_rate=0.1",
        "train.epochs=30",
        "train.warmup=0",
    ]
    config = trained(workshop, *options)
    values = logged(config)
    counts = manifest.read_manifest(Path(config.run_dir), "train/kd")["counts"]
    best = values.index(min(values)) + 1
    assert (counts["saved_step"], counts["steps"]) == (best, best + 2)
    assert counts["held_out_loss"] == pytest.approx(min(values), abs=1e-6)
    saved, kept = (
        load_weights(str(folder_of(config) / name), None, torch.float32)
        for name in ("model", f"checkpoints/checkpoint-{best}")
    )
    assert all(
        torch.equal(weight, best_weight)
        for weight, best_weight in zip(saved.parameters(), kept.parameters(), strict=True)
    )


def test_an_arm_that_ran_out_of_patience_makes_no_step_more(workshop: Path) -> None:
    """Killed between its last step and its model, an arm made one more step after the restart."""
    options = [
        "train.eval_steps=1",
        "train.patience=2",
        "train.learning_rate=0.1",
        "train.epochs=30",
        "train.warmup=0",
    ]
    config = trained(workshop, "train.holdout=0.4", "train.save_steps=1", *options)
    folder = folder_of(config)
    curve, held_out = losses(config, "kd"), logged(config)
    weights = (folder / "model" / "model.safetensors").read_bytes()
    unfinish(folder, last=0)
    runner.execute(train, config, ["kd"])
    assert (losses(config, "kd"), logged(config)) == (curve, held_out)
    assert (folder / "model" / "model.safetensors").read_bytes() == weights


def test_a_clusters_rank_is_none_of_ours(workshop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under RANK an arm ended without a model; under LOCAL_RANK it waited for other processes."""
    for name, value in (("RANK", "1"), ("LOCAL_RANK", "1"), ("WORLD_SIZE", "2")):
        monkeypatch.setenv(name, value)
    config = trained(workshop, "train.epochs=1")
    assert (folder_of(config) / "model" / "model.safetensors").exists()


def test_a_student_answers_held_out_seeds_as_it_learns(
    workshop: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The score that chooses the weights must be that of the answers in samples.jsonl."""
    options = ["train.holdout=0.3", "train.eval_steps=4", "train.patience=9", "train.best_by=score"]
    config = trained(workshop, *options, "evaluate.max_tokens=12")
    lines = [
        json.loads(line) for line in (folder_of(config) / "samples.jsonl").read_text().splitlines()
    ]
    held = {f"n{number}" for number in range(30) if is_held_out(f"n{number}", 0.3)}
    steps = sorted({line["step"] for line in lines})
    for step, score in zip(steps, logged(config, "eval_score"), strict=True):
        answers = [line for line in lines if line["step"] == step]
        assert {line["id"] for line in answers} <= held
        assert score == pytest.approx(sum(line["score"] for line in answers) / len(answers))
    assert "truth: " in capfd.readouterr().out


@pytest.mark.parametrize("stop", ["\n", "is it"])
def test_answers_in_a_batch_are_those_of_one_at_a_time(workshop: Path, stop: str) -> None:
    """Left padding that is attended to, or an answer that continues after its stop because another
    in the batch does, changes the answers."""
    config = trained(workshop, "train.epochs=15", "train.learning_rate=0.01")
    path = train.student_path(Path(config.run_dir), "kd")
    model = load_weights(path, None, torch.float32).eval()
    tokenizer, prompt = Tokenizer(path), prompts.load(config.train.prompt)
    prompt = dataclasses.replace(prompt, front=prompt.front.model_copy(update={"stop": [stop]}))
    seeds = [
        Seed(id=f"n{number}", inputs={"number": number}, target="yes") for number in (7, 123456, 28)
    ]
    answers = Examiner(tokenizer, prompt, config.task, 24, batch_size=3).ask(model, seeds)
    for seed, answer in zip(seeds, answers, strict=True):
        assert answer.id == seed.id
        ids = tokenizer.encode(prompt.render(seed))
        begin = len(ids)
        while (
            len(ids) < begin + 24
            and ids[-1] != tokenizer.hf.eos_token_id
            and stop not in tokenizer.decode(ids[begin:])
        ):
            ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
        text = tokenizer.decode(ids[begin:])
        if stop in text:
            text = text[: text.find(stop) + len(stop)]
        assert answer.text == text


def test_score_needs_ground_truth(workshop: Path) -> None:
    """Without ground truth there is no score; the error must come before the first step."""
    rows = [json.loads(line) for line in (workshop / "seeds.jsonl").read_text().splitlines()]
    (workshop / "seeds.jsonl").write_text(
        "".join(json.dumps({"id": row["id"], "number": row["number"]}) + "\n" for row in rows)
    )
    config = prepared(workshop, "train.holdout=0.3", "train.patience=1", "train.best_by=score")
    with pytest.raises(PipelineError, match="best_by: score needs ground truth"):
        runner.execute(train, config, ["init", "kd"])


def test_too_small_a_share_is_refused(workshop: Path) -> None:
    """A held-out loss over no rows was 0."""
    config = prepared(workshop, "train.holdout=0.0001")
    with pytest.raises(PipelineError, match=r"holdout=0\.0001 holds out none"):
        runner.execute(train, config, ["init", "kd"])


def test_a_loss_that_is_no_number_stops_the_arm(
    workshop: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """NaN was averaged away and saved. The last good checkpoint stays, and a rerun starts there and
    says why."""
    config = prepared(
        workshop, *FAST, "train.learning_rate=1e38", "train.save_steps=1", "train.warmup=0.5"
    )
    for _ in range(2):
        with pytest.raises(
            PipelineError,
            match=r"step 3: a weight is not finite; lower train\.learning_rate.*checkpoint-2, "
            "from which",
        ):
            runner.execute(train, config, ["init", "kd"])
        assert {path.name for path in folder_of(config).glob("checkpoints/checkpoint-*")} == {
            "checkpoint-1",
            "checkpoint-2",
        }
    assert "stopped at step 3 the last time: a weight is not finite" in capfd.readouterr().out
    assert not (folder_of(config) / "model").exists()
    late = load(workshop / "config.yaml", [*FAST, "train.learning_rate=1e38", "train.warmup=0.5"])
    with pytest.raises(
        PipelineError, match=r"step \d: the loss is nan; .* There is no checkpoint yet"
    ):
        runner.execute(train, late, ["kd"], prepare=runner.archive)


def test_a_loss_that_runs_away_stops_the_arm(workshop: Path) -> None:
    """A checkpoint saved while the loss is too high must not be continued from."""
    config = prepared(
        workshop, *FAST, "train.learning_rate=3", "train.save_steps=1", "train.warmup=0"
    )
    with pytest.raises(
        PipelineError,
        match=r"step 4: the loss is .*, for 3 logged steps far above its first, .*checkpoint-1, "
        "from which",
    ):
        runner.execute(train, config, ["init", "kd"])
    assert losses(config, "kd")[1] > 3 * losses(config, "kd")[0]
    assert [path.name for path in folder_of(config).glob("checkpoints/checkpoint-*")] == [
        "checkpoint-1"
    ]


@pytest.mark.parametrize(
    ("values", "warmup", "expected"),
    [
        ([2.0, 1.0, 9.0, 9.0, 9.0], 0, 3),
        ([2.0, 9.0, 9.0, 1.0, 9.0], 0, 1),
        ([2.0, 9.0, 9.0, 9.0], 2, 2),
        ([0.01, 0.2, 0.3, 0.2], 0, 0),  # a student that began at its teacher
        ([2.0, 5.9, 5.9, 5.9], 0, 0),
        ([], 0, 0),
    ],
)
def test_runaway_counts_logs_in_a_row(values: list[float], warmup: int, expected: int) -> None:
    """A spike, a warm-up, or a first loss near 0 is not divergence."""
    history = [{"step": float(step), "loss": loss} for step, loss in enumerate(values, start=1)]
    assert runaway(history, warmup) == expected


def test_since_best_takes_the_first_of_equals() -> None:
    """A score that stays the same does not improve."""
    assert since_best([0.5, 0.7, 0.7], greater=True) == 1
    assert since_best([3.0, 2.0, 2.5], greater=False) == 1
    assert since_best([], greater=True) == 0


def test_stopped_arm_goes_on_alike_with_everything_on(workshop: Path) -> None:
    """Packing, evaluation and a schedule must each resume on the same curve."""
    options = [
        "train.packing=true",
        "train.max_length=128",
        "train.batch_size=1",
        "train.epochs=4",
        "train.save_steps=3",
    ]
    options += [
        "train.holdout=0.3",
        "train.eval_steps=2",
        "train.show=2",
        "train.arms={kd: {alpha: 0.9, alpha_end: 0.1, temperature_end: 2}}",
    ]
    config = trained(workshop, *options, "evaluate.max_tokens=8")
    folder, curve, held_out = folder_of(config), losses(config, "kd"), logged(config)
    answers = (folder / "samples.jsonl").read_text()
    unfinish(folder, last=1)
    runner.execute(train, config, ["kd"])
    assert losses(config, "kd") == pytest.approx(curve, rel=1e-5)
    assert logged(config) == pytest.approx(held_out, rel=1e-5)
    assert (folder / "samples.jsonl").read_text() == answers


@pytest.mark.parametrize(
    "options",
    [
        ["train.group_by_length=true"],
        ["train.group_by_length=true", "train.processes=2", "train.batch_size=2"],
    ],
)
def test_stopped_arm_goes_on_alike_in_a_later_epoch(workshop: Path, options: list[str]) -> None:
    """After a resume, a later epoch had a new row order or that of the first epoch, and tokens were
    counted from 0 again."""
    config = trained(workshop, *options, "train.epochs=3", "train.save_steps=2")
    before, tokens = losses(config, "kd"), logged(config, "num_tokens")
    unfinish(folder_of(config), last=1)
    runner.execute(train, config, ["kd"])
    assert losses(config, "kd") == pytest.approx(before, rel=1e-5)
    assert logged(config, "num_tokens") == tokens


def test_what_saves_memory_changes_no_loss(workshop: Path) -> None:
    """Accumulation that averages the means of its batches, or a recomputed forward pass that
    differs, changes the loss."""
    arm = "train.arms={kd: {rationale_weight: 0.3}}"
    plain = losses(trained(workshop, arm, "train.batch_size=8"), "kd")
    recomputed = again(workshop, arm, "train.batch_size=8", "train.gradient_checkpointing=true")
    assert losses(recomputed, "kd") == pytest.approx(plain, rel=1e-5)
    accumulated = again(workshop, arm, "train.accumulate=2")
    assert losses(accumulated, "kd") == pytest.approx(plain, rel=1e-5)


def test_losses_of_arms_with_other_weights_can_be_compared(workshop: Path) -> None:
    """Tokens of weight 0 made a loss look small; an untrained student is equally bad at all."""
    arms = "train.arms={kd: {alpha: 0.1}, bare: {alpha: 0.1, rationale_weight: 0}}"
    config = prepared(
        workshop,
        *FAST,
        "train.holdout=0.4",
        "train.eval_steps=1",
        "train.learning_rate=1e-12",
        arms,
    )
    runner.execute(train, config, ["init", "kd", "bare"])
    for key in ("loss", "loss_ce", "eval_loss", "eval_loss_ce"):
        assert logged(config, key, "bare")[0] == pytest.approx(logged(config, key)[0], rel=0.1)


def test_bfloat16_goes_with_packing_and_checkpointing(workshop: Path) -> None:
    """Each works alone; together they failed in the redirected forward."""
    options = [
        "train.packing=true",
        "train.max_length=128",
        "train.batch_size=1",
        "train.gradient_checkpointing=true",
        "train.epochs=3",
    ]
    curve = losses(trained(workshop, *options, "train.dtype=bfloat16"), "kd")
    assert curve[-1] < curve[0] < 12


def test_two_processes_train_as_one_with_their_batches_together(workshop: Path) -> None:
    """Gradients under DDP bypassed the redirected forward; tokens must be counted over all
    processes."""
    options = [
        "train.holdout=0.47",
        "train.eval_steps=2",
        "train.show=3",
        "train.save_steps=2",
        "evaluate.max_tokens=8",
        "train.epochs=3",
    ]
    options += ["train.arms={kd: {rationale_weight: 0.3}}"]
    one = trained(workshop, *options, "train.batch_size=8")
    curve, held_out, shares = losses(one, "kd"), logged(one), logged(one, "loss_kd")
    answers = (folder_of(one) / "samples.jsonl").read_text()
    two = again(
        workshop,
        *options,
        "train.batch_size=2",
        "train.accumulate=2",
        "train.processes=2",
        "train.gradient_checkpointing=true",
    )
    assert losses(two, "kd") == pytest.approx(curve, rel=1e-5)
    assert logged(two) == pytest.approx(held_out, rel=1e-5)
    assert logged(two, "loss_kd") == pytest.approx(shares, rel=1e-5)
    assert (folder_of(two) / "samples.jsonl").read_text() == answers
    (folder_of(two) / "manifest.json").unlink()
    with pytest.raises(PipelineError, match="was started with 2 processes, and here would be 1"):
        train.run(
            contract.Job(
                load(workshop / "config.yaml", [*FAST, *options]), "train", "kd", folder_of(two)
            )
        )


def test_workers_give_a_result_a_reason_or_die_together(tmp_path: Path) -> None:
    """After a worker died, the others waited for it forever."""
    assert (
        distributed.run_workers("tests.support.training_worker", {"do": "add"}, 2, "train kd") == 3
    )
    with pytest.raises(PipelineError, match="worker 0: refuses"):
        distributed.run_workers("tests.support.training_worker", {"do": "refuse"}, 2, "train kd")
    with pytest.raises(
        PipelineError,
        match=r"failed \(.*rank 1 with code 9, of 2 processes\); .* continues from the last "
        "checkpoint",
    ):
        distributed.run_workers("tests.support.training_worker", {"do": "die"}, 2, "train kd")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_no_worker_outlives_its_parent(tmp_path: Path, number: signal.Signals) -> None:
    """Orphans would write into a folder that the next command trains in."""
    job = {"do": "hang", "pids": str(tmp_path)}
    code = (
        "from pipeline.training import distributed; "
        f"distributed.run_workers('tests.support.training_worker', {job}, 2, 'x')"
    )
    parent = subprocess.Popen([sys.executable, "-c", code])
    while len(list(tmp_path.iterdir())) < 2 and parent.poll() is None:
        time.sleep(0.05)
    parent.send_signal(number)
    parent.wait(timeout=30)
    workers = [Path("/proc", path.name) for path in tmp_path.iterdir()]
    assert len(workers) == 2
    until = time.monotonic() + 20
    while any(path.exists() for path in workers) and time.monotonic() < until:
        time.sleep(0.05)
    assert not any(path.exists() for path in workers)
