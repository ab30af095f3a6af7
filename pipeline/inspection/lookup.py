"""Find the samples of a run by the id of a sample or of an example."""

import json
from collections.abc import Iterator
from pathlib import Path

from pipeline.errors import PipelineError
from pipeline.filters.measure_cache import MeasureCache
from pipeline.records import Sample
from pipeline.storage.files import content, read_object
from pipeline.storage.samples import Samples
from pipeline.storage.shards import read_lines


def find_samples(run_dir: Path, identifier: str) -> Iterator[tuple[int, Sample]]:
    """Yield (row, sample) of each sample whose own id or whose example's id is `identifier`."""
    quoted = json.dumps(identifier, ensure_ascii=False).encode()
    prefixes = b'{"id":' + quoted, b'{"id":' + quoted[:-1] + b"/"  # cheaper than parsing each line
    first_row = 0
    for shard in MeasureCache(run_dir).shards:
        for number, line in enumerate(read_lines(shard.path)):
            if line.startswith(prefixes):
                sample = Sample.from_line(line, f"{shard.path}:{number + 1}")
                if identifier in (sample.id, sample.seed.id):
                    yield first_row + number, sample
        first_row += shard.records


def unknown_id(run_dir: Path, identifier: str) -> PipelineError:
    """Return the error for an id that no sample and no example has."""
    example = Samples(run_dir / "generate")[0].id
    return PipelineError(
        f"{run_dir}: there is no sample or seed '{identifier}'; ids look like {example}"
    )


def is_judged(run_dir: Path) -> bool:
    """Return True if filter ran on the samples that generate holds now.

    It returns False if failed requests were repeated after filter, because that adds samples.
    """
    begun = run_dir / "filter" / "begun.json"
    if not begun.exists():
        return False
    generated = content(read_object(run_dir / "generate" / "manifest.json", "files"))
    return bool(read_object(begun, "fingerprint")["fingerprint"]["output of generate"] == generated)
