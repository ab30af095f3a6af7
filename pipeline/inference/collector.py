"""The loop under every stage that asks a model: claim shards, feed requests, put answers into shards, commit, seal, report."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, TypeVar

from pipeline.errors import PipelineError, Stopped
from pipeline.execution.progress import Progress
from pipeline.execution.signals import Stopping
from pipeline.models.base import Answer, Completion, Failure, Request
from pipeline.records import Failed, Identified
from pipeline.storage.journal import Shard, commit_if_due, sweep

FEWEST_REQUESTS = 32  # before an error rate means anything

T = TypeVar("T", bound=Identified)


@dataclass(frozen=True)
class Question(Generic[T]):
    """A request, and how its completion becomes a record and, if it has logprobs, a frame."""

    request: Request
    record: Callable[[Completion], tuple[T, bytes | None]]


@dataclass
class Collector(Generic[T]):
    """Asks for every record that is missing in the shards it is given.

    Whatever ends this early, what was answered is made durable first. A request that fails is noted in its shard, and the run goes on
    until more than `max_error_rate` of the requests have failed; at 0 the first failure ends it.

    Attributes:
        question: (id) -> what to ask. Raises PipelineError if it cannot be put together.
        failed: (failure) -> how it is noted.
    """

    question: Callable[[str], Question[T]]
    failed: Callable[[Failure], Failed]
    progress: Progress
    max_error_rate: float = 0.0
    advice: str = "mend that, then go on with --retry-errors"
    errors: int = 0
    answered: int = 0
    _asked: dict[str, tuple[Question[T], Shard[T]]] = field(default_factory=dict)
    _open: dict[str, Shard[T]] = field(default_factory=dict)
    _stopping: Stopping | None = None

    def run(
        self, ask: Callable[[Iterator[Request]], Iterator[list[Answer]]], shards: Iterable[Shard[T]]
    ) -> None:
        """`ask` is the model's generate or score; `shards` are claimed, and are let go when they are sealed or this ends.

        Raises Stopped after Ctrl-C or SIGTERM.
        """
        with Stopping.watched() as self._stopping:
            try:
                for answers in ask(self._requests(shards)):
                    for answer in answers:
                        self._take(answer)
                    commit_if_due(self._open.values())
                    self.progress.show({"in flight": len(self._asked), "errors": self.errors})
                    if self._stopping.overdue or (self._stopping.signal and not self._asked):
                        break
            except (PipelineError, KeyboardInterrupt):
                if not self._stopping.signal:  # an engine may hear of Ctrl-C as well, and go first
                    raise
            finally:
                self._let_go()
            if self._stopping.signal:
                raise Stopped(self._stopping.signal)
        self.progress.show({"errors": self.errors}, last=True)
        assert not self._asked, f"{len(self._asked)} requests were never answered"

    def _requests(self, shards: Iterable[Shard[T]]) -> Iterator[Request]:
        """Whenever the model has room for one more. The next shard is claimed when all of the last one is in flight."""
        assert self._stopping is not None
        for shard in shards:
            self._open[shard.name] = shard
            for identifier in shard.missing:
                if self._stopping.signal:
                    return
                try:
                    question = self.question(identifier)
                except PipelineError as error:
                    self._fail(shard, Failure(identifier, "template_error", str(error)))
                    continue
                self._asked[identifier] = question, shard
                yield question.request
            self._seal_if_complete(shard)

    def _take(self, answer: Answer) -> None:
        question, shard = self._asked.pop(answer.id)
        if isinstance(answer, Failure):
            self._fail(shard, answer)
        else:
            shard.add(*question.record(answer))
            self.answered += 1
            self.progress.add(1, answer.usage.completion_tokens)
        self._seal_if_complete(shard)

    def _fail(self, shard: Shard[T], failure: Failure) -> None:
        if not self.max_error_rate:
            raise PipelineError(f"request {failure.id}: {failure.reason}: {failure.message}")
        shard.fail(self.failed(failure))
        self.errors += 1
        asked = self.errors + self.answered
        if asked >= FEWEST_REQUESTS and self.errors > self.max_error_rate * asked:
            raise PipelineError(
                f"{shard.errors_path.parent}: {self.errors} of {asked} requests failed, more than generate.max_error_rate="
                f"{self.max_error_rate:g} allows; the last one ({failure.id}) as {failure.reason}: {failure.message}; "
                f"{self.advice}"
            )

    def _seal_if_complete(self, shard: Shard[T]) -> None:
        if shard.complete and shard.name in self._open:
            self._open.pop(shard.name).seal()

    def _let_go(self) -> None:
        for shard in self._open.values():
            shard.commit()
            shard.release()
        self._open = {}


def unexpected_failure(failure: Failure) -> Failed:
    """How a failure is noted where the first one ends the stage."""
    raise AssertionError(f"this request must be answered: {failure}")


def claim_all(folder: Path, ids: list[str], record: type[T], shard_size: int) -> list[Shard[T]]:
    """The unfinished shards of all that hold `ids` in order. For a stage with few records, which one process does alone."""
    shards = []
    sweep(folder)
    for number, first in enumerate(range(0, len(ids), shard_size)):
        shard = Shard(folder, number, record)
        if shard.claim():
            shard.recover(ids[first : first + shard_size])
            if shard.complete:  # a crash came before it was sealed
                shard.seal()
            else:
                shards.append(shard)
    return shards
