"""Read the rows of JSONL, CSV, TSV, Parquet and datasets as JSON values, and targets as text."""

import csv
import hashlib
import json
import math
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import jsonlines

from pipeline.config import Source
from pipeline.errors import PipelineError

# where ("file:line"), columns, the byte at which the row begins
Row = tuple[str, dict[str, Any], int | None]
DELIMITERS = ",;\t|"
QUOTED = re.compile('"[^"]*"')


def target_text(value: Any, where: str) -> str | None:
    """Write a ground truth as text: as it is, or as JSON if it is no text.

    Missing values, which are null, empty or NaN, give None; a whole number has no ".0".
    Raises PipelineError for a value that JSON cannot write.
    """
    if value is None or value == "" or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, str):
        return value
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return str(int(value))
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False)
    except ValueError:
        raise PipelineError(
            f"{where}: holds NaN or an infinity, which JSON cannot write; correct it"
        ) from None


def read_rows(source: Source) -> Iterator[Row]:
    """Read the rows of a source. Raises PipelineError, with the line, for one that is malformed."""
    if source.dataset:
        return _dataset(source)
    path = Path(source.path or "")
    readers = {".jsonl": read_jsonl, ".csv": _csv, ".tsv": _csv, ".parquet": _parquet}
    if path.suffix not in readers:
        raise PipelineError(
            f"{path}: seeds are read from {', '.join(readers)}; "
            "for a dataset from the hub set dataset:"
        )
    if not path.is_file():
        raise PipelineError(f"{path}: no such file of seeds; the config names it under task")
    return readers[path.suffix](path)


def read_jsonl(path: Path, begin: int = 0) -> Iterator[Row]:
    """Read rows from the byte `begin` on; line numbers count from there.

    Raises PipelineError for a line that is no JSON object, or that gives a key twice.
    """
    with path.open("rb") as file:
        file.seek(begin)
        after = before = begin
        number = 0

        def lines() -> Iterator[str]:
            nonlocal after, number
            for line in file:
                after += len(line)
                number += 1
                yield line.decode("utf-8-sig" if after == len(line) else "utf-8")

        try:
            reader = jsonlines.Reader(lines(), loads=_loads)
            for row in reader.iter(type=dict, skip_empty=True):
                where = f"{path}:{number}"
                yield f"{where} after byte {begin}" if begin else where, row, before
                before = after
        except jsonlines.InvalidLineError as error:
            reason = str(error).split(" (line")[0]
            raise PipelineError(
                f"{path}:{error.lineno}: not a JSON object ({reason}); correct or remove the line"
            ) from None
        except UnicodeDecodeError as error:
            raise _not_utf8(path, error) from None


def _loads(line: str | bytes) -> Any:
    return json.loads(line, object_pairs_hook=_object)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Build an object of its pairs. Raises ValueError if a key is given twice."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError(f"the key {_repeats(key for key, _ in pairs)} is given twice")
    return found


def _repeats(names: Iterable[str]) -> str:
    """Name those that are given more than once."""
    return ", ".join(repr(name) for name, count in Counter(names).items() if count > 1)


def _csv(path: Path) -> Iterator[Row]:
    csv.field_size_limit(sys.maxsize)  # the default refuses a cell above 128 KiB
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            header = QUOTED.sub("", file.readline())
            file.seek(0)
            delimiter = max(DELIMITERS, key=header.count)
            yield from _table(path, csv.reader(file, delimiter=delimiter, strict=True))
    except UnicodeDecodeError as error:
        raise _not_utf8(path, error) from None


def _table(path: Path, reader: Any) -> Iterator[Row]:
    """Read the rows below a header. `reader` is one of csv."""
    names: list[str] = []
    try:
        for cells in reader:
            where = f"{path}:{reader.line_num}"
            if len(cells) < 2 and not "".join(cells).strip():
                continue  # a blank line
            if not names:
                names = [cell.strip() for cell in cells]
                _check_names(where, names)
                continue
            if len(cells) != len(names):
                raise PipelineError(
                    f"{where}: has another number of columns than the header; "
                    "quote commas inside a field"
                )
            yield where, dict(zip(names, cells, strict=True)), None
    except csv.Error as error:
        raise PipelineError(f"{path}:{reader.line_num}: not CSV ({error})") from None


