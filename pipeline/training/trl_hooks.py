"""The one file that knows private names of TRL and of the transformers Trainer below it.

`HookedTrainer` overrides them and calls methods with public names, which `DistillTrainer` defines.
`tests/training/test_trl_hooks.py` lists the private names with their parameters and says which one
a new release changed. Follow the change here, run the tests of `tests/training`, then raise the
bound of trl in pyproject.toml.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from trl import SFTConfig, SFTTrainer
from trl.models.utils import _ForwardRedirection


class HookedTrainer(SFTTrainer):
    """TRL's trainer whose hooks are public methods.

    A subclass overrides the public methods; this class connects them to TRL's private ones.
    """

    control: Any
    token_columns: tuple[str, ...] = ()  # columns of the dataset that reach the collator

    def __init__(self, **kwargs: Any):
        super().__init__(**kwargs)
        self._redirect = _ForwardRedirection()

    # Methods for a subclass to define.

    def begin_training(self) -> None:
        """Prepare for the first step of this process."""

    def make_sampler(self) -> Any:
        """Return the sampler of the training rows."""
        return super()._get_train_sampler()

    def loss_divisor(self, batches: list[dict[str, Any]], device: Any) -> Tensor | None:
        """Return the number by which the loss of an optimiser step is divided."""
        return super()._get_num_items_in_batch(batches, device)

    def save_checkpoint(self, write: Callable[[], None]) -> None:
        """Call `write` to save the checkpoint; do not call it to skip saving."""
        write()

    # Methods for a subclass to call.

    @property
    def first_step(self) -> int:
        """The step at which this process started, above 0 after a resume."""
        return int(self._initial_global_step)

    def call_in_forward(self, model: nn.Module, method: Callable[..., Any], *args: Any) -> Any:
        """Return `method(unwrapped model, *args)`, called inside the forward pass of `model`.

        DDP synchronises gradients only for what the forward pass of its wrapper computes, so call
        `method` there.
        """
        unwrapped = self.accelerator.unwrap_model(model)
        return self._redirect(model, unwrapped, method, unwrapped, *args)

    def to_device(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Move the tensors of a batch to the device of this process."""
        return self._prepare_inputs(batch)

    def load_checkpoint_weights(self, checkpoint: Path) -> None:
        """Load the model's weights from a checkpoint."""
        self.state.best_model_checkpoint = str(checkpoint)
        self._load_best_model()

    # The private hooks.

    def _set_signature_columns_if_needed(self) -> None:
        super()._set_signature_columns_if_needed()
        known = self._signature_columns
        self._signature_columns += [name for name in self.token_columns if name not in known]

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        return self.make_sampler()

    def _get_num_items_in_batch(
        self, batch_samples: list[dict[str, Any]], device: Any
    ) -> Tensor | None:
        return self.loss_divisor(batch_samples, device)

    def _inner_training_loop(self, *args: Any, **kwargs: Any) -> Any:
        self.begin_training()
        return super()._inner_training_loop(*args, **kwargs)

    def _run_epoch(self, *args: Any, **kwargs: Any) -> Any:
        """Set the sampler's epoch, then run the epoch.

        transformers and accelerate do not set it when a run resumes on several processes. The run
        would then repeat the first epoch's order.
        """
        batch_sampler = kwargs["train_dataloader"].batch_sampler
        while hasattr(batch_sampler, "batch_sampler"):
            batch_sampler = batch_sampler.batch_sampler
        if hasattr(batch_sampler.sampler, "set_epoch"):
            batch_sampler.sampler.set_epoch(kwargs["epoch"])
        return super()._run_epoch(*args, **kwargs)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        write = super()._save_checkpoint
        self.save_checkpoint(lambda: write(model, trial))

    def _issue_warnings_after_load(self, load_result: Any) -> None:
        """Warn of missing weights, except tied ones, which are stored once, under one name."""
        tied = getattr(self.model, "all_tied_weights_keys", None) or {}
        missing = [name for name in load_result.missing_keys if name not in tied]
        super()._issue_warnings_after_load(load_result._replace(missing_keys=missing))


def use_one_gpu(arguments: SFTConfig) -> None:
    """Keep transformers from wrapping the model in DataParallel on a machine with several GPUs.

    This package starts one process per GPU instead.
    """
    arguments._n_gpu = min(arguments.n_gpu, 1)
