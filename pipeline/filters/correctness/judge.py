"""A model that reads every reply that is left and gives it a mark by a rubric. Its words are kept; nobody is asked twice.

RUN/measured/judge-KEY/ holds marks in shards, each of those who came as far as the judge in one command and had none yet: a looser
threshold before it sends more, and only these are asked. A mark belongs to a sample's content, whatever else was generated since.
"""

import logging
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.config import Config, Judge, Teacher
from pipeline.data import prompts, replies
from pipeline.data.prompts import Prompt
from pipeline.errors import PipelineError
from pipeline.execution.progress import Progress
from pipeline.filters.measure_cache import MeasureCache, worker_count
from pipeline.filters.measures import Batch, Measure
from pipeline.filters.verdict import Verdict
from pipeline.inference.collector import Collector, Question
from pipeline.models import resolve
from pipeline.models.backends import open_teacher
from pipeline.models.base import Completion, Failure, Model, Request, Sampling
from pipeline.records import Failed, Identified, Sample, Seed, digest
from pipeline.storage.files import sha256
from pipeline.storage.journal import Shard, read_failures, sweep
from pipeline.storage.samples import Samples
from pipeline.storage.shards import read_records

log = logging.getLogger(__name__)

SHARD_SIZE = 8192
SHOWN = 80  # characters of an opinion without a mark
NUMBER = re.compile(r"[-+]?\d+(?:\.\d+)?")
ID = re.compile(r'^\{"id":"([0-9a-f]+)"', re.MULTILINE)  # at the beginning of a line of a journal
TOLD = (
    "reply",
    "reply_answer",
    "reply_rationale",
    "ground_truth",
)  # what a rubric may name besides the seed's inputs
Marks = tuple[
    Mapping[int, str], NDArray[np.float64]
]  # by row why there is no mark; (N,) marks, nan where there is none


class Mark(Identified):
    """What the judge said of a sample, and the first number of what the rubric's answer span finds in it."""

    text: str
    mark: float | None = None


def key(batch: Batch) -> list[str]:
    """What a mark is known by."""
    return [
        digest(sample.id, sample.seed.inputs, sample.seed.target, sample.text)
        for sample in batch.samples
    ]


KEY = Measure(key)


@dataclass(frozen=True)
class Bench:
    """A judge, and where its marks are kept."""

    config: Config

    @property
    def judge(self) -> Judge:
        assert self.config.filter.judge is not None
        return self.config.filter.judge

    @property
    def model(self) -> Teacher:
        """The teacher's settings but for those that the judge has of its own."""
        teacher, judge = self.config.teacher, self.judge
        if judge.model is None:
            return teacher.model_copy(update={"logprobs": 0})
        own = {
            "backend": judge.backend,
            "base_url": judge.base_url,
            "api_key_env": judge.api_key_env,
            "replies": judge.replies,
        }
        other = {"model": judge.model, "revision": judge.revision, "tokenizer": None, "logprobs": 0}
        given = {name: value for name, value in own.items() if value is not None}
        return Teacher.model_validate({**teacher.model_dump(), **other, **given})

    @property
    def identity(self) -> str:
        """A digest of whatever could give other marks."""
        model, engine = self.model, self.model.engine
        named = [
            model.backend,
            model.model,
            model.revision,
            model.replies,
            engine.dtype,
            engine.fp32_head,
            engine.max_model_len,
        ]
        return digest(
            named, self.judge.max_tokens, resolve.identities(model), sha256(Path(self.judge.prompt))
        )

    def marks(self, run_dir: Path, left: NDArray[np.int64]) -> Marks:
        """The marks of all samples of the run that have one. Of the rows `left`, those that have none yet are asked for now."""
        measured = MeasureCache(run_dir)
        measured.fill([KEY], worker_count(self.config.filter))
        keys: Any = measured.column(KEY)
        folder = run_dir / "measured" / f"judge-{self.identity}"
        folder.mkdir(parents=True, exist_ok=True)
        said = self._kept(folder)
        lacking = {keys[row]: row for row in left.tolist() if keys[row] not in said}
        failed: dict[str, str] = {}
        if lacking:
            failed = self._ask(folder, Samples(run_dir / "generate"), lacking)
            said = self._kept(folder)
        marks, why = np.full(len(keys), np.nan), {}
        for row, name in enumerate(keys):
            mark, text = said.get(name, (None, failed.get(name, "")))
            if mark is not None and self.judge.lowest <= mark <= self.judge.highest:
                marks[row] = mark
            elif text:
                why[row] = text
        return why, marks

    def _kept(self, folder: Path) -> dict[str, tuple[float | None, str]]:
        """Marks that are there, with what was said where none could be read. What a kill left unfinished is closed as it is."""
        sweep(folder)
        for path in folder.glob("*.journal.jsonl"):
            shard = Shard(folder, int(path.name.split(".")[0]), Mark)
            if shard.claim():
                shard.recover(ID.findall(path.read_text(encoding="utf-8", errors="replace")))
                shard.order = list(shard.done)
                shard.seal()
        return {mark.id: (mark.mark, mark.text[:SHOWN]) for mark in read_records(folder, Mark)}

    def _ask(self, folder: Path, samples: Samples, wanted: Mapping[str, int]) -> dict[str, str]:
        """Ask for the marks of these rows, by key. Returns why those that failed have none; the next command asks for them again."""
        prompt = prompts.load(self.judge.prompt)
        prompts.check(prompt, (_asked(samples[row]) for row in list(wanted.values())[:1]))
        shards = list(_shards(folder, list(wanted)))
        log.info(f"filter judge: {len(wanted):,} samples to mark; loading {self.model.model}")
        model = open_teacher(self.model, folder / "engine.log")
        try:
            progress = Progress("filter judge", len(wanted), unit="marks")
            question = partial(self._question, model, samples, prompt, wanted)
            Collector(
                question,
                _failed,
                progress,
                self.config.generate.max_error_rate,
                "mend that, and give the same command again",
            ).run(
                lambda requests: model.generate(requests, Sampling(self.judge.max_tokens)), shards
            )
        finally:
            model.close()
        failures = [failure for shard in shards for failure in read_failures(shard.errors_path)]
        for shard in shards:
            shard.errors_path.unlink(missing_ok=True)
        return {failure.id: f"{failure.reason}: {failure.message}"[:SHOWN] for failure in failures}

    def _question(
        self,
        model: Model,
        samples: Samples,
        prompt: Prompt,
        wanted: Mapping[str, int],
        identifier: str,
    ) -> Question[Mark]:
        tokenizer = model.tokenizer
        rendered = prompt.render(
            _asked(samples[wanted[identifier]]), tokenizer.control_tokens if tokenizer else ()
        )
        request = Request(
            identifier,
            rendered,
            tokenizer.encode(rendered) if tokenizer else None,
            stop=tuple(prompt.front.stop),
        )

        def record(completion: Completion) -> tuple[Mark, None]:
            answer = replies.read(prompt, completion, tokenizer).answer
            found = NUMBER.search(answer or "")  # "4/5" and "4 out of 5" are 4
            return Mark(
                id=identifier, text=completion.text, mark=float(found.group()) if found else None
            ), None

        return Question(request, record)