def _check_names(where: str, names: list[str]) -> None:
    if repeated := _repeats(names):
        raise PipelineError(
            f"{where}: more than one column is named {repeated}; rename all of them but one"
        )


def _not_utf8(path: Path, error: UnicodeDecodeError) -> PipelineError:
    """Find the line of the bad byte, which buffered reading does not tell."""
    data = path.read_bytes()
    start = 0
    try:
        data.decode()
    except UnicodeDecodeError as whole_file_error:
        start = whole_file_error.start
    line = data[:start].count(b"\n") + 1
    return PipelineError(f"{path}:{line}: not UTF-8 ({error.reason}); save the file as UTF-8")


def _parquet(path: Path) -> Iterator[Row]:
    from pyarrow import ArrowException
    from pyarrow.parquet import ParquetFile

    try:
        file = ParquetFile(path)
        schema = file.schema_arrow
        _check_names(str(path), schema.names)
        features = None
        if b"huggingface" in (schema.metadata or {}):
            from datasets import Features

            features = Features.from_arrow_schema(schema)
        number = 0
        for batch in file.iter_batches():
            for row in batch.to_pylist():
                number += 1
                yield f"{path}:{number}", _plain(_named(features, row)), None
    except (ArrowException, OSError) as error:
        raise PipelineError(f"{path}: not Parquet ({error})") from None


def _dataset(source: Source) -> Iterator[Row]:
    try:
        rows = _load_dataset(source)
    except PipelineError:
        raise
    except Exception as error:  # the hub's client raises errors without a common base
        reason = " ".join(str(error).splitlines()[:2])
        raise PipelineError(
            f"dataset {source.dataset}: cannot be loaded ({reason}); "
            "check its name, split and the network"
        ) from None
    number = 0
    for table in rows.with_format("arrow").iter(batch_size=1000):  # media stay bytes
        for row in table.to_pylist():
            number += 1
            where = f"{source.dataset}[{source.split}]:{number}"
            yield where, _plain(_named(rows.features, row)), None


def _load_dataset(source: Source) -> Any:
    """Load a dataset of the hub, of a folder of files, or of a folder of `save_to_disk`."""
    from datasets import DatasetDict, load_dataset, load_from_disk

    folder = Path(source.dataset or "")
    if not any((folder / name).is_file() for name in ("state.json", "dataset_dict.json")):
        return load_dataset(
            source.dataset, source.name, split=source.split, revision=source.revision
        )
    saved = load_from_disk(str(folder))
    splits = saved if isinstance(saved, DatasetDict) else {str(saved.split or "train"): saved}
    if source.split not in splits:
        raise PipelineError(
            f"dataset {folder}: has no split '{source.split}', only {', '.join(splits)}; "
            "set split to one of them, and limit for the first rows of it"
        )
    return splits[source.split]


def _named(feature: Any, value: Any) -> Any:
    """Replace the numbers of class labels by their names, also inside lists and objects."""
    if value is None or feature is None:
        return value
    if isinstance(feature, dict) and isinstance(value, dict):
        return {key: _named(feature.get(key), item) for key, item in value.items()}
    if isinstance(value, list):
        inner = feature[0] if isinstance(feature, list) else getattr(feature, "feature", None)
        return [_named(inner, item) for item in value]
    if isinstance(value, int) and hasattr(feature, "int2str"):
        return feature.int2str(value) if value >= 0 else None  # -1 is a missing label
    return value


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    """Convert the row to JSON values, so that ids do not depend on the kind of file."""
    plain: dict[str, Any] = json.loads(json.dumps(row, default=_plain_value))
    return plain


def _plain_value(value: Any) -> str:
    if isinstance(value, bytes):  # an image or a sound: its hash stands for it
        return f"sha256:{hashlib.sha256(value).hexdigest()}"
    return str(value)
