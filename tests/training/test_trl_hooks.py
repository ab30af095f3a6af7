"""TRL's private names, in one list: a new TRL breaks a test that says which of them it changed."""

import ast
import inspect
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from transformers import Trainer, TrainingArguments
from trl import SFTTrainer
from trl.models.utils import _ForwardRedirection
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

from tests.support.task import ROOT

TRAINING = ROOT / "pipeline" / "training"
HOOKS: list[tuple[Any, str, tuple[str, ...]]] = [
    (SFTTrainer, "_get_num_items_in_batch", ("batch_samples", "device")),
    (SFTTrainer, "_get_train_sampler", ("train_dataset",)),
    (SFTTrainer, "_inner_training_loop", ()),
    (SFTTrainer, "_issue_warnings_after_load", ("load_result",)),
    (SFTTrainer, "_load_best_model", ()),
    (SFTTrainer, "_prepare_inputs", ("inputs",)),
    (SFTTrainer, "_run_epoch", ("epoch", "train_dataloader")),
    (SFTTrainer, "_save_checkpoint", ("model", "trial")),
    (SFTTrainer, "_set_signature_columns_if_needed", ()),
    (_ForwardRedirection, "__call__", ("wrapper_module", "original_module", "method", "args")),
    # not private, but overridden or not exported
    (SFTTrainer, "compute_loss", ("model", "inputs", "return_outputs", "num_items_in_batch")),
    (SFTTrainer, "get_batch_samples", ()),
    (SFTTrainer, "log", ("logs", "start_time")),
    (DataCollatorForLanguageModeling, "__init__", ("pad_token_id", "padding_free")),
]
ATTRIBUTES = [
    (Trainer, "_initial_global_step"),
    (Trainer, "_signature_columns"),
    (TrainingArguments, "_n_gpu"),
]
OVERRIDDEN = sorted({name for owner, name, _ in HOOKS if owner is SFTTrainer})


def problems(owner: Any, name: str, parameters: tuple[str, ...]) -> list[str]:
    """What the installed TRL lacks of a method that training relies on."""
    where = f"TRL {version('trl')}, transformers {version('transformers')}: {owner.__name__}"
    method: Callable[..., Any] | None = getattr(owner, name, None)
    if method is None:
        return [f"{where} lost the method {name}; see pipeline/training/trl_hooks.py"]
    lost = [known for known in parameters if known not in inspect.signature(method).parameters]
    return [
        f"{where}.{name} lost the parameter {parameter}; see pipeline/training/trl_hooks.py"
        for parameter in lost
    ]


def private_names(path: Path) -> set[str]:
    """The private names that a file reads from an object, imports or overrides."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute):
            names.add(node.attr)
        elif isinstance(node, ast.FunctionDef | ast.alias):
            names.add(node.name)
    return {name for name in names if name.startswith("_") and not name.startswith("__")}


@pytest.mark.parametrize(("owner", "name", "parameters"), HOOKS)
def test_the_installed_trl_has_the_hook(owner: Any, name: str, parameters: tuple[str, ...]) -> None:
    """A renamed hook is overridden in silence: training runs on without it, on a wrong loss."""
    assert problems(owner, name, parameters) == []


@pytest.mark.parametrize("name", OVERRIDDEN)
def test_the_trainer_calls_the_hook(name: str) -> None:
    """A hook that exists and is called no more changes nothing."""
    callers = [inspect.getsource(sys.modules[base.__module__]) for base in (Trainer, SFTTrainer)]
    assert f"self.{name}" in "".join(callers), f"TRL {version('trl')}: nothing calls {name}"


@pytest.mark.parametrize(("owner", "name"), ATTRIBUTES)
def test_the_attribute_is_set(owner: Any, name: str) -> None:
    """An attribute that is set under another name would be read as missing, or written for none."""
    where = f"transformers {version('transformers')}: {owner.__name__}"
    assert f"self.{name}" in inspect.getsource(owner), f"{where} lost the attribute {name}"


def test_the_message_names_what_broke() -> None:
    """Whoever raises the bound of TRL should not have to search."""

    class Changed:
        def _run_epoch(self, epoch: int) -> None: ...

    (message,) = problems(Changed, "_run_epoch", ("epoch", "train_dataloader"))
    assert message.startswith(f"TRL {version('trl')}, transformers ")
    assert "Changed._run_epoch lost the parameter train_dataloader; see pipeline" in message
    assert "Changed lost the method _gone;" in problems(Changed, "_gone", ())[0]


def test_every_private_name_is_listed() -> None:
    """A hook that is used and not listed would break without a word."""
    listed = {name for _, name, _ in HOOKS} | {name for _, name in ATTRIBUTES}
    own = {"_redirect", "_ForwardRedirection", "_replace"}
    assert private_names(TRAINING / "trl_hooks.py") - own <= listed


def test_no_other_file_knows_a_private_name() -> None:
    """One file follows TRL."""
    listed = {name for _, name, _ in HOOKS} | {name for _, name in ATTRIBUTES}
    for path in (ROOT / "pipeline").rglob("*.py"):
        if path.name != "trl_hooks.py":
            assert private_names(path) & listed == set(), path
