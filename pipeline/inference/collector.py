"""The loop of every stage that asks a model.

It claims shards, sends requests, stores the answers in the shards, commits and seals them, and
reports progress.
"""

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

FEWEST_REQUESTS = 32  # the error rate of fewer requests means little: it is not checked

T = TypeVar("T", bound=Identified)


@dataclass(frozen=True)
class Question(Generic[T]):
    """A request. `record` turns its completion into a record, with logprobs also a frame."""

    request: Request
    record: Callable[[Completion], tuple[T, bytes | None]]


@dataclass
class Collector(Generic[T]):
    """Asks for every record that is missing in some shards.

    If the run ends early for any reason, all answers are made durable first. A failed request is
    stored in its shard's errors. The run continues until more than `max_error_rate` of the requests
    have failed; if `max_error_rate` is 0, the first failure ends it.

    Attributes:
        question: makes the question for the id of a record; may raise PipelineError.
        failed: makes the record of a failure.
        advice: the end of the error message if too many requests fail; it says what to do.
    """

    question: Callable[[str], Question[T]]
    failed: Callable[[Failure], Failed]
    progress: Progress
    max_error_rate: float = 0.0
    advice: str = "fix the cause, then continue with --retry-errors"
    errors: int = 0
    answered: int = 0
    _in_flight: dict[str, tuple[Question[T], Shard[T]]] = field(default_factory=dict)
    _open: dict[str, Shard[T]] = field(default_factory=dict)
    _stopping: Stopping | None = None

    def run(
        self, ask: Callable[[Iterator[Request]], Iterator[list[Answer]]], shards: Iterable[Shard[T]]
    ) -> None:
        """Ask for the missing records of `shards`, which are claimed by this process.

        `ask` is the model's generate or score. A shard is released when it is sealed or this ends.
        Raises Stopped after Ctrl-C or SIGTERM.
        """
        with Stopping.watched() as self._stopping:
            try:
                for answers in ask(self._requests(shards)):
                    for answer in answers:
                        self._take(answer)
                    commit_if_due(self._open.values())
                    self.progress.show({"in flight": len(self._in_flight), "errors": self.errors})
                    if self._stopping.overdue or (self._stopping.signal and not self._in_flight):
                        break
            except (PipelineError, KeyboardInterrupt):
                if (
                    not self._stopping.signal
                ):  # Ctrl-C also reaches the engine, which may fail first
                    raise
            finally:
                self._release()
            if self._stopping.signal:
                raise Stopped(self._stopping.signal)
        self.progress.show({"errors": self.errors}, last=True)
        assert not self._in_flight, f"{len(self._in_flight)} requests were never answered"

    def _requests(self, shards: Iterable[Shard[T]]) -> Iterator[Request]:
        """Yield a request whenever the model can take one.

        The next shard is claimed when every request of the one before is in flight.
        """
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
                self._in_flight[identifier] = question, shard
                yield question.request
            self._seal_if_complete(shard)

    def _take(self, answer: Answer) -> None:
        question, shard = self._in_flight.pop(answer.id)
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
        finished = self.errors + self.answered
        if finished >= FEWEST_REQUESTS and self.errors > self.max_error_rate * finished:
            raise PipelineError(
                f"{shard.errors_path.parent}: {self.errors} of {finished} requests failed, more "
                f"than generate.max_error_rate={self.max_error_rate:g} allows; the last one "
                f"({failure.id}) as {failure.reason}: {failure.message}; {self.advice}"
            )

    def _seal_if_complete(self, shard: Shard[T]) -> None:
        if shard.complete and shard.name in self._open:
            self._open.pop(shard.name).seal()

    def _release(self) -> None:
        for shard in self._open.values():
            shard.commit()
            shard.release()
        self._open = {}


def unexpected_failure(failure: Failure) -> Failed:
    """Raise AssertionError: in this stage the first failure ends the run before it is stored."""
    raise AssertionError(f"this request must be answered: {failure}")


def claim_all(folder: Path, ids: list[str], record: type[T], shard_size: int) -> list[Shard[T]]:
    """Claim all unfinished shards of a stage that runs in one process only.

    The shards hold the records with these ids, `shard_size` each, in order.
    """
    shards = []
    sweep(folder)
    for number, first in enumerate(range(0, len(ids), shard_size)):
        shard = Shard(folder, number, record)
        if shard.claim():
            shard.recover(ids[first : first + shard_size])
            if shard.complete:  # a crash kept it from being sealed
                shard.seal()
            else:
                shards.append(shard)
    return shards
