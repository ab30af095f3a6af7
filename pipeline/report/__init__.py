"""RUN/report: what came of a run, as a page to look at and as Markdown for pull requests, from its files alone."""

from pathlib import Path


def write(run_dir: Path) -> Path:
    """Write index.html, report.md and config.yaml (all settings, to make the run again); returns the page's path.

    Raises PipelineError if nothing was begun in `run_dir`.
    """
    from pipeline.report.gather import gather
    from pipeline.report.markdown import markdown
    from pipeline.report.page import page
    from pipeline.store import write_atomic

    facts = gather(run_dir)
    folder = run_dir / "report"
    folder.mkdir(exist_ok=True)
    write_atomic(folder / "config.yaml", facts.settings.config)
    write_atomic(folder / "report.md", markdown(facts))
    write_atomic(folder / "index.html", page(facts, None))
    return folder / "index.html"
