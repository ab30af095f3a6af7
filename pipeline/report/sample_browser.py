"""The section of the report in which samples and answers can be browsed."""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from markupsafe import Markup

from pipeline.inspection.tokens import SHADES
from pipeline.report import answers_view, samples_view
from pipeline.report.html import render, static
from pipeline.report.paged_data import write_data
from pipeline.report.token_probabilities import PARTS

FOLDER = "samples"


def write(run_dir: Path, folder: Path, max_samples: int) -> Markup | None:
    """Write `folder`/samples; return the section of the page that reads it, None without samples.

    The section contains a style and a script. The script loads further scripts (the data) from
    `folder`/samples, and the page's Content-Security-Policy must allow that. At most `max_samples`
    samples are shown: rejected ones are chosen first, then others at even distances. Raises
    PipelineError if a file is damaged, or if the teacher's tokenizer cannot be loaded.
    """
    partial = folder / f"{FOLDER}.part"
    shutil.rmtree(partial, ignore_errors=True)
    views = {
        "generated": samples_view.write(run_dir, partial / "generated", max_samples),
        "held-out": answers_view.write(run_dir, partial / "held-out"),
    }
    rows = {}
    for name, index in views.items():
        if index is not None:
            write_data(partial / name, "index", index.to_json())
            rows[name] = len(index.ids)
    shutil.rmtree(folder / FOLDER, ignore_errors=True)
    if "generated" not in rows:
        shutil.rmtree(partial, ignore_errors=True)
        return None
    os.replace(partial, folder / FOLDER)
    return section(rows)


def section(rows: Mapping[str, int]) -> Markup:
    """Return the section, given the number of rows in each view."""
    shades = [least for least, _ in SHADES]
    text = render(
        "samples.html",
        css=static("samples.css"),
        script=static("samples.js"),
        present=rows,
        settings={"shades": shades, "parts": PARTS, "folder": FOLDER},
    )
    return Markup(text)
