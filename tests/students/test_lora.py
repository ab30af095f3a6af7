"""LoRA: only adapters learn, the saved student is an ordinary model, and errors come early."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.config import Lora, load
from pipeline.errors import PipelineError
from pipeline.inspection import validate
from pipeline.models.weights import load_weights
from pipeline.students import build
from pipeline.students import lora as adapters
from pipeline.training.trl_arguments import arithmetic
from tests.support.students import tiny

IDS = torch.arange(5, 29).view(2, 12)
LORA = "student.lora={rank: 4}"


@pytest.fixture
def start(tmp_path: Path) -> str:
    tiny("llama", hidden_size=64, intermediate_size=128).save_pretrained(tmp_path / "start")
    return str(tmp_path / "start")


def trained(model: Any, steps: int = 3) -> Any:
    """Train a few steps on body and head as the trainer uses them."""
    optimizer = torch.optim.AdamW(
        [weight for weight in model.parameters() if weight.requires_grad], lr=1e-2
    )
    for _ in range(steps):
        hidden = adapters.body(model.train())(input_ids=IDS).last_hidden_state
        logits = hidden[:, :-1] @ adapters.head(model).T.to(hidden.dtype)
        torch.nn.functional.cross_entropy(logits.flatten(0, 1), IDS[:, 1:].flatten()).backward()
        optimizer.step()
        optimizer.zero_grad()
    return model.eval()


def logits_of(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=IDS).logits


def test_only_adapters_learn(workshop: Path, start: str) -> None:
    """An lm_head or embedding that changes too is not LoRA; adapters without gradients learn
    nothing."""
    before = load_weights(start, None, torch.float32).state_dict()
    model = build.load_student(load(workshop / "config.yaml", [LORA]), start, None, torch.float32)
    learning = {name for name, weight in model.named_parameters() if weight.requires_grad}
    assert learning
    assert all(
        "lora_" in name and "lm_head" not in name and "embed" not in name for name in learning
    )
    assert {name.split(".lora_")[0].rpartition(".")[2] for name in learning} == {
        *("q_proj", "k_proj", "v_proj", "o_proj"),
        *("gate_proj", "up_proj", "down_proj"),
    }
    after = adapters.merged(trained(model)).state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {name for name in before if "_proj" in name}


def test_merged_model_is_an_ordinary_one_with_the_same_logits(
    workshop: Path, start: str, tmp_path: Path
) -> None:
    """The saved model must be the trained one, in a folder that needs no peft."""
    model = trained(
        build.load_student(load(workshop / "config.yaml", [LORA]), start, None, torch.float32)
    )
    before = logits_of(model)
    adapters.merged(model).save_pretrained(tmp_path / "out")
    assert not (tmp_path / "out" / "adapter_config.json").exists()
    after = logits_of(load_weights(str(tmp_path / "out"), None, torch.float32))
    assert torch.allclose(before, after, atol=1e-5)
    assert not torch.allclose(
        before, logits_of(load_weights(start, None, torch.float32)), atol=1e-2
    )


@pytest.mark.parametrize("lora", [None, LORA])
def test_body_and_head_make_the_models_logits(workshop: Path, start: str, lora: str | None) -> None:
    """A body without its adapters would train on the wrong states."""
    model = trained(
        build.load_student(
            load(workshop / "config.yaml", [lora] if lora else []), start, None, torch.float32
        )
    )
    with torch.no_grad():
        states = adapters.body(model)(input_ids=IDS).last_hidden_state
    assert torch.allclose(states @ adapters.head(model).T, logits_of(model), atol=1e-5)
    if lora is None:
        assert adapters.merged(model) is model


def test_gradient_checkpointing_reaches_the_adapters(workshop: Path, start: str) -> None:
    """With every input frozen, checkpointed blocks had no gradient."""
    model = build.load_student(
        load(workshop / "config.yaml", [LORA]), start, None, torch.float32
    ).train()
    model.gradient_checkpointing_enable({"use_reentrant": True})
    model(input_ids=IDS, labels=IDS).loss.backward()
    assert all(
        weight.grad is not None for name, weight in model.named_parameters() if "lora_B" in name
    )


@pytest.mark.parametrize("target", ["lm_head", "embed_tokens", "q_porj"])
def test_target_that_matches_nothing_is_refused(workshop: Path, start: str, target: str) -> None:
    """peft silently ignores a target if another one matches; the lm_head never is a target."""
    config = load(
        workshop / "config.yaml",
        [f"student.model={start}", f"student.lora.targets=[q_proj, {target}]"],
    )
    with pytest.raises(
        PipelineError,
        match=rf"student\.lora\.targets: {target} is no linear layer .* it has down_proj, ",
    ):
        adapters.attach(load_weights(start, None, torch.float32), config.student.lora or Lora())
    with pytest.raises(
        PipelineError, match=rf"student\.lora\.targets: {target} is no linear layer"
    ):
        validate.check_config(load(workshop / "config.yaml", [f"student.lora.targets=[{target}]"]))


@pytest.mark.skipif(find_spec("bitsandbytes") is not None, reason="bitsandbytes is installed")
def test_4bit_without_bitsandbytes_says_what_to_install(workshop: Path) -> None:
    """An import error after a night of generation is too late."""
    with pytest.raises(
        PipelineError,
        match=r"student\.lora\.quantise: 4bit needs bitsandbytes.* install pipeline\[qlora\]",
    ):
        validate.check_config(load(workshop / "config.yaml", ["student.lora.quantise=4bit"]))


@pytest.mark.skipif(find_spec("bitsandbytes") is None, reason="needs pipeline[qlora]")
def test_4bit_weights_compute_in_the_arms_format(workshop: Path, start: str) -> None:
    """They computed in float32 while all else was bfloat16."""
    config = load(
        workshop / "config.yaml", ["student.lora={rank: 4, quantise: 4bit}", "train.dtype=bfloat16"]
    )
    model = build.load_student(config, start, None, torch.float32, arithmetic(config.train))
    assert adapters.body(model).layers[0].mlp.up_proj.base_layer.compute_dtype == torch.bfloat16
    assert adapters.body(model).norm.weight.dtype == adapters.head(model).dtype == torch.float32


@pytest.mark.skipif(find_spec("bitsandbytes") is None, reason="needs pipeline[qlora]")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_4bit_student_learns_and_becomes_an_ordinary_one(
    workshop: Path, start: str, tmp_path: Path, dtype: torch.dtype
) -> None:
    """Merging into 4-bit weights rounds the adapters away, and bitsandbytes reorders the weights
    during inference on a CPU."""
    config = load(workshop / "config.yaml", ["student.lora={rank: 4, quantise: 4bit}"])
    model = trained(build.load_student(config, start, None, dtype))
    assert type(adapters.body(model).layers[0].mlp.up_proj.base_layer).__name__ == "Linear4bit"
    before = logits_of(model).float()
    adapters.merged(model).save_pretrained(tmp_path / "out")
    assert "quant" not in (tmp_path / "out" / "config.json").read_text()
    after = logits_of(load_weights(str(tmp_path / "out"), None, torch.float32))
    assert (before - after).abs().max() < 0.05 * before.abs().max()
