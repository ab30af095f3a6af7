"""The sections of a config in one model, before the rules that span them."""

from pydantic import Field

from pipeline.config.base import Section
from pipeline.config.evaluate import Evaluate
from pipeline.config.filter import Filter
from pipeline.config.generate import Generate, Score
from pipeline.config.student import Student
from pipeline.config.task import Task
from pipeline.config.teacher import Licences, Teacher
from pipeline.config.train import Train


class Sections(Section):
    """A whole run. Paths are relative to the folder in which the command is given."""

    run_dir: str = Field(json_schema_extra={"default": "runs/CONFIG"}, examples=["runs/warm"])
    """Folder of everything that the run writes; CONFIG is the config file's name."""
    task: Task
    licences: Licences = Licences()
    teacher: Teacher
    generate: Generate
    filter: Filter = Filter()
    score: Score = Score()
    student: Student = Student()
    train: Train
    evaluate: Evaluate = Evaluate()
