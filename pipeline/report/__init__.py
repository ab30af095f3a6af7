"""RUN/report: what came of a run, as a page to look at and as Markdown for pull requests, from its files alone."""
