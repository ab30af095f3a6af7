"""The command line. Nothing heavy is imported before a command needs it."""

import io
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from pipeline import __version__
from pipeline.cli import inspect
from pipeline.cli.exits import (
    DISK_ERRORS,
    NO_READER,
    exit_process,
    print_error,
    print_stopped,
)
from pipeline.cli.output import echo
from pipeline.cli.run import (
    STAGES,
    exit_code,
    is_done,
    load,
    run_child,
    run_stage,
    stage_modules,
    worst,
    write_report,
)
from pipeline.errors import DONE, PipelineError, Stopped
from pipeline.execution import console, signals
from pipeline.execution.redaction import redacted

F = TypeVar("F", bound=Callable[..., Any])
LOOPBACK = "127.0.0.1"


def main() -> None:
    """Run the command line. A user error is printed as one line; its exit code is 1."""
    console.configure()
    try:
        code = _run()
    except BrokenPipeError:  # the reader of the output has ended, as head does
        code = NO_READER
    exit_process(code)


def _run() -> int:
    """Run a command. Return its exit code, after printing what ended it."""
    received = signals.listen()
    try:
        return cli(standalone_mode=False) or DONE
    except PipelineError as error:
        return print_stopped(received[0]) if received else print_error(str(error))
    except click.ClickException as error:
        shown = io.StringIO()
        error.show(file=shown)
        echo(redacted(shown.getvalue().rstrip("\n")), err=True)
        return error.exit_code
    except (KeyboardInterrupt, click.Abort, Stopped) as stop:
        return print_stopped(stop.signal if isinstance(stop, Stopped) else signal.SIGINT)
    except SystemExit as end:
        if type(sys.stdout).__name__.endswith("PacifyFlushWrapper"):  # by click, after EPIPE
            raise BrokenPipeError from None
        raise end
    except BrokenPipeError:
        raise
    except OSError as error:
        if error.errno not in DISK_ERRORS:
            raise
        where = error.filename or "a file"
        return print_error(
            f"{where}: cannot be used, {DISK_ERRORS[error.errno]}; "
            "fix that, and the same command continues from here"
        )


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
def cli() -> None:
    """Distil a task from a large model into a small one.

    \b
    pipeline run configs/quickstart.yaml          run all stages, from seeds to figures
    pipeline generate configs/quickstart.yaml     run one stage, or continue a stopped one
    pipeline status runs/quickstart               list what is done
    pipeline report runs/quickstart               write the report as a page

    Exit codes: 0 done; 1 a user error, nothing is lost; 2 a mistake on the command line, or a
    student that misses evaluate.gate; 3 done, but some requests failed; 130 and 143 stopped by
    Ctrl-C and by SIGTERM.
    """


def _arguments(command: F) -> F:
    command = click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")(command)
    return click.argument("config", type=click.Path(path_type=Path))(command)


def _stage_options(command: F) -> F:
    redo = click.option(
        "--redo", is_flag=True, help="Archive existing results in RUN/replaced and regenerate them."
    )
    return redo(_arguments(command))


def _retry_option(command: F) -> F:
    retry = click.option("--retry-errors", is_flag=True, help="Repeat requests that failed before.")
    return retry(command)


@cli.command(
    epilog="Example: pipeline generate configs/quickstart.yaml teacher.temperature=0.7 "
    "run_dir=runs/warm"
)
@_stage_options
@_retry_option
def generate(config: Path, overrides: tuple[str, ...], redo: bool, retry_errors: bool) -> int:
    """Ask the teacher for responses, rationales and top-k logprobs.

    The same command, given again or on several machines that share the run folder, takes the shards
    that no process works on.
    """
    return run_stage("generate", config, overrides, redo, retry_errors=retry_errors)


@cli.command(epilog="Example: pipeline score configs/quickstart.yaml score.source=targets")
@_stage_options
@_retry_option
def score(config: Path, overrides: tuple[str, ...], redo: bool, retry_errors: bool) -> int:
    """Ask the teacher for top-k logprobs of existing text, by prefill.

    The text is the kept rows, the ground truth, or another run's samples (score.source).
    With train.rows=score, arms learn from it.
    """
    return run_stage("score", config, overrides, redo, retry_errors=retry_errors)


@cli.command(
    "filter", epilog="Example: pipeline filter configs/quickstart.yaml filter.max_tokens=64"
)
@_stage_options
def filter_(config: Path, overrides: tuple[str, ...], redo: bool) -> int:
    """Keep the good samples, and give a reason for every rejected one."""
    return run_stage("filter", config, overrides, redo)


@cli.command(epilog="Example: pipeline train configs/quickstart.yaml --arm kd")
@_stage_options
@click.option("--arm", "arms", multiple=True, help="Train only this arm; can be repeated.")
def train(config: Path, overrides: tuple[str, ...], redo: bool, arms: tuple[str, ...]) -> int:
    """Train the student, each arm from the same start on the same rows."""
    if arms:
        from pipeline.execution import runner
        from pipeline.execution.paths import INIT

        runner.execute(stage_modules()["train"], load(config, overrides), [INIT])
    return run_stage("train", config, overrides, redo, arms)


