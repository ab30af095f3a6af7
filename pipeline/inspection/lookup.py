"""Find samples of a run by id, seed or filter."""

import json
from collections.abc import Iterator
from pathlib import Path

from pipeline.errors import PipelineError
from pipeline.filters.measure_cache import MeasureCache
from pipeline.records import Sample
from pipeline.storage.files import content, read_json
from pipeline.storage.samples import Samples
from pipeline.storage.shards import read_lines


def find_samples(run_dir: Path, identifier: str) -> Iterator[tuple[int, Sample]]:
    """(row, sample) of those with this id, or this seed's id."""
    of_seed = json.dumps(identifier, ensure_ascii=False).encode()
    begins = b'{"id":' + of_seed, b'{"id":' + of_seed[:-1] + b"/"
    before = 0
    for shard in MeasureCache(run_dir).shards:
        for number, line in enumerate(read_lines(shard.path)):
            if line.startswith(begins):
                sample = Sample.from_line(line, f"{shard.path}:{number + 1}")
                if identifier in (sample.id, sample.seed.id):
                    yield before + number, sample
        before += shard.records


def unknown_id(run_dir: Path, identifier: str) -> PipelineError:
    """What to say of an id that nothing has."""
    return PipelineError(
        f"{run_dir}: there is no sample or seed '{identifier}'; ids look like {Samples(run_dir / 'generate')[0].id}"
    )


def is_judged(run_dir: Path) -> bool:
    """Whether filter was run on just what is generated now. (Failed requests that were asked again make it more.)"""
    begun = run_dir / "filter" / "begun.json"
    return begun.exists() and read_json(begun)["fingerprint"]["output of generate"] == content(
        read_json(run_dir / "generate" / "manifest.json")
    )
