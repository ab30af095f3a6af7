"""Healing of a cut student: it comes closer to its model, resumes, and refuses what cannot help."""

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.config import Config, load
from pipeline.data.vocabulary import Vocabulary
from pipeline.errors import PipelineError
from pipeline.execution import fingerprint, manifest, runner
from pipeline.inspection import validate
from pipeline.models.fake import TOKENIZER
from pipeline.models.tokenizer import Tokenizer
from pipeline.models.weights import load_config, load_weights
from pipeline.records import Rendered
from pipeline.stages import train
from pipeline.training.healing.distance import distances
from pipeline.training.healing.plan import plan, rate_factor
from tests.support.students import bpe, tiny
from tests.support.task import REPLIES
from tests.support.training import prepared

LAYERS = 6
HEAL = "student.heal={tokens: 4000, learning_rate: 0.005, rounds: %s}"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Save a model of six layers that has learned the replies of the task."""
    folder = tmp_path_factory.mktemp("whole")
    tokenizer = Tokenizer(str(TOKENIZER))
    model = tiny("llama", num_hidden_layers=LAYERS, vocab_size=tokenizer.vocab_size)
    texts = [f"Is {n} even?\nAnswer:{REPLIES[n % 2]}" for n in range(30)]
    rows = [torch.tensor([tokenizer.encode(Rendered(None, text))]) for text in texts]
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for step in range(90):
        loss = model(rows[step % 30], labels=rows[step % 30]).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.save_pretrained(folder)
    tokenizer.save(folder)
    return folder


def healed(workshop: Path, whole: Path, rounds: int) -> tuple[Config, dict[str, Any]]:
    """Heal a student of two layers; return the config and the counts of train/init."""
    source = [f"student.model={whole}", "student.layers=2", HEAL % rounds]
    config = prepared(workshop, *source, "train.log_steps=1")
    runner.execute(train, config, ["init"])
    return config, manifest.read_manifest(Path(config.run_dir), "train/init")["counts"]


def curve(config: Config) -> list[dict[str, float]]:
    path = Path(config.run_dir) / "train" / "init" / "history.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()]


def init(config: Config) -> Path:
    return Path(config.run_dir) / "train" / "init"


@pytest.mark.parametrize("rounds", [1, 2])
def test_healing_brings_the_student_closer(workshop: Path, whole: Path, rounds: int) -> None:
    """A loss that falls on learned text, and a held-out distance that does not."""
    config, counts = healed(workshop, whole, rounds)
    found = counts["heal"]
    assert (counts["layers"], found["rounds"]) == ([0, 5], rounds)
    assert found["held_out_kl"] < 0.5 * found["held_out_kl_before"]
    assert found["loss_last"] < found["loss_first"]
    assert 4000 <= found["tokens"] < 4000 + rounds * 8 * 64
    model = load_weights(str(init(config) / "model"), None, torch.float32)
    assert model.config.num_hidden_layers == 2
    assert not list(init(config).glob("checkpoints/*/"))  # a gigabyte each, for a real model


def test_whole_model_has_no_distance_from_itself(whole: Path) -> None:
    """States of another layer, of padding, or before another norm would count as damage."""
    model = load_weights(str(whole), None, torch.float32)
    rows = [torch.arange(5, 15).int().numpy(), torch.arange(20, 23).int().numpy()]
    sums = distances(model, model, rows, range(LAYERS), torch.float32)
    assert sums.tolist() == [0.0, 0.0]
    other = tiny("llama", vocab_size=model.config.vocab_size)
    together = distances(other, model, rows, (), torch.float32)
    alone = [distances(other, model, [row], (), torch.float32) for row in rows]
    assert together[0].item() == pytest.approx(sum(one[0].item() for one in alone), rel=1e-4)


@pytest.mark.parametrize(("number", "save_steps"), [(signal.SIGKILL, 1), (signal.SIGTERM, 1000)])
def test_stopped_healing_continues_on_the_same_curve(
    workshop: Path, whole: Path, number: signal.Signals, save_steps: int
) -> None:
    """A checkpoint without the optimiser, the round or the order of the text changes the result."""
    expected, counts = healed(workshop, whole, 2)
    folder = workshop / "other"
    arguments = [f"student.model={whole}", "student.layers=2", HEAL % 2, "train.log_steps=1"]
    arguments += [f"run_dir={folder}", f"train.save_steps={save_steps}"]
    config = prepared(workshop, *arguments)
    command = [sys.executable, "-m", "pipeline", "train", str(workshop / "config.yaml"), *arguments]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr
    while "elapsed" not in process.stderr.readline():  # printed at the first step
        assert process.poll() is None
    if number == signal.SIGKILL:
        while not list(init(config).glob("checkpoints/checkpoint-*")):
            time.sleep(0.01)
    process.send_signal(number)
    process.communicate()
    assert process.returncode == (143 if number == signal.SIGTERM else -number)
    assert len(list(init(config).glob("checkpoints/checkpoint-*"))) in (1, 2)
    assert not (init(config) / "manifest.json").exists()
    runner.execute(train, config, ["init"])
    assert curve(config) == curve(expected)
    assert manifest.read_manifest(folder, "train/init")["counts"] == counts
    weights = [Path(path, "model", "model.safetensors") for path in (init(config), init(expected))]
    assert weights[0].read_bytes() == weights[1].read_bytes()


def test_trimmed_student_is_healed_with_its_own_tokens(workshop: Path, whole: Path) -> None:
    """The whole model must read the student's ids, and its probabilities be those of the kept
    tokens."""
    folder = workshop / "bpe"
    tokenizer = bpe(folder)
    tiny("llama", num_hidden_layers=3, vocab_size=tokenizer.vocab_size).save_pretrained(folder)
    text = workshop / "text"
    text.mkdir()
    (text / "a.txt").write_text("Is 3 even?\nAnswer: no, it is odd\n" * 200)
    rows = [{"text": f"Is {n} even?"} for n in range(20)]
    (text / "b.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = [f"student.model={folder}", "student.keep_layers=[0, 1]"]
    heal = f"student.heal={{tokens: 2000, text: {text}}}"
    arms = "train.arms={sft: {method: sft}}"
    config = prepared(
        workshop, *source, heal, arms, "student.trim_vocabulary=true", "train.max_length=64"
    )
    runner.execute(train, config, ["init", "sft"])
    counts = manifest.read_manifest(Path(config.run_dir), "train/init")["counts"]
    assert counts["heal"]["held_out_kl"] < counts["heal"]["held_out_kl_before"]
    vocabulary = Vocabulary.read(init(config) / "model")
    assert vocabulary
    assert len(vocabulary.kept) < tokenizer.vocab_size
    model_config = load_config(str(init(config) / "model"), None)
    assert model_config.vocab_size == len(vocabulary.kept)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["student.heal={}"], "heal distils a student without some layers from the whole one"),
        (
            ["student.heal={}", "student.model=random"],
            "heal distils a student without some layers from the whole one",
        ),
        (["student.heal={}", "student.layers=6"], "the student keeps all 6 layers"),
        (
            ["student.heal={text: nowhere}", "student.layers=2"],
            "student.heal.text: nowhere does not exist; give a file or folder of text",
        ),
        (
            ["student.heal={text: EMPTY}", "student.layers=2"],
            "EMPTY has no .txt or .jsonl file; put the text there",
        ),
    ],
)
def test_healing_that_cannot_help_is_refused(
    workshop: Path, whole: Path, overrides: list[str], message: str
) -> None:
    """Such a student was found to be unhealed after a night, or not at all."""
    empty = workshop / "empty"
    empty.mkdir()
    overrides = [text.replace("EMPTY", str(empty)) for text in overrides]
    with pytest.raises(PipelineError, match=re.escape(message.replace("EMPTY", str(empty)))):
        validate.check_config(
            load(workshop / "config.yaml", [f"student.model={whole}", *overrides])
        )


def test_healing_needs_the_samples_it_learns_from(workshop: Path, whole: Path) -> None:
    """Without samples the default text would be nothing at all."""
    source = [f"student.model={whole}", "student.layers=2"]
    config = load(workshop / "config.yaml", [*source, "student.heal={}"])
    with pytest.raises(PipelineError, match="init needs generate, which is not finished"):
        runner.execute(train, config, ["init"])


def test_only_a_healed_student_depends_on_healing(workshop: Path, whole: Path) -> None:
    """Runs from before student.heal must continue, and other text must heal again."""
    source = [f"student.model={whole}", "student.layers=2"]
    plain = fingerprint.fingerprint(train, prepared(workshop, *source), "init")
    assert not any(key.startswith(("train.", "output of")) for key in plain)
    before = {key: value for key, value in plain.items() if key != "student.heal"}
    assert fingerprint.differing(before, plain) == []
    heals = [prepared(workshop, *source, f"student.heal={{tokens: {n}}}") for n in (1000, 2000)]
    first, second = (fingerprint.fingerprint(train, config, "init") for config in heals)
    assert [line.split(":")[0].strip() for line in fingerprint.differing(first, second)] == [
        "student.heal.tokens"
    ]
    assert {"train.batch_size", "output of generate"} <= first.keys()


def test_price_of_a_cut_is_told_before_training(
    workshop: Path, whole: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """A cut of two thirds that nobody heals was our default, and nothing warned."""
    source = [f"student.model={whole}", "train.arms={sft: {method: sft}}"]

    def told(*overrides: str) -> str:
        config = load(workshop / "config.yaml", [*source, *overrides])
        return "\n".join(validate.check_config(config))

    assert "warning: student: the cut removes 4 of 6 layers (67%)" in told("student.layers=2")
    assert "cut: the cut removes 2 of 6 layers (33%)" in told("student.layers=4")
    assert "cut: the cut removes 4 of 6" in told("student.layers=2", "student.heal={}")
    assert "the cut removes" not in told()
    config = prepared(workshop, *source, "student.layers=2")
    runner.execute(train, config, ["init"])
    assert "or heal the cut with student.heal={}" in capfd.readouterr().err


def test_rounds_share_the_tokens_and_each_has_its_own_schedule() -> None:
    """A last round without tokens would leave the final cut unhealed."""
    lengths = [4, 5, 6, 7] * 5
    found = plan(lengths, [[0, 1, 2], [0, 2]], 600, 4, 0)
    learned = [sum(lengths[number] for batch in part.batches for number in batch) for part in found]
    assert all(300 <= tokens < 300 + 4 * 7 for tokens in learned)
    seen = [number for part in found for batch in part.batches for number in batch]
    assert sorted(seen[:20]) == sorted(seen[20:40]) == list(range(20))
    rates = [rate_factor(step, 100) for step in range(100)]
    assert max(rates) == 1.0
    assert rates[0] == pytest.approx(0.2)
    assert 0.1 <= rates[-1] < 0.11
