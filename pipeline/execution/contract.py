"""The contract of a stage, and the job that it is given."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from pipeline.config import Config


@dataclass(frozen=True)
class Job:
    """One part of one stage, about to be run."""

    config: Config
    stage: str
    part: str
    folder: Path

    @property
    def run_dir(self) -> Path:
        return Path(self.config.run_dir)

    @property
    def begun(self) -> Path:
        """The file that says from which settings and inputs the part was started."""
        return self.folder / "begun.json"

    @property
    def manifest(self) -> Path:
        """The file whose presence says that the part is finished."""
        return self.folder / "manifest.json"

    @property
    def engine_log(self) -> Path:
        """Where an engine's own processes print."""
        return self.folder / "engine.log"


class Stage(Protocol):
    NAME: str
    NOTES: frozenset[str]
    DISPOSABLE: frozenset[str]
    SHARED: bool

    def parts(self, config: Config) -> list[str]: ...
    def sections(self, config: Config, part: str) -> list[str]: ...
    def reads(self, config: Config, part: str) -> list[str]: ...
    def files(self, config: Config, part: str) -> list[Path]: ...
    def identities(self, config: Config, part: str) -> Mapping[str, str]: ...
    def run(self, job: Job) -> dict[str, Any]: ...
    def summary(self, config: Config) -> str: ...