def _shards(folder: Path, keys: Sequence[str]) -> Iterator[Shard[Mark]]:
    """New shards behind those that are there."""
    first = (
        max((int(path.name.split(".")[0]) for path in folder.glob("*.jsonl.gz")), default=-1) + 1
    )
    for number, begin in enumerate(range(0, len(keys), SHARD_SIZE), start=first):
        shard = Shard(folder, number, Mark)
        if shard.claim():
            shard.recover(keys[begin : begin + SHARD_SIZE])
            yield shard


def _asked(sample: Sample) -> Seed:
    """What the judge's prompt may name: the seed's inputs, reply, reply_answer, reply_rationale and ground_truth."""
    check([sample.seed])
    told = (sample.text, sample.answer or "", sample.rationale or "", sample.seed.target or "")
    return Seed(id=sample.id, inputs={**sample.seed.inputs, **dict(zip(TOLD, told, strict=True))})


def check(seeds: Iterable[Seed]) -> None:
    """Raise PipelineError for a seed with an input that would be another thing in the rubric."""
    for seed in seeds:
        for name in TOLD:
            if name in seed.inputs:
                raise PipelineError(
                    f"filter.judge: seed {seed.id} has an input '{name}', which the rubric has for its own; rename the input"
                )


def _failed(failure: Failure) -> Failed:
    return Failed(id=failure.id, number=0, index=0, reason=failure.reason, message=failure.message)


def low(
    left: NDArray[np.int64], found: Marks, least: float, drop_unjudged: bool
) -> dict[int, Verdict]:
    """low_mark: less than `least`; the value is the mark. unjudged: no mark on the scale was read; the value is what the judge said."""
    why, marks = found
    verdicts = {
        int(row): Verdict("low_mark", float(marks[row])) for row in left[marks[left] < least]
    }
    if drop_unjudged:
        verdicts |= {
            int(row): Verdict("unjudged", why.get(int(row), ""))
            for row in left[np.isnan(marks[left])]
        }
    return verdicts


def agreement(marks: NDArray[np.float64], right: NDArray[np.float64]) -> float | None:
    """Area under the ROC curve of the marks for telling right answers (1) from wrong ones (0): how often a right one has the higher mark,
    a tie being half (Mann & Whitney 1947). Rows (N,) that are nan in either are left out; None without both kinds."""
    there = ~np.isnan(marks) & ~np.isnan(right)
    good, bad = np.sort(marks[there & (right == 1.0)]), marks[there & (right < 1.0)]
    if not len(good) or not len(bad):
        return None
    below = np.searchsorted(good, bad, side="left")
    upto = np.searchsorted(good, bad, side="right")
    return float(((len(good) - upto) + 0.5 * (upto - below)).sum() / (len(good) * len(bad)))
