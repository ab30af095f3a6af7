"""A frozen teacher beside the student, and the terms of the loss that compare their insides.

Both read the same completion behind their own prompts. Forward hooks take what is compared, so the
models run as they are, with their fast attention.

Dimension names: B rows, T tokens of a row, M tokens that both read and that have a loss, P pairs of
layers, A heads, H hidden.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from pipeline.config import Arm
from pipeline.losses.hidden_states import hidden_state_loss
from pipeline.losses.relations import instance_loss, map_loss, projection_loss, row_means
from pipeline.students import lora
from pipeline.students.white_box import PROJECTIONS, Plan
from pipeline.training.teacher_rows import Shared

PROJECTORS = "hidden_projectors"  # name of a module of the student while it is trained
FILE = "projectors.safetensors"  # in a checkpoint

Seen = dict[str, Any]  # outputs of modules, by their names


class LiveTeacher:
    """The teacher of an arm, and its white-box terms."""

    def __init__(self, arm: Arm, plan: Plan, teacher: Any):
        self.arm = arm
        self._plan = plan
        self._teacher = teacher.eval().requires_grad_(False)
        if self._reads_maps:
            teacher.set_attn_implementation("eager")

    def prepare(self, student: Any, seed: int) -> None:
        """Give the student projectors if its hidden states have another width.

        The optimiser trains them with the student, and DDP synchronises them. They are never saved
        with the model. `seed` draws their first values and leaves torch's random state as it is.
        """
        if self._reads_maps:
            lora.plain(student).set_attn_implementation("eager")
        if not self._plan.hidden or self._plan.widths[0] == self._plan.widths[1]:
            return
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            pairs = range(len(self._plan.hidden))
            layers = nn.ModuleList(nn.Linear(*self._plan.widths, bias=False) for _ in pairs)
        student.add_module(PROJECTORS, layers)
        names = {f"{PROJECTORS}.{name}" for name in layers.state_dict()}
        plain = lora.plain(student)
        plain._keys_to_ignore_on_save = {*(plain._keys_to_ignore_on_save or ()), *names}

    def save(self, student: Any, checkpoint: Path) -> None:
        """Write the student's projectors, if it has any, into the folder of a checkpoint."""
        if len(layers := projectors(student)):
            checkpoint.mkdir(parents=True, exist_ok=True)
            save_file(layers.state_dict(), checkpoint / FILE)

    def load(self, student: Any, checkpoint: Path) -> None:
        """Read the student's projectors, if it has any, from the folder of a checkpoint."""
        if len(layers := projectors(student)):
            layers.load_state_dict(load_file(checkpoint / FILE))

    @contextmanager
    def watching(self, student: Any) -> Iterator[Seen]:
        """Collect the outputs of the student's compared modules in a forward pass."""
        with captured(lora.body(student), self._names(0)) as seen:
            yield seen

    def terms(self, student: Any, seen: Seen, shared: Shared) -> dict[str, Tensor]:
        """Return the terms of the loss by name, each with its weight and summed over M tokens.

        The teacher reads its rows here. `seen`: what `watching` collected.
        """
        layers = projectors(student)
        if not len(shared.ids):  # a zero with gradients, which DDP waits for
            nothing = sum((layer.weight.sum() for layer in layers), shared.weights.sum()) * 0.0
            return dict.fromkeys(self.arm.white_box, nothing)
        pick = self._picker(shared.student, shared.counts)
        learned = {name: pick(name, output) for name, output in seen.items()}
        true = self._read(shared)
        terms = {}
        if self.arm.hidden:
            terms["hidden"] = self._hidden(layers, learned, true, shared.weights)
        if self.arm.attention:
            terms["attention"] = self._attention(learned, true, shared)
        if self.arm.relation:
            terms["relation"] = self._relation(learned, true, shared)
        return terms

    @property
    def _reads_maps(self) -> bool:
        return self.arm.attention is not None and self.arm.attention.kind == "maps"

    def _names(self, side: int) -> list[str]:
        """Name the modules of the student (side 0) or the teacher (1) whose outputs are read."""
        plan = self._plan
        names = [_layer(pair[side]) for pair in (*plan.hidden, *plan.relation)]
        for pair in plan.attention:
            if self._reads_maps:
                names.append(_map(pair[side]))
            else:
                names += [_projection(pair[side], kind) for kind in PROJECTIONS]
        return list(dict.fromkeys(names))

    def _picker(self, positions: Tensor, counts: Sequence[int]) -> Callable[[str, Any], Any]:
        """Return a function that takes M positions, counted over (B, T), out of an output."""

        def pick(name: str, output: Any) -> Any:
            if self._reads_maps and name.endswith(ATTENTION):
                return _maps(output, positions, counts)
            return output.flatten(0, 1)[positions]  # (M, W)

        return pick

    def _read(self, shared: Shared) -> Seen:
        """Return what the teacher's modules say at the M positions."""
        pick = self._picker(shared.teacher, shared.counts)
        body = self._teacher.base_model
        with torch.no_grad(), captured(body, self._names(1), pick) as seen:
            body(input_ids=shared.ids, use_cache=False)
        return seen

    def _hidden(self, layers: nn.ModuleList, learned: Seen, true: Seen, weights: Tensor) -> Tensor:
        assert self.arm.hidden
        pairs = self._plan.hidden
        student = [learned[_layer(first)] for first, _ in pairs]
        if len(layers):
            student = [layer(states) for layer, states in zip(layers, student, strict=True)]
        teacher = torch.stack([true[_layer(last)] for _, last in pairs])  # (P, M, H)
        settings = self.arm.hidden
        loss = hidden_state_loss(torch.stack(student), teacher, weights, settings.distance)
        return settings.weight * loss

    def _attention(self, learned: Seen, true: Seen, shared: Shared) -> Tensor:
        assert self.arm.attention
        losses = []
        for first, last in self._plan.attention:
            if self._reads_maps:
                losses.append(map_loss(learned[_map(first)], true[_map(last)], shared.weights))
                continue
            for kind in PROJECTIONS:
                sides = learned[_projection(first, kind)], true[_projection(last, kind)]
                losses.append(projection_loss(*sides, shared.weights, shared.counts))
        return self.arm.attention.weight * torch.stack(losses).mean()

    def _relation(self, learned: Seen, true: Seen, shared: Shared) -> Tensor:
        """Return the difference of the rows' relations times their weight, as if of each token."""
        assert self.arm.relation
        ((first, last),) = self._plan.relation
        sides = learned[_layer(first)], true[_layer(last)]
        loss = instance_loss(*(row_means(side, shared.counts) for side in sides))
        return self.arm.relation.weight * loss * shared.weights.sum()


