"""Print lines for a person: nothing that a terminal would obey."""

from typing import Any

import click

from pipeline.execution.console import printable


def echo(message: Any = "", err: bool = False) -> None:
    """Print a line. Control characters of data are shown as JSON escapes."""
    click.echo(printable(str(message)), err=err)