@cli.command(epilog="Example: pipeline evaluate configs/quickstart.yaml --model teacher")
@_stage_options
@click.option(
    "--model",
    "models",
    multiple=True,
    help="Evaluate only this model: teacher, base or an arm; can be repeated.",
)
def evaluate(config: Path, overrides: tuple[str, ...], redo: bool, models: tuple[str, ...]) -> int:
    """Compare the student with teacher, base student and SFT control; measure cost in use.

    evaluate.fidelity, evaluate.memorisation and evaluate.lm_eval add more figures:
    docs/reference/evaluation.md, docs/how-to/cost.md.
    """
    return run_stage("evaluate", config, overrides, redo, models)


@cli.command(
    epilog="Example: pipeline run configs/quickstart.yaml train.epochs=2 run_dir=runs/longer"
)
@_stage_options
def run(config: Path, overrides: tuple[str, ...], redo: bool) -> int:
    """Run all stages in order, each in its own process."""
    from pipeline.execution import runner
    from pipeline.inspection import validate

    settings = load(config, overrides)
    names = [name for name in STAGES if name != "score" or settings.train.rows == "score"]
    modules = {name: module for name, module in stage_modules().items() if name in names}
    if not redo and all(is_done(module, settings) for module in modules.values()):
        echo("all stages are done already")
        for module in modules.values():
            runner.finish(module, settings)
        echo("\n".join(module.summary(settings) for module in modules.values()))
        code = worst([exit_code(module, settings) for module in modules.values()])
        write_report(settings)
        return code
    code = DONE
    for name in names:
        if not redo and is_done(modules[name], settings):
            echo(f"{name}: done already")
            code = worst([code, exit_code(modules[name], settings)])
            continue
        if name == STAGES[0]:
            validate.check_config(settings)
        echo(f"--- {name}")
        code = max(code, run_child(name, config, *overrides, *(["--redo"] if redo else [])))
    return code


@cli.command(epilog="Example: pipeline ablate configs/quickstart.yaml --arm sft --repeats 5")
@_stage_options
@click.option(
    "--arm", help="The arm of the config that is trained each time.  [default: the first]"
)
@click.option(
    "--repeats",
    type=click.IntRange(1),
    default=3,
    show_default=True,
    help="Students trained on each set, with training seeds 0, 1, ...",
)
@click.option(
    "--share",
    "shares",
    multiple=True,
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    help="Train on this share of the kept samples too; can be repeated.  [default: 0.5 and 0.25]",
)
@click.option("--no-curve", is_flag=True, help="Compare only curated with random samples.")
def ablate(
    config: Path,
    overrides: tuple[str, ...],
    redo: bool,
    arm: str | None,
    repeats: int,
    shares: tuple[float, ...],
    no_curve: bool,
) -> int:
    """Measure whether curation is worth it, and whether more data would help.

    Trains the student on the kept samples, on as many random ones and on shares of the kept ones.
    Prints the differences with their intervals. Results are in RUN/ablate; the run is not changed.
    """
    from pipeline.ablation import plan
    from pipeline.ablation import run as ablation

    if no_curve and shares:
        raise click.UsageError(
            "--share is a point of the curve that --no-curve leaves out; give one of the two"
        )
    planned = plan.plan(config, overrides, arm, repeats, () if no_curve else shares or (0.5, 0.25))
    option = {"train": "--arm", "evaluate": "--model"}
    if not ablation.run(
        planned,
        lambda name, part: run_child(name, config, *planned.overrides, option[name], part),
        redo,
    ):
        echo("ablate: done already")
    echo(ablation.write(planned))
    return DONE


@cli.command(epilog="Example: pipeline validate configs/quickstart.yaml --origins")
@_arguments
@click.option(
    "--origins", is_flag=True, help="Print every key with its value and where it was set."
)
def validate(config: Path, overrides: tuple[str, ...], origins: bool) -> None:
    """Check everything that needs no model, and print the first prompt."""
    from pipeline.config import loading
    from pipeline.inspection import validate as checks

    settings = load(config, overrides)
    if origins:
        for key, value, origin in loading.describe(config, overrides):
            echo(redacted(f"{key} = {value!r}  ({origin})"))
    for line in checks.check_config(settings):
        echo(line)


@cli.command(epilog="Example: pipeline serve configs/quickstart.yaml --port 8000")
@_arguments
@click.option("--port", type=click.IntRange(1, 65535), default=8000, show_default=True)
def serve(config: Path, overrides: tuple[str, ...], port: int) -> None:
    """Serve the teacher over HTTP on this machine for teacher.backend=openai, until Ctrl-C."""
    from pipeline.models.resolve import tokenizer_path
    from pipeline.models.vllm_engine import server_command

    settings = load(config, overrides)
    teacher = settings.teacher.model_copy(
        update={"logprobs": max(settings.teacher.logprobs, settings.score.logprobs)}
    )
    command = server_command(teacher, LOOPBACK, port)
    url = f"http://{LOOPBACK}:{port}/v1"
    echo(
        f"to ask it, when it is up: teacher.backend=openai teacher.base_url={url} "
        f"teacher.tokenizer={tokenizer_path(teacher)}"
    )
    sys.stdout.flush()
    os.execv(command[0], command)


for command in inspect.COMMANDS:
    cli.add_command(command)
