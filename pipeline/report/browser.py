"""The browser of samples: data pages beside the report, and the section of the page that reads them."""

from pathlib import Path

from markupsafe import Markup


def write(run_dir: Path, folder: Path) -> Markup | None:
    """Write what the section needs beside the page into `folder` and return the section; None where there is nothing to look at."""
    return None