def projectors(student: Any) -> nn.ModuleList:
    """Return the projectors of a student in training, one a pair of layers; empty without them."""
    found: nn.ModuleList | None = getattr(student, PROJECTORS, None)
    return nn.ModuleList() if found is None else found


@contextmanager
def captured(
    body: Any, names: Sequence[str], keep: Callable[[str, Any], Any] = lambda name, output: output
) -> Iterator[Seen]:
    """Collect the outputs of modules in the forward passes inside the with block.

    The hooks are gone after it: gradient checkpointing computes the layers again in the backward
    pass, and must not collect twice.

    body: a transformer. names: modules in it, such as layers.3; for self_attn the attention map is
        collected. keep: what to keep of an output; it must not build a graph of its own.
    """
    seen: Seen = {}

    def hook_of(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            if isinstance(output, tuple):
                output = output[1 if name.endswith(ATTENTION) else 0]
            seen[name] = keep(name, output)

        return hook

    hooks = [body.get_submodule(name).register_forward_hook(hook_of(name)) for name in names]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


ATTENTION = "self_attn"


def _layer(number: int) -> str:
    return f"layers.{number}"


def _map(number: int) -> str:
    return f"{_layer(number)}.{ATTENTION}"


def _projection(number: int, kind: str) -> str:
    return f"{_map(number)}.{kind}"


def _maps(output: Tensor, positions: Tensor, counts: Sequence[int]) -> list[Tensor]:
    """Return for each row the attention (A, T, T) between its positions, from (B, A, T', T')."""
    length = output.shape[2]
    maps = []
    for row in positions.split(list(counts)):
        places = row % length
        found = output[row[:, None] // length, :, places[:, None], places[None]]  # (T, T, A)
        maps.append(found.permute(2, 0, 1))
    return maps
