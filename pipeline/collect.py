"""The loop under every stage that asks a model: feed requests, put completions into shards, commit, seal, report."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from pipeline.models import Completion, Model, Request, Sampling
from pipeline.progress import Progress
from pipeline.records import Identified
from pipeline.store import Shard, commit_if_due

T = TypeVar("T", bound=Identified)


@dataclass(frozen=True)
class Question(Generic[T]):
    """A request, and how its completion becomes a record and, if it has logprobs, a frame."""

    request: Request
    record: Callable[[Completion], tuple[T, bytes | None]]


def plan(folder: Path, ids: Sequence[str], record: type[T], shard_size: int) -> list[Shard[T]]:
    """The shards that hold `ids` in order, with what is already there recovered. Seals a shard that a crash left complete."""
    shards = [Shard(folder, number, ids[first : first + shard_size], record) for number, first in enumerate(range(0, len(ids), shard_size))]
    for shard in shards:
        shard.recover()
        if shard.complete and not shard.sealed.exists():
            shard.seal()
    return shards


def collect(
    model: Model, sampling: Sampling, shards: Sequence[Shard[T]], question: Callable[[str], Question[T]], progress: Progress
) -> None:
    """Ask for every record that is missing. Whatever ends this early, what was answered is made durable first."""
    home = {identifier: shard for shard in shards for identifier in shard.order if identifier not in shard.done}
    asked: dict[str, Question[T]] = {}

    def requests() -> Iterator[Request]:
        for identifier in list(home):
            asked[identifier] = question(identifier)
            yield asked[identifier].request

    touched: dict[str, Shard[T]] = {}
    try:
        for batch in model.generate(requests(), sampling):
            for completion in batch:
                shard = home.pop(completion.id)
                shard.append(*asked.pop(completion.id).record(completion))
                touched[shard.name] = shard
                progress.add(1, completion.usage.completion_tokens)
                if shard.complete:
                    touched.pop(shard.name).seal()
            commit_if_due(touched.values())
            progress.show({"in flight": len(asked)})
    finally:
        for shard in touched.values():
            shard.commit()
            shard.close()
    progress.show(last=True)
    assert not home, f"{len(home)} requests were never answered"
