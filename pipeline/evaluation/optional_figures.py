"""What the stages behind evaluate have found of each model, for results.json and the terminal."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pipeline.config import Config
from pipeline.storage.files import read_json

FILE = "figures.json"


def stored(config: Config, name: str) -> dict[str, Any]:
    """{"memorisation", "lm_eval"} of a model; None where the config does not ask for it, or it is still to be done."""
    asked = {
        "memorisation": ("memorisation", config.evaluate.memorisation),
        "lm_eval": ("forgotten", config.evaluate.lm_eval),
    }
    return {
        key: _read(Path(config.run_dir) / stage / name / FILE) if settings else None
        for key, (stage, settings) in asked.items()
    }


def lines(found: Mapping[str, Any]) -> Iterator[str]:
    """The same for the terminal."""
    for name, model in found["models"].items():
        if model["memorisation"]:
            yield f"{name}: {'; '.join(_memorised(model['memorisation']))}"
        for task, metrics in (model["lm_eval"] or {}).items():
            yield f"{name}: {task}: {', '.join(_metric(metric, one) for metric, one in metrics.items())}"


def _read(path: Path) -> dict[str, Any] | None:
    return read_json(path) if path.exists() else None


def _memorised(found: Mapping[str, Any]) -> Iterator[str]:
    trained, unseen = found["trained"], found["unseen"]
    if found["difference"] is not None:
        yield (
            f"{trained['verbatim']:.1%} of {trained['rows']} training rows come back word by word ({found['tokens']} tokens or more), "
            f"{unseen['verbatim']:.1%} of {unseen['rows']} unseen ones"
        )
    if found["canaries"]:
        bits = [canary["exposure"] for canary in found["canaries"]]
        yield f"exposure of {len(bits)} canaries {sum(bits) / len(bits):.1f} bits (1.4 by chance)"


def _metric(name: str, one: Mapping[str, Any]) -> str:
    error = f" ± {one['stderr']:.3f}" if one["stderr"] is not None else ""
    return f"{name} {one['value']:.3f}{error}"
