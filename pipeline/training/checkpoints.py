"""Find the newest checkpoint that training can continue from."""

import json
import logging
import zipfile
from collections.abc import Iterator
from pathlib import Path

log = logging.getLogger(__name__)

STATE = "trainer_state.json"  # written last, so a checkpoint without it is incomplete
WEIGHTS = ("model*.safetensors", "adapter_model.safetensors", "projectors.safetensors")
ARCHIVES = ("optimizer.pt", "scheduler.pt", "rng_state*.pth", "training_args.bin")  # zip files
NEEDED = ("optimizer.pt", "scheduler.pt")


def last_checkpoint(folder: Path) -> Path | None:
    """Return the newest checkpoint that is complete and can be read, or None.

    A damaged one is named in a warning, and training falls back to the one before.
    """
    complete = [path for path in folder.glob("checkpoint-*") if _is_json(path / STATE)]
    for path in sorted(complete, key=_step, reverse=True):
        damage = next(damaged(path), None)
        if damage is None:
            return path
        log.warning(f"{path}: left out, because {damage}; training falls back to the one before")
    return None


def damaged(checkpoint: Path) -> Iterator[str]:
    """Yield what is wrong with the files of a checkpoint; nothing if all can be read."""
    from safetensors import SafetensorError, safe_open

    weights = [path for pattern in WEIGHTS for path in sorted(checkpoint.glob(pattern))]
    if not weights:
        yield "it has no weights"
    for path in weights:
        try:
            with safe_open(path, "np") as file:  # compares the header with the size of the file
                file.keys()
        except (SafetensorError, OSError) as error:
            yield f"{path.name} is damaged ({error})"
    for name in NEEDED:
        if not (checkpoint / name).is_file():
            yield f"it has no {name}"
    for path in (path for pattern in ARCHIVES for path in sorted(checkpoint.glob(pattern))):
        try:
            with zipfile.ZipFile(path) as archive:
                part = archive.testzip()
        except (zipfile.BadZipFile, OSError, EOFError, NotImplementedError, RuntimeError) as error:
            yield f"{path.name} is damaged ({error})"
        else:
            if part:
                yield f"{path.name} is damaged ({part})"


def _step(checkpoint: Path) -> int:
    return int(checkpoint.name.rpartition("-")[2])


def _is_json(path: Path) -> bool:
    try:
        return isinstance(json.loads(path.read_text(encoding="utf-8")), dict)
    except (OSError, ValueError):
        return False
