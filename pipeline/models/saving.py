"""Save models so that other users can read them, and a full disk is one line."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipeline.errors import PipelineError

TORCH_WRITER = ("PytorchStreamWriter", "inline_container", "write failed", "unexpected pos")


def save(model: Any, folder: Path, end_ids: Iterable[int] = ()) -> None:
    """Write a model's files into a folder. Raises PipelineError if the disk does not take them.

    Whoever generates with the model stops at `end_ids` too.
    """
    settings = model.generation_config
    known = getattr(settings, "eos_token_id", None)
    ends = {known} if isinstance(known, int) else set(known or ())
    if not ends.issuperset(end_ids):
        settings.eos_token_id = sorted(ends.union(end_ids))
    with writing(folder):
        model.save_pretrained(folder)
    share(folder)


def share(folder: Path) -> None:
    """Give every file below a folder the mode of a new file.

    safetensors makes its files readable by their owner alone, and a server often is another user.
    """
    probe = folder / ".mode"
    probe.touch()
    mode = probe.stat().st_mode & 0o666
    probe.unlink()
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            path.chmod(mode | (path.stat().st_mode & 0o111))


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn what safetensors and torch raise for a failed write into a PipelineError.

    An OSError stays as it is: the command line knows it.
    """
    from safetensors import SafetensorError

    try:
        yield
    except SafetensorError as error:
        raise _failed(path, error) from None
    except RuntimeError as error:
        if not any(word in str(error) for word in TORCH_WRITER):
            raise
        raise _failed(path, error) from None


def _failed(path: Path, error: Exception) -> PipelineError:
    reason = str(error).strip().partition("\n")[0]
    return PipelineError(
        f"{path}: could not be written ({reason}); is the disk full? Make room, and the same "
        "command continues from the last complete checkpoint"
    )
