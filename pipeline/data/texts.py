"""Read plain text to learn from: a file or folder of .txt files and .jsonl files."""

from collections.abc import Iterator
from pathlib import Path

from pipeline.data.rows import read_jsonl
from pipeline.errors import PipelineError

SUFFIXES = (".txt", ".jsonl")


def files(path: str) -> list[Path]:
    """Return the files of text at `path`, or below it, in the order of their names.

    `path` itself is returned if there is nothing, so that whoever opens it says so.
    """
    if not Path(path).is_dir():
        return [Path(path)]
    return sorted(file for file in Path(path).rglob("*") if file.suffix in SUFFIXES)


def check(path: str, key: str) -> None:
    """Raise PipelineError if there is no text at `path`, which the config's `key` names."""
    found = files(path)
    if not Path(path).exists():
        raise PipelineError(f"{key}: {path} does not exist; give a file or folder of text")
    if not found or any(file.suffix not in SUFFIXES for file in found):
        raise PipelineError(
            f"{key}: {path} has no {' or '.join(SUFFIXES)} file; put the text there, or name "
            "another file or folder"
        )
    if next(read(path), None) is None:
        raise PipelineError(f"{key}: {path} has no text; put some there, or name another folder")


def read(path: str) -> Iterator[str]:
    """Yield the texts at `path`: a .txt file is one, and so is each row of a .jsonl file.

    Empty texts are left out. Raises PipelineError for a row without a field `text`, and for a file
    that is not UTF-8.
    """
    for file in files(path):
        yield from filter(str.strip, _rows(file) if file.suffix == ".jsonl" else _whole(file))


def _whole(file: Path) -> Iterator[str]:
    try:
        yield file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise PipelineError(
            f"{file}: not UTF-8 ({error.reason} at byte {error.start}); save the file as UTF-8"
        ) from None


def _rows(file: Path) -> Iterator[str]:
    for where, row, _ in read_jsonl(file):
        text = row.get("text")
        if not isinstance(text, str):
            raise PipelineError(
                f'{where}: has no field text, or one that is no string; write {{"text": …}}'
            )
        yield text
