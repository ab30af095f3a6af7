"""The config of a run: all sections, and the rules that span them."""

from typing import Any, Self

from pydantic import Field, model_validator

from pipeline.config.base import Section, is_runtime, walk
from pipeline.config.evaluate import Evaluate
from pipeline.config.filter import Filter
from pipeline.config.generate import Generate, Score
from pipeline.config.student import Student
from pipeline.config.task import Task
from pipeline.config.teacher import Licences, Teacher
from pipeline.config.train import Train


class Config(Section):
    """A whole run. Paths are relative to the folder in which the command is given."""

    run_dir: str = Field(
        json_schema_extra={"default": "runs/CONFIG"},
        description="everything the run makes; CONFIG is the file's name",
        examples=["runs/warm"],
    )
    task: Task
    licences: Licences = Licences()
    teacher: Teacher
    generate: Generate
    filter: Filter = Filter()
    score: Score = Score()
    student: Student = Student()
    train: Train
    evaluate: Evaluate = Evaluate()

    @model_validator(mode="after")
    def sections_agree(self) -> Self:
        if self.teacher.temperature == 0 and self.generate.samples > 1:
            raise ValueError(
                "generate.samples above 1 at teacher.temperature 0 would give the same text again; raise the temperature"
            )
        if self.evaluate.backend == "fake" and self.teacher.replies is None:
            raise ValueError("evaluate.backend fake answers with teacher.replies; set them")
        needs = [name for name, arm in self.train.arms.items() if arm.method == "kd"]
        if needs and self.teacher.logprobs == 0 and self.train.rows == "filter":
            raise ValueError(
                f"arm {needs[0]} is kd and needs teacher.logprobs of 1 or more; set it, set train.rows: score, or train sft arms only"
            )
        soft = [name for name, arm in self.train.arms.items() if arm.soft_labels]
        for name in soft:
            arm = self.train.arms[name]
            if (
                self.filter.calibrated is None
                or self.train.rows != "filter"
                or arm.method != "kd"
                or arm.selection == "random"
            ):
                raise ValueError(
                    f"arm {name} has soft_labels: it must be kd on kept rows of train.rows: filter, "
                    "and filter.calibrated be on, such as {}"
                )
        corrected = [name for name, arm in self.train.arms.items() if arm.corrected]
        if (
            corrected
            and self.filter.correct
            and (self.train.rows == "filter" or self.score.source == "kept")
        ):
            raise ValueError(
                f"arm {corrected[0]} is corrected, but filter.correct drops what is wrong before; set filter.correct: false"
            )
        drawn = [name for name, arm in self.train.arms.items() if arm.selection == "random"]
        if drawn and self.train.rows == "score":
            raise ValueError(
                f"arm {drawn[0]} draws from all samples, and score has only some; set train.rows: filter, or the arm's selection: kept"
            )
        return self

    @model_validator(mode="after")
    def answers_can_be_measured(self) -> Self:
        teacher, memorised = self.teacher, self.evaluate.memorisation
        if self.evaluate.fidelity and teacher.backend == "openai" and teacher.tokenizer is None:
            raise ValueError(
                "evaluate.fidelity needs the teacher's token ids and logprobs; set teacher.tokenizer, or leave it out"
            )
        if self.evaluate.also and self.task.metric == "code":
            raise ValueError(
                "evaluate.also: under metric code the ground truth is tests, which no answer can be held against as text"
            )
        if memorised and not memorised.rows and not self.train.canaries:
            raise ValueError(
                "evaluate.memorisation.rows=0 leaves the canaries alone, and there are none; set train.canaries, or raise rows"
            )
        return self

    @model_validator(mode="after")
    def filters_can_be_run(self) -> Self:
        if self.filter.calibrated and self.task.labels is None:
            raise ValueError(
                "filter.calibrated needs a label task; leave it out, or set task.metric: label and task.labels"
            )
        if self.filter.calibrated and self.filter.calibrated.content_free:
            if self.filter.calibrated.shares:
                raise ValueError(
                    "filter.calibrated.shares and content_free are two ways to calibrate; leave one out"
                )
            if len(self.generate.prompt) > 1:
                raise ValueError(
                    "filter.calibrated.content_free is for one prompt, and generate.prompt has several; leave it out"
                )
        shares = self.filter.calibrated.shares if self.filter.calibrated else None
        if shares is not None and len(shares) != len(self.task.labels or ()):
            raise ValueError(
                f"filter.calibrated.shares has {len(shares)} numbers for {len(self.task.labels or ())} labels; give one for each"
            )
        best_by = [
            one.best_by
            for one in (
                self.filter.near,
                self.filter.semantic,
                self.filter.balance,
                self.filter.budget,
            )
            if one
        ]
        sure = (
            self.filter.confidence
            or self.filter.calibrated
            or {"mean_logprob", "answer_margin"} & {*best_by}
        )
        if sure and self.teacher.logprobs == 0:
            raise ValueError(
                "filter: confidence, calibrated and best_by read logprobs; set teacher.logprobs to 1 or more, or leave them out"
            )
        names = [name.partition(":")[2] for name in self.filter.custom]
        if len(set(names)) < len(names):
            raise ValueError(
                "filter.custom: two functions of the same name could not be told apart; rename one"
            )
        if self.filter.against and not (
            self.filter.duplicate or self.filter.near or self.filter.semantic
        ):
            raise ValueError(
                "filter.against is for duplicate, near and semantic; turn one of them on, or leave it out"
            )
        judge = self.filter.judge
        backend = judge and (judge.backend or self.teacher.backend)
        if (
            judge
            and judge.model
            and backend == "openai"
            and not (judge.base_url or self.teacher.base_url)
        ):
            raise ValueError("filter.judge.backend openai needs base_url")
        if (
            judge
            and judge.model
            and backend == "fake"
            and not (judge.replies or self.teacher.replies)
        ):
            raise ValueError("filter.judge.backend fake needs replies")
        truth = [
            name for name, arm in self.train.arms.items() if arm.corrected or arm.text == "truth"
        ]
        if self.task.metric == "code" and truth:
            raise ValueError(
                f"arm {truth[0]}: under metric code the ground truth is tests, which nobody wants a student to write"
            )
        return self

    @model_validator(mode="after")
    def answers_can_be_compared(self) -> Self:
        settings, prompts = self.filter, len(self.generate.prompt)
        if settings.consistent and self.task.metric in ("math", "json", "code"):
            raise ValueError(
                f"filter.consistent holds texts beside one another, which says nothing under metric {self.task.metric}; leave it out"
            )
        by_votes = settings.difficulty is not None and settings.difficulty.losses is None
        votes = [
            name for name, on in (("agreement", settings.agreement), ("difficulty", by_votes)) if on
        ]
        if votes and self.generate.samples * prompts == 1:
            raise ValueError(
                f"filter.{votes[0]} counts votes, and a seed has one sample; raise generate.samples, or leave it out"
            )
        if settings.prompts_agree and prompts == 1:
            raise ValueError(
                "filter.prompts_agree needs several prompts, and generate.prompt is one; leave it out"
            )
        return self

    def settings(self, *paths: str) -> dict[str, Any]:
        """The values under `paths` (such as "teacher" or "task.seeds") that can change a result, flat, by dotted key."""
        return {
            key: getattr(section, name)
            for key, section, name in walk(self)
            if any(key == path or key.startswith(path + ".") for path in paths)
            and not is_runtime(section, name)
        }
