"""The inspect commands: they read a run and report on it; only verify --repair changes a stage."""

import os
import sys
from pathlib import Path

import click

from pipeline.cli.output import echo
from pipeline.report.write import MAX_SAMPLES


@click.command(epilog="Example: pipeline status runs/quickstart")
@click.argument("run_dir", metavar="RUN", type=click.Path(path_type=Path))
def status(run_dir: Path) -> None:
    """List what is done in a run folder, and what is not."""
    from pipeline.inspection.status import describe

    for line in describe(run_dir):
        echo(line)


@click.command(epilog="Example: pipeline explain runs/quickstart 4017/0")
@click.argument("run_dir", metavar="RUN", type=click.Path(path_type=Path))
@click.argument("identifier", metavar="ID")
def explain(run_dir: Path, identifier: str) -> None:
    """Explain one sample: its seed, the teacher's call, each filter's measure, the verdict.

    ID is a sample's id, or a seed's id for all of its samples.
    """
    from pipeline.inspection import explain as inspection

    for line in inspection.explain(run_dir, identifier):
        echo(line)


@click.command(epilog="Example: pipeline inspect runs/quickstart 4017/0 --top 3")
@click.argument("run_dir", metavar="RUN", type=click.Path(path_type=Path))
@click.argument("identifier", metavar="[ID]", required=False)
@click.option(
    "--top",
    type=click.IntRange(0),
    default=0,
    help="Print a line per token, with its N most likely alternatives.",
    metavar="N",
)
def inspect(run_dir: Path, identifier: str | None, top: int) -> None:
    """Print one sample, its tokens coloured by the teacher's probability.

    ID is a sample's or a seed's id; the default is the first sample. Where the output is not a
    terminal, or NO_COLOR is set, the probability follows each token.
    """
    from pipeline.inspection import tokens

    colours = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    for line in tokens.inspect(run_dir, identifier, top, colours):
        click.echo(line)  # printable already, but for its own colours


@click.command(epilog="Example: pipeline diff runs/quickstart runs/warm")
@click.argument("one", metavar="RUN_A", type=click.Path(path_type=Path))
@click.argument("other", metavar="RUN_B", type=click.Path(path_type=Path))
def diff(one: Path, other: Path) -> None:
    """Compare two runs: settings and data, versions, counts, results."""
    from pipeline.inspection.diff import compare_runs

    same = True
    for line in compare_runs(one, other):
        same = False
        echo(line)
    if same:
        echo("no difference")


@click.command(
    epilog="Example: pipeline samples runs/quickstart --rejected --reason correct.wrong_answer "
    "--limit 5"
)
@click.argument("run_dir", metavar="RUN", type=click.Path(path_type=Path))
@click.option(
    "--rejected",
    is_flag=True,
    help="Print the rejected samples, with filter, reason and value.",
)
@click.option(
    "--reason",
    metavar="REASON",
    help="Print only samples rejected for this, such as wrong_answer or correct.wrong_answer.",
)
@click.option("--limit", type=click.IntRange(1), metavar="N", help="Print at most N samples.")
def samples(run_dir: Path, rejected: bool, reason: str | None, limit: int | None) -> None:
    """Print kept or rejected samples as lines of JSON."""
    from pipeline.inspection import explain as inspection

    for line in inspection.list_samples(run_dir, rejected or reason is not None, reason, limit):
        echo(line)


@click.command(epilog="Example: pipeline verify runs/quickstart --recheck 32")
@click.argument("run_dir", metavar="RUN", type=click.Path(path_type=Path))
@click.option(
    "--repair",
    is_flag=True,
    help="Move damaged shards of generate and score to quarantine/, so that only they are "
    "regenerated; copy prompts anew.",
)
@click.option(
    "--recheck",
    type=click.IntRange(1),
    metavar="ROWS",
    help="Load the teacher and compare it with the stored logprobs of ROWS samples.",
)
@click.option(
    "--stage",
    type=click.Choice(["generate", "score"]),
    default="generate",
    show_default=True,
    help="The stage that --recheck reads.",
)
def verify(run_dir: Path, repair: bool, recheck: int | None, stage: str) -> None:
    """Check every file, line and frame of a run; print how much mass the logprobs cover."""
    from pipeline.inspection import recheck as comparison
    from pipeline.inspection import verify as checks

    if repair and recheck:
        raise click.UsageError(
            "--repair and --recheck are two steps: repair, run the stage's command if it says so, "
            "then recheck"
        )
    if repair:
        damaged = False
        for line in checks.repair(run_dir):
            damaged = True
            echo(line)
        if not damaged:
            echo(f"{run_dir}: nothing in generate and score is damaged")
        return
    for line in checks.verify(run_dir):
        echo(line)
    if recheck:
        echo(comparison.recheck(run_dir, stage, recheck))


@click.command(epilog="Example: pipeline schema teacher.engine")
@click.argument("prefix", metavar="[PREFIX]", default="")
@click.option("--markdown", is_flag=True, help="Print tables, as in docs/reference/config.md.")
def schema(prefix: str, markdown: bool) -> None:
    """Print every config key with its values, default, meaning and an example.

    With PREFIX, such as teacher, print only the keys below it.
    """
    from pipeline.config import reference

    lines = [reference.markdown(prefix)] if markdown else reference.lines(prefix)
    for line in lines:
        echo(line)


@click.command(epilog="Example: pipeline report runs/quickstart --serve")
@click.argument("run_dir", metavar="RUN", type=click.Path(path_type=Path))
@click.option(
    "--serve", "serving", is_flag=True, help="Serve it on this machine afterwards, until Ctrl-C."
)
@click.option(
    "--port",
    type=click.IntRange(1, 65535),
    default=8010,
    show_default=True,
    help="The port of --serve.",
)
@click.option(
    "--samples",
    "most",
    type=click.IntRange(1),
    default=MAX_SAMPLES,
    show_default=True,
    help="Samples to browse; rejected ones come first.",
)
def report(run_dir: Path, serving: bool, port: int, most: int) -> None:
    """Write RUN/report: index.html for a browser, report.md for pull requests.

    The report of an unfinished run shows what exists, what is missing, and the next command.
    """
    from pipeline.report import server, write

    path = write.write(run_dir, most)
    echo(f"report: {path}")
    if serving:
        server.serve(path.parent, port)


@click.command(epilog="Example: pipeline advise runs/quickstart")
@click.argument("run_dir", metavar="RUN", type=click.Path(path_type=Path))
def advise(run_dir: Path) -> None:
    """Say what to expect of training, or after evaluation what fell short and what to try.

    Writes RUN/advice.json. Needs a finished filter.
    """
    from pipeline.advice import text

    for line in text.lines(text.advise(run_dir)):
        echo(line)


COMMANDS = (status, advise, report, explain, inspect, samples, diff, verify, schema)
