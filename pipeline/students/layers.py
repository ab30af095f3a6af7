"""Students with fewer layers: which layers are kept, and the model that remains."""

from collections.abc import Iterable, Sequence
from typing import Any

from pipeline.errors import PipelineError

# lists in a config with one entry per layer
PER_LAYER = ("layer_types", "mlp_layer_types", "no_rope_layers")


def layers_of(model: Any, name: str) -> Any:
    """Return the model's list of layers. Raises PipelineError for a kind of model without one."""
    layers = getattr(model.base_model, "layers", None)
    if layers is None:
        raise PipelineError(
            f"{name}: the layers of a {type(model).__name__} are not found; give a custom student"
        )
    return layers


def check(name: str, total: int, layers: int | None, keep: Sequence[int] | None) -> None:
    """Raise PipelineError if layers are to be kept that the model `name` with `total` layers does
    not have."""
    if layers is not None and layers > total:
        raise PipelineError(
            f"student.layers: {layers} of {name}, which has {total}; keep {total} or fewer"
        )
    beyond = [index for index in keep or () if not 0 <= index < total]
    if beyond:
        raise PipelineError(
            f"student.keep_layers: {beyond[0]} is not a layer of {name}, which has {total}; count "
            f"from 0 to {total - 1}"
        )


def even(total: int, count: int) -> list[int]:
    """Return `count` of `total` indices, evenly spaced, the first and the last among them. One
    alone is the first."""
    gaps = max(count - 1, 1)
    return [(2 * index * (total - 1) + gaps) // (2 * gaps) for index in range(count)]


def highest(scores: Sequence[float], count: int) -> list[int]:
    """Return the `count` layers with the highest scores in the model's order; of equals the
    earlier."""
    best = sorted(range(len(scores)), key=lambda index: (-scores[index], index))[:count]
    return sorted(best)


def importance(model: Any, name: str, prompts: Iterable[Sequence[int]]) -> list[float]:
    """Return the block influence of each layer: 1 - cosine of its input and its output, the mean
    over all tokens of `prompts` (token ids).

    Source: ShortGPT, Men et al. 2024, arXiv:2403.03853.
    """
    import torch

    layers = layers_of(model, name)
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
            input_ids = torch.tensor([list(token_ids)], device=model.device)
            model.base_model(input_ids=input_ids, use_cache=False)
            tokens += len(token_ids)
    for hook in hooks:
        hook.remove()
    model.to("cpu")
    return [round(distance / tokens, 6) for distance in distances.tolist()]


def keep(model: Any, name: str, kept: Sequence[int]) -> None:
    """Remove all layers but `kept` from the model, and put these into the order given."""
    from torch import nn

    all_layers = layers_of(model, name)
    layers = [all_layers[index] for index in kept]
    for position, layer in enumerate(layers):
        for module in layer.modules():
            if hasattr(module, "layer_idx"):
                module.layer_idx = position
    model.base_model.layers = nn.ModuleList(layers)
    config = model.config.get_text_config()
    config.num_hidden_layers = len(layers)
    for field in PER_LAYER:
        values = getattr(config, field, None)
        if values:
            setattr(config, field, [values[index] for index in kept])


def check_saved(model: Any, name: str, reloaded: Any) -> None:
    """Raise PipelineError if `reloaded`, made from the saved config alone, has other weights than
    `model`, by name and shape."""
    saved = _shapes(model)
    made = _shapes(reloaded)
    differing = sorted(
        weight for weight in saved.keys() | made.keys() if saved.get(weight) != made.get(weight)
    )
    if differing:
        raise PipelineError(
            f"student: {name} cannot be loaded again as it was cut: its config makes another "
            f"{differing[0]} (some models choose a layer's form by its number); choose other "
            "student.keep_layers, or give a custom student"
        )


def _shapes(model: Any) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
