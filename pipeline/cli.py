"""The command line. Nothing heavy is imported before a command needs it."""

import errno
import importlib
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from pipeline import __version__
from pipeline.errors import PipelineError

if TYPE_CHECKING:
    from pipeline.config import Config
    from pipeline.stage import Stage

F = TypeVar("F", bound=Callable[..., Any])
STAGES = ("generate", "filter", "train", "evaluate")
DISK_ERRORS = {
    errno.ENOSPC: "the disk is full",
    errno.EFBIG: "it would be larger than allowed",
    errno.EROFS: "the folder is read-only",
    errno.EACCES: "permission is denied",
    errno.ENOTDIR: "a file stands where a folder is needed",
    errno.EEXIST: "a file stands where a folder is needed",
    errno.EISDIR: "it is a folder",
    errno.EDQUOT: "the quota is used up",
}


def main() -> None:
    """Run the command line; every error that a user can mend is one line and exit code 1."""
    code = 0
    try:
        code = cli(standalone_mode=False) or 0
    except PipelineError as error:
        code = _complain(str(error))
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except (KeyboardInterrupt, click.Abort):
        click.echo("\nstopped; what is finished is kept, and the same command goes on from here", err=True)
        code = 130
    except BrokenPipeError:  # whoever read the output has gone, as head does
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        code = 141
    except OSError as error:
        if error.errno not in DISK_ERRORS:
            raise
        where = error.filename or "a file"
        code = _complain(f"{where}: cannot be used, {DISK_ERRORS[error.errno]}; mend that, and the same command goes on from here")
    _leave(code)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
def cli() -> None:
    """Distil a task from a large model into a small one.

    \b
    pipeline run configs/quickstart.yaml          all stages, from seeds to figures
    pipeline generate configs/quickstart.yaml     one stage; the same command goes on where it was stopped
    pipeline status runs/quickstart               what is done
    """


def _arguments(command: F) -> F:
    command = click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")(command)
    return click.argument("config", type=click.Path(path_type=Path))(command)


def _stage_options(command: F) -> F:
    return click.option("--redo", is_flag=True, help="Set aside what is there (in RUN/replaced) and make it again.")(_arguments(command))


@cli.command(epilog="Example: pipeline generate configs/quickstart.yaml teacher.temperature=0.7 run_dir=runs/warm")
@_stage_options
def generate(config: Path, overrides: tuple[str, ...], redo: bool) -> None:
    """Ask the teacher: responses, rationales, top-k logprobs."""
    _execute("generate", config, overrides, redo)


@cli.command("filter", epilog="Example: pipeline filter configs/quickstart.yaml filter.max_tokens=64")
@_stage_options
def filter_(config: Path, overrides: tuple[str, ...], redo: bool) -> None:
    """Keep the good samples, say why for every other one."""
    _execute("filter", config, overrides, redo)


@cli.command(epilog="Example: pipeline train configs/quickstart.yaml --arm kd")
@_stage_options
@click.option("--arm", "arms", multiple=True, help="Train only this arm (may be given again).")
def train(config: Path, overrides: tuple[str, ...], redo: bool, arms: tuple[str, ...]) -> None:
    """Train the student, each arm from the same start on the same rows."""
    if arms:
        from pipeline import stage
        from pipeline.stages.train import INIT

        stage.execute(_modules()["train"], _load(config, overrides), [INIT])
    _execute("train", config, overrides, redo, arms)


@cli.command(epilog="Example: pipeline evaluate configs/quickstart.yaml --model teacher")
@_stage_options
@click.option("--model", "models", multiple=True, help="Evaluate only this one: teacher, base or an arm (may be given again).")
def evaluate(config: Path, overrides: tuple[str, ...], redo: bool, models: tuple[str, ...]) -> None:
    """Hold the student against teacher, untouched student and SFT control."""
    _execute("evaluate", config, overrides, redo, models)


@cli.command(epilog="Example: pipeline run configs/quickstart.yaml train.epochs=2 run_dir=runs/longer")
@_stage_options
def run(config: Path, overrides: tuple[str, ...], redo: bool) -> None:
    """All stages in order, each in a process of its own."""
    from pipeline import validate

    settings = _load(config, overrides)
    modules = _modules()
    if not redo and all(_is_done(module, settings) for module in modules.values()):
        click.echo("all stages are done already")
        click.echo("\n".join(module.summary(settings) for module in modules.values()))
        return
    for name in STAGES:
        if not redo and _is_done(modules[name], settings):
            click.echo(f"{name}: done already")
            continue
        if name == STAGES[0]:
            validate.check(settings)
        click.echo(f"--- {name}")
        finished = subprocess.run(
            [sys.executable, "-m", "pipeline", name, str(config), *overrides, *(["--redo"] if redo else [])], check=False
        )
        if finished.returncode:
            _leave(finished.returncode if finished.returncode > 0 else 1)


@cli.command(epilog="Example: pipeline validate configs/quickstart.yaml --origins")
@_arguments
@click.option("--origins", is_flag=True, help="Print every key with its value and where that came from.")
def validate(config: Path, overrides: tuple[str, ...], origins: bool) -> None:
    """Check all that can be checked without loading a model, and print the first prompt."""
    from pipeline import config as configs
    from pipeline import validate as checks

    settings = _load(config, overrides)
    if origins:
        for key, value, origin in configs.describe(config, overrides):
            click.echo(f"{key} = {value!r}  ({origin})")
    for line in checks.check(settings):
        click.echo(line)


@cli.command(epilog="Example: pipeline status runs/quickstart")
@click.argument("run_dir", metavar="RUN", type=click.Path(path_type=Path))
def status(run_dir: Path) -> None:
    """What is done in a run folder, and what is not."""
    from pipeline.status import describe

    for line in describe(run_dir):
        click.echo(line)


@cli.command(epilog="Example: pipeline verify runs/quickstart")
@click.argument("run_dir", metavar="RUN", type=click.Path(path_type=Path))
def verify(run_dir: Path) -> None:
    """Check every file, line and frame of a run against what was written; print how much the logprobs hold."""
    from pipeline.verify import verify as check

    for line in check(run_dir):
        click.echo(line)


def _load(config: Path, overrides: tuple[str, ...]) -> "Config":
    from pipeline.config import load

    return load(config, overrides)


def _modules() -> "dict[str, Any]":
    return {name: importlib.import_module(f"pipeline.stages.{name}") for name in STAGES}


def _is_done(module: "Stage", settings: "Config") -> bool:
    """Whether a stage is done. One that waits for another to finish is not."""
    from pipeline import stage

    begun = any((Path(settings.run_dir) / module.NAME).glob("**/begun.json"))
    return begun and stage.done(module, settings)


def _execute(name: str, config: Path, overrides: tuple[str, ...], redo: bool, only: tuple[str, ...] = ()) -> None:
    from pipeline import stage

    settings = _load(config, overrides)
    module = _modules()[name]
    if not stage.execute(module, settings, only or None, redo):
        click.echo(f"{name}: done already")
    if not only or stage.done(module, settings):
        click.echo(module.summary(settings))


def _complain(message: str) -> int:
    click.echo(f"error: {message}", err=True)
    return 1


def _leave(code: int) -> None:
    """Exit. An in-process engine can abort the interpreter on its way out, after all is on disk; the exit code must not depend on it."""
    sys.stdout.flush()
    sys.stderr.flush()
    if "vllm" in sys.modules:
        os._exit(code)
    sys.exit(code)
