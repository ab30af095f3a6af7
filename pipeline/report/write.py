"""Write RUN/report: index.html, samples/, report.md and config.yaml."""

from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.errors import PipelineError

if TYPE_CHECKING:
    from markupsafe import Markup

MAX_SAMPLES = 200_000  # with more samples, the page becomes slow


def write(run_dir: Path, max_samples: int = MAX_SAMPLES) -> Path:
    """Write the report, with at most `max_samples` samples to browse; return the page's path.

    config.yaml holds all settings, so that the run can be repeated. Raises
    PipelineError if no stage was started.
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
    write_atomic(folder / "index.html", page(facts, _samples(run_dir, folder, max_samples)))
    return folder / "index.html"


def _samples(run_dir: Path, folder: Path, max_samples: int) -> "Markup | None":
    """Return the section with the samples; if they cannot be read, the section says why."""
    from markupsafe import Markup

    from pipeline.report import sample_browser

    try:
        return sample_browser.write(run_dir, folder, max_samples)
    except PipelineError as error:
        return Markup("<p>The samples cannot be shown: {}</p>").format(str(error))
