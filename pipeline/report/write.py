"""Write RUN/report: index.html, report.md, config.yaml and the pages of samples."""

from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.errors import PipelineError

if TYPE_CHECKING:
    from markupsafe import Markup

MAX_SAMPLES = 200_000  # samples that a browser looks through with ease


def write(run_dir: Path, most: int = MAX_SAMPLES) -> Path:
    """Write index.html, samples/ with at most `most` samples to look through, report.md and config.yaml (all settings, to make the run
    again); returns the page's path.

    Raises PipelineError if nothing was begun in `run_dir`.
    """
    from pipeline.report.build import gather
    from pipeline.report.html import page
    from pipeline.report.markdown import markdown
    from pipeline.storage.files import write_atomic

    facts = gather(run_dir)
    folder = run_dir / "report"
    folder.mkdir(exist_ok=True)
    write_atomic(folder / "config.yaml", facts.settings.config)
    write_atomic(folder / "report.md", markdown(facts))
    write_atomic(folder / "index.html", page(facts, _samples(run_dir, folder, most)))
    return folder / "index.html"


def _samples(run_dir: Path, folder: Path, most: int) -> "Markup | None":
    """The section of the samples. Where they cannot be read, the rest of the report is still worth having: the section says why."""
    from markupsafe import Markup

    from pipeline.report import sample_browser

    try:
        return sample_browser.write(run_dir, folder, most)
    except PipelineError as error:
        return Markup("<p>{}</p>").format(f"They cannot be shown: {error}")
