"""The report of a run, from its files alone: a page to look at, and Markdown for pull requests."""
