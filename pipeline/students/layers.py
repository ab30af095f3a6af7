"""Students with fewer layers: which are kept, and the model that is left."""

from collections.abc import Iterable, Sequence
from typing import Any

from pipeline.errors import PipelineError

PER_LAYER = (
    "layer_types",
    "mlp_layer_types",
    "no_rope_layers",
)  # lists in a config with one entry a layer


def of(model: Any, name: str) -> Any:
    """The model's list of layers. Raises PipelineError for a kind of model that keeps them elsewhere."""
    layers = getattr(model.base_model, "layers", None)
    if layers is None:
        raise PipelineError(
            f"{name}: a {type(model).__name__} has no list of layers that is known here; give a student of its own"
        )
    return layers


def check(name: str, there: int, layers: int | None, keep: Sequence[int] | None) -> None:
    """Raise PipelineError if more, or others, are to be kept than the `there` layers of the model `name`."""
    if layers is not None and layers > there:
        raise PipelineError(
            f"student.layers: {layers} of {name}, which has {there}; keep {there} or fewer"
        )
    beyond = [index for index in keep or () if not 0 <= index < there]
    if beyond:
        raise PipelineError(
            f"student.keep_layers: {beyond[0]} is not a layer of {name}, which has {there}; count from 0 to {there - 1}"
        )


def even(there: int, count: int) -> list[int]:
    """`count` of `there` layers, evenly spaced, the first and the last among them; one alone is the first."""
    gaps = max(count - 1, 1)
    return [(2 * index * (there - 1) + gaps) // (2 * gaps) for index in range(count)]


def highest(scores: Sequence[float], count: int) -> list[int]:
    """The `count` layers of the highest scores, in the model's order; of equals the earlier."""
    best = sorted(range(len(scores)), key=lambda index: (-scores[index], index))[:count]
    return sorted(best)


def importance(model: Any, name: str, prompts: Iterable[Sequence[int]]) -> list[float]:
    """Block influence of each layer: 1 - cosine of its input and its output, mean over all tokens of `prompts` (token ids).

    Source: ShortGPT, Men et al. 2024, arXiv:2403.03853.
    """
    import torch

    layers = of(model, name)
    distances = torch.zeros(len(layers), dtype=torch.float64)
    tokens = 0

    def watch(index: int) -> Any:
        def hook(module: Any, inputs: Any, output: Any) -> None:
            after = output[0] if isinstance(output, tuple) else output  # (1, T, H)
            similarity = torch.cosine_similarity(inputs[0].float(), after.float(), dim=-1)
            distances[index] += (1.0 - similarity.double()).sum().cpu()

        return layers[index].register_forward_hook(hook)

    hooks = [watch(index) for index in range(len(layers))]
    model.eval().to("cuda" if torch.cuda.is_available() else "cpu")
    with torch.inference_mode():
        for token_ids in prompts:
            model.base_model(
                input_ids=torch.tensor([list(token_ids)], device=model.device), use_cache=False
            )
            tokens += len(token_ids)
    for hook in hooks:
        hook.remove()
    model.to("cpu")
    return [round(distance / tokens, 6) for distance in distances.tolist()]


def keep(model: Any, name: str, kept: Sequence[int]) -> None:
    """Leave the model only the layers `kept`, in that order."""
    from torch import nn

    layers = [of(model, name)[index] for index in kept]
    for position, layer in enumerate(layers):
        for module in layer.modules():
            if hasattr(module, "layer_idx"):
                module.layer_idx = position
    model.base_model.layers = nn.ModuleList(layers)
    config = model.config.get_text_config()
    config.num_hidden_layers = len(layers)
    for field in PER_LAYER:
        if getattr(config, field, None):
            setattr(config, field, [getattr(config, field)[index] for index in kept])


def check_saved(model: Any, name: str, reloaded: Any) -> None:
    """Raise PipelineError if `reloaded`, a model made from the saved config alone, has other weights than `model`, by name and shape."""
    mine, theirs = (
        {weight: tuple(tensor.shape) for weight, tensor in each.state_dict().items()}
        for each in (model, reloaded)
    )
    differing = sorted(
        weight for weight in mine.keys() | theirs.keys() if mine.get(weight) != theirs.get(weight)
    )
    if differing:
        raise PipelineError(
            f"student: {name} cannot be loaded again as it was cut: its config makes another {differing[0]} (some models choose a layer's "
            "form by its number); choose other student.keep_layers, or give a student of its own"
        )
