"""Every setting: typed sections, their bounds, and their only default."""

from pipeline.config.base import Section
from pipeline.config.evaluate import Evaluate, Fidelity, Gate, LmEval, Load, Memorisation
from pipeline.config.filter import Confidence, Filter, Judge
from pipeline.config.generate import Generate, Score
from pipeline.config.loading import describe, load
from pipeline.config.run import Config
from pipeline.config.student import Lora, Shape, Student
from pipeline.config.task import Source, Task, Verifier
from pipeline.config.teacher import Engine, Licences, Teacher
from pipeline.config.train import Arm, Form, Train

# fmt: off
__all__ = [
    "Arm", "Confidence", "Config", "Engine", "Evaluate", "Fidelity", "Filter", "Form", "Gate",
    "Generate", "Judge", "Licences", "LmEval", "Load", "Lora", "Memorisation", "Score", "Section",
    "Shape", "Source", "Student", "Task", "Teacher", "Train", "Verifier", "describe", "load",
]
