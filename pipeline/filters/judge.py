"""A model that reads every reply that is left and gives it a mark by a rubric. Its words are kept; nobody is asked twice.

RUN/measured/judge-KEY/0, 1, …: the rounds. Each asks, in shards, those who came as far as the judge and had no mark yet: a looser threshold
before it sends more, and only these are asked.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline import models, prompts, replies
from pipeline.collect import Collector, Question, claim_all
from pipeline.config import Config, Judge, Teacher
from pipeline.filters.verdict import Verdict
from pipeline.models import Completion, Failure, Model, Request, Sampling, open_teacher
from pipeline.progress import Progress
from pipeline.prompts import Prompt
from pipeline.records import Failed, Identified, Sample, Seed, digest
from pipeline.samples import Samples
from pipeline.scoring import number
from pipeline.store import content, read_json, read_records, sha256, write_json

SHARD_SIZE = 512
UNREADABLE = 80  # characters of it that a verdict shows


class Mark(Identified):
    """What the judge said of a sample, and the mark that was read from it; None if it cannot be."""

    text: str
    mark: float | None = None


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
        own = {"backend": judge.backend, "base_url": judge.base_url, "replies": judge.replies}
        other = {"model": judge.model, "revision": judge.revision, "tokenizer": None, "logprobs": 0}
        given = {name: value for name, value in own.items() if value is not None}
        return Teacher.model_validate({**teacher.model_dump(), **other, **given})

    def folder(self, run_dir: Path) -> Path:
        """Named by whatever could give other marks."""
        model = self.model
        named = [model.backend, model.model, model.revision, model.replies, model.engine.dtype, model.engine.max_model_len]
        told = [named, self.judge.max_tokens, models.identities(model), sha256(Path(self.judge.prompt))]
        return run_dir / "measured" / f"judge-{digest(told, content(read_json(run_dir / 'generate' / 'manifest.json')))}"

    def marks(self, run_dir: Path, left: NDArray[np.int64]) -> tuple[list[str], NDArray[np.float64]]:
        """(what was said, marks (N,)) of all samples of the run, "" and nan where there is none. Of the rows `left`, those that were
        not asked yet are asked now."""
        samples = Samples(run_dir / "generate")
        folder = self.folder(run_dir)
        folder.mkdir(parents=True, exist_ok=True)
        prompt = prompts.load(self.judge.prompt)
        rounds = sorted((path for path in folder.iterdir() if path.name.isdigit()), key=lambda path: int(path.name))
        said = {row: mark for one in rounds for row, mark in self._round(one, samples, prompt).items()}
        lacking = [int(row) for row in left if int(row) not in said]
        if lacking:
            one = folder / str(len(rounds))
            one.mkdir()
            write_json(one / "rows.json", lacking)
            said |= self._round(one, samples, prompt)
        texts, marks = [""] * len(samples), np.full(len(samples), np.nan)
        for row, mark in said.items():
            texts[row] = mark.text[:UNREADABLE] if mark.mark is None else ""
            marks[row] = np.nan if mark.mark is None else mark.mark
        return texts, marks

    def _round(self, folder: Path, samples: Samples, prompt: Prompt) -> dict[int, Mark]:
        """The marks of one round by row, asked for if they are not there."""
        if not (folder / "rows.json").exists():  # killed before it was begun
            return {}
        rows: list[int] = read_json(folder / "rows.json")
        wanted = {str(row): row for row in rows}
        shards = claim_all(folder, list(wanted), Mark, SHARD_SIZE)
        lacking = sum(len(shard.missing) for shard in shards)
        if lacking:
            prompts.check(prompt, (_asked(samples[row]) for row in rows[:1]))
            print(f"filter judge: {len(wanted) - lacking:,} of {len(wanted):,} marks are there; loading {self.model.model}", flush=True)
            model = open_teacher(self.model, folder / "engine.log")
            try:
                question = partial(self._question, model, samples, prompt, wanted)
                progress = Progress("filter judge", len(wanted), len(wanted) - lacking, unit="marks")
                Collector(question, _failed, progress, self.config.generate.max_error_rate).run(
                    lambda requests: model.generate(requests, Sampling(self.judge.max_tokens)), shards
                )
            finally:
                model.close()
        return {int(mark.id): mark for mark in read_records(folder, Mark)}

    def _question(self, model: Model, samples: Samples, prompt: Prompt, wanted: Mapping[str, int], identifier: str) -> Question[Mark]:
        tokenizer = model.tokenizer
        rendered = prompt.render(_asked(samples[wanted[identifier]]), tokenizer.control_tokens if tokenizer else ())
        request = Request(identifier, rendered, tokenizer.encode(rendered) if tokenizer else None, stop=tuple(prompt.front.stop))

        def record(completion: Completion) -> tuple[Mark, None]:
            answer = replies.read(prompt, completion, tokenizer).answer
            mark = number(answer) if answer else None
            readable = mark is not None and self.judge.lowest <= mark <= self.judge.highest
            return Mark(id=identifier, text=completion.text, mark=mark if readable else None), None

        return Question(request, record)


def _asked(sample: Sample) -> Seed:
    """What the judge's prompt may name: the seed's inputs, reply, reply_answer, reply_rationale and ground_truth."""
    told = {"reply": sample.text, "reply_answer": sample.answer or "", "reply_rationale": sample.rationale or ""}
    return Seed(id=sample.id, inputs={**sample.seed.inputs, **told, "ground_truth": sample.seed.target or ""})


def _failed(failure: Failure) -> Failed:
    return Failed(id=failure.id, number=int(failure.id), index=0, reason=failure.reason, message=failure.message)


def low(left: NDArray[np.int64], found: tuple[list[str], NDArray[np.float64]], least: float, drop_unjudged: bool) -> dict[int, Verdict]:
    """low_mark: less than `least`; the value is the mark. unjudged: no mark could be read; the value is what the judge said."""
    texts, marks = found
    verdicts = {int(row): Verdict("low_mark", float(marks[row])) for row in left[marks[left] < least]}
    if drop_unjudged:
        verdicts |= {int(row): Verdict("unjudged", texts[row]) for row in left[np.isnan(marks[left])]}
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
