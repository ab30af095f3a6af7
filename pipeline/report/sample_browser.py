"""The samples of a run to look through in its report: all that was generated, kept and rejected, and the answers to held-out seeds."""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from pipeline.inspection.tokens import SHADES
from pipeline.report import answers_view, samples_view
from pipeline.report.paged_data import write_data
from pipeline.report.token_probabilities import PARTS

FOLDER = "samples"
HERE = Path(__file__).parent


def write(run_dir: Path, folder: Path, most: int) -> Markup | None:
    """Write `folder`/samples, and return what stands in the section of the page that reads it. None if there is no sample yet.

    It holds its style and its script; the script adds others from `folder`/samples to the page, which a policy of content must allow.
    With more than `most` samples the rejected ones come first, then others evenly drawn.
    Raises PipelineError for damaged files, and if the teacher's tokenizer cannot be loaded.
    """
    made = folder / f"{FOLDER}.part"
    shutil.rmtree(made, ignore_errors=True)
    views = [
        ("generated", samples_view.write(run_dir, made / "generated", most)),
        ("held-out", answers_view.write(run_dir, made / "held-out")),
    ]
    for name, index in views:
        if index is not None:
            write_data(made / name, "index", index.to_json())
    shutil.rmtree(folder / FOLDER, ignore_errors=True)
    present = {name: len(index.ids) for name, index in views if index is not None}
    if "generated" not in present:
        shutil.rmtree(made, ignore_errors=True)
        return None
    os.replace(made, folder / FOLDER)
    return section(present)


def section(present: Mapping[str, int]) -> Markup:
    """What stands in the page, given how many rows each view has."""
    page = Environment(
        loader=FileSystemLoader(HERE / "templates"), autoescape=True, undefined=StrictUndefined
    ).get_template("samples.html")
    css, script = (
        Markup((HERE / "static" / name).read_text(encoding="utf-8"))
        for name in ("samples.css", "samples.js")
    )
    settings = {"shades": [least for least, _ in SHADES], "parts": PARTS, "folder": FOLDER}
    return Markup(page.render(css=css, script=script, present=present, settings=settings))
