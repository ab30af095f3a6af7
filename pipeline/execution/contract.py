"""The contract of a stage, and the job that the runner gives it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from pipeline.config import Config


@dataclass(frozen=True)
class Job:
    """One part of one stage, about to run. `folder` is where the part keeps its files."""

    config: Config
    stage: str
    part: str
    folder: Path

    @property
    def run_dir(self) -> Path:
        """The folder of the whole run."""
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
        """The file to which an engine's own processes print."""
        return self.folder / "engine.log"


class Stage(Protocol):
    """A stage: a module of pipeline/stages with the names below, run by execution/runner.

    A stage may also have these three:

    summary(config: Config) -> str
        Return what its command prints when all parts are done. Reads files, writes none.
    reopen(job: Job) -> None
        Run a finished part again to measure what is not its output, such as its speed.
    finish(config: Config) -> None
        Write a summary of all parts. The runner calls it when the last part is done, and again
        for a finished run. A file that already has the right content is not written again.
    """

    NAME: str
    """The folder of the run that the stage fills, and its command."""

    NOTES: frozenset[str]
    """Files and folders of a part that are notes about it, not outputs that later stages read."""

    DISPOSABLE: frozenset[str]
    """Files and folders that a new start simply writes again.

    A folder that holds only these may be restarted with other settings without an error. It is then
    archived.
    """

    SHARED: bool
    """Whether many processes may work on one part at once."""

    def parts(self, config: Config) -> list[str]:
        """Return the names of the parts; [""] if the stage has only one part."""
        ...

    def sections(self, config: Config, part: str) -> list[str]:
        """Return the config sections that can change the result: "teacher", "task.seeds", …"""
        ...

    def reads(self, config: Config, part: str) -> list[str]:
        """Return the folders of the run that the part reads, each with a manifest."""
        ...

    def files(self, config: Config, part: str) -> list[Path]:
        """Return the files outside the run whose content can change the result."""
        ...

    def identities(self, config: Config, part: str) -> Mapping[str, str]:
        """Return the identity of each model or dataset that the part uses, by name."""
        ...

    def run(self, job: Job) -> dict[str, Any]:
        """Make the missing outputs of a part. Return its counts, recomputed from the files."""
        ...
