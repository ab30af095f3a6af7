"""The commands that only look: what is done, what became of a sample, whether every byte is still there."""

import os
import sys
from pathlib import Path

import click

from pipeline.report.write import MAX_SAMPLES


@click.command(epilog="Example: pipeline status runs/quickstart")
@click.argument("run_dir", metavar="RUN", type=click.Path(path_type=Path))
def status(run_dir: Path) -> None:
    """What is done in a run folder, and what is not."""
    from pipeline.inspection.status import describe

    for line in describe(run_dir):
        click.echo(line)


@click.command(epilog="Example: pipeline explain runs/quickstart 4017/0")
@click.argument("run_dir", metavar="RUN", type=click.Path(path_type=Path))
@click.argument("identifier", metavar="ID")
def explain(run_dir: Path, identifier: str) -> None:
    """One sample's whole life: seed, teacher's call, what each filter found, verdict.

    ID is a sample's, or a seed's for all of its samples.
    """
    from pipeline.inspection import explain as lives

    for line in lives.explain(run_dir, identifier):
        click.echo(line)


@click.command(epilog="Example: pipeline inspect runs/quickstart 4017/0 --top 3")
@click.argument("run_dir", metavar="RUN", type=click.Path(path_type=Path))
@click.argument("identifier", metavar="[ID]", required=False)
@click.option(
    "--top",
    type=click.IntRange(0),
    default=0,
    help="A line a token, with so many of the likeliest others.",
)
def inspect(run_dir: Path, identifier: str | None, top: int) -> None:
    """One sample, its tokens coloured by the teacher's probability. ID is a sample's or a seed's; without it the first one is shown.

    Where the output is no terminal, or NO_COLOR is set, probabilities stand behind the tokens.
    """
    from pipeline.inspection import tokens

    colours = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    for line in tokens.inspect(run_dir, identifier, top, colours):
        click.echo(line)


@click.command(epilog="Example: pipeline diff runs/quickstart runs/warm")
@click.argument("one", metavar="RUN_A", type=click.Path(path_type=Path))
@click.argument("other", metavar="RUN_B", type=click.Path(path_type=Path))
def diff(one: Path, other: Path) -> None:
    """What two runs differ in: settings and data, versions, counts, results."""
    from pipeline.inspection.diff import compare_runs

    same = True
    for line in compare_runs(one, other):
        same = False
        click.echo(line)
    if same:
        click.echo("no difference")


@click.command(
    epilog="Example: pipeline samples runs/quickstart --rejected --reason correct.wrong_answer --limit 5"
)
@click.argument("run_dir", metavar="RUN", type=click.Path(path_type=Path))
@click.option(
    "--rejected",
    is_flag=True,
    help="Those that the filters turned down, with filter, reason and value.",
)
@click.option(
    "--reason",
    metavar="REASON",
    help="Only those turned down for it, such as wrong_answer or correct.wrong_answer.",
)
@click.option("--limit", type=click.IntRange(1), help="Only the first so many.")
def samples(run_dir: Path, rejected: bool, reason: str | None, limit: int | None) -> None:
    """Print samples as lines of JSON: those that were kept, or those that were not."""
    from pipeline.inspection import explain as lives

    for line in lives.list_samples(run_dir, rejected or reason is not None, reason, limit):
        click.echo(line)


@click.command(epilog="Example: pipeline verify runs/quickstart --recheck 32")
@click.argument("run_dir", metavar="RUN", type=click.Path(path_type=Path))
@click.option(
    "--repair",
    is_flag=True,
    help="Set damaged shards of generate and score aside, so that just they are made again; copy prompts anew.",
)
@click.option(
    "--recheck",
    type=click.IntRange(1),
    metavar="ROWS",
    help="Load the teacher and hold stored logprobs of ROWS samples against it.",
)
@click.option(
    "--stage",
    type=click.Choice(["generate", "score"]),
    default="generate",
    show_default=True,
    help="What --recheck looks at.",
)
def verify(run_dir: Path, repair: bool, recheck: int | None, stage: str) -> None:
    """Check every file, line and frame of a run against what was written; print how much the logprobs hold."""
    from pipeline.inspection import recheck as fresh
    from pipeline.inspection import verify as checks

    if repair and recheck:
        raise click.UsageError(
            "--repair and --recheck are two steps: repair, give the stage's command if it says so, then recheck"
        )
    if repair:
        damaged = False
        for line in checks.repair(run_dir):
            damaged = True
            click.echo(line)
        if not damaged:
            click.echo(f"{run_dir}: nothing in generate and score is damaged")
        return
    for line in checks.verify(run_dir):
        click.echo(line)
    if recheck:
        click.echo(fresh.recheck(run_dir, stage, recheck))


@click.command(epilog="Example: pipeline schema teacher.engine")
@click.argument("prefix", metavar="[PREFIX]", default="")
@click.option(
    "--markdown", is_flag=True, help="Print tables, as they stand in docs/reference/config.md."
)
def schema(prefix: str, markdown: bool) -> None:
    """Every config key with its values, default, meaning and an example; with PREFIX, such as teacher, only those below it."""
    from pipeline.config import reference as words

    for line in [words.markdown(prefix)] if markdown else words.lines(prefix):
        click.echo(line)


@click.command(epilog="Example: pipeline report runs/quickstart --serve")
@click.argument("run_dir", metavar="RUN", type=click.Path(path_type=Path))
@click.option(
    "--serve", "serving", is_flag=True, help="Then serve it on this machine, until Ctrl-C."
)
@click.option(
    "--port",
    type=click.IntRange(1, 65535),
    default=8010,
    show_default=True,
    help="Where --serve listens.",
)
@click.option(
    "--samples",
    "most",
    type=click.IntRange(1),
    default=MAX_SAMPLES,
    show_default=True,
    help="To look through; those rejected come first.",
)
def report(run_dir: Path, serving: bool, port: int, most: int) -> None:
    """Write RUN/report: index.html to look at, report.md for pull requests.

    Also of a run that is not finished: what is there so far, what is missing, and which command makes it.
    """
    from pipeline.report import server, write

    path = write.write(run_dir, most)
    click.echo(f"report: {path}")
    if serving:
        server.serve(path.parent, port)


COMMANDS = (status, report, explain, inspect, samples, diff, verify, schema)
