"""Students with fewer layers: choose the layers to keep and remove the others."""

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
            f"{name}: the layers of a {type(model).__name__} are not found; leave out "
            "student.layers and student.keep_layers, or set student.model to a smaller model"
        )
    return layers


def check(name: str, total: int, layers: int | None, keep: Sequence[int] | None) -> None:
    """Raise PipelineError if `layers` or `keep` asks for layers that the model `name`, with `total`
    layers, does not have."""
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


def check_cut(name: str, total: int, kept: int) -> None:
    """Raise PipelineError if a student with `kept` of `total` layers is to be healed but whole."""
    if kept == total:
        raise PipelineError(
            f"student.heal: the student keeps all {total} layers of {name}, so there is nothing to "
            "heal; keep fewer layers, or leave heal out"
        )


def even(total: int, count: int) -> list[int]:
    """Return `count` evenly spaced indices below `total`, including the first and the last. If
    `count` is 1, return only the first."""
    gaps = max(count - 1, 1)
    return [(2 * index * (total - 1) + gaps) // (2 * gaps) for index in range(count)]


def highest(scores: Sequence[float], count: int) -> list[int]:
    """Return the indices of the `count` highest scores, in rising order. For equal scores the
    earlier layer wins."""
    best = sorted(range(len(scores)), key=lambda index: (-scores[index], index))[:count]
    return sorted(best)


def importance(model: Any, name: str, prompts: Iterable[Sequence[int]]) -> list[float]:
    """Return the block influence of each layer, a mean over all tokens of `prompts` (token ids).

    Block influence is 1 - cosine(input, output), so it is low for a layer that changes little.
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
    """Remove all layers but `kept` from the model. The new order is that of `kept`."""
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
    """Raise PipelineError if the names or shapes of the weights differ between `model` and
    `reloaded`, a model made from the saved config alone."""
    saved = _shapes(model)
    made = _shapes(reloaded)
    differing = sorted(
        weight for weight in saved.keys() | made.keys() if saved.get(weight) != made.get(weight)
    )
    if differing:
        raise PipelineError(
            f"student: {name} cannot be loaded after the cut: from its config, "
            f"{differing[0]} is missing or has another shape, because this model chooses a layer's "
            "type by its position; choose other student.keep_layers, or set student.model to a "
            "smaller model"
        )


def _shapes(model: Any) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
