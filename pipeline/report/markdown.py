"""Write report.md: the facts of a run for a pull request."""

import re
from collections.abc import Iterable, Iterator

from pipeline.report.facts import Estimate, Facts, Table, Waterfall

SPECIAL = re.compile(r"[\\`*|<>~&]|(?<!\w)_|_(?!\w)|(?<=\])(?=[(\[])|^\s*(?=[#+-]\s|\d+[.)]\s)|\s+")


def markdown(facts: Facts) -> str:
    """Return the whole text."""
    return "\n".join(_lines(facts)) + "\n"


def plain(text: str) -> str:
    """Escape all markup in a text, and put it on one line."""
    return SPECIAL.sub(lambda match: " " if match[0].isspace() else f"\\{match[0]}", text)


def _lines(facts: Facts) -> Iterator[str]:
    yield from _head(facts)
    if facts.missing:
        rows = tuple((part.what, part.state, part.command) for part in facts.missing)
        yield from _section("What is missing", Table(("part", "state", "command"), rows), left=True)
    if facts.advice:
        yield from ("", "## Advice", "")
        for tip in facts.advice:
            yield f"- {plain(tip.text)}" + (f" Try: `{tip.command}`" if tip.command else "")
    for title, table in (
        ("Models", facts.quality),
        ("Probabilities", facts.closeness),
        ("Cost", facts.cost),
    ):
        if table.rows:
            yield from _section(title, table)
    if facts.differences:
        table = _estimates(facts.differences)
        yield from _section("Differences, paired by held-out example", table, left=True)
    steps = tuple((step.name, step.count, step.note) for step in facts.flow)
    yield from _section("From seeds to figures", Table(("", "count", ""), steps), left=True)
    if facts.waterfall:
        yield from _section("What the filters rejected", _rejections(facts.waterfall))
    if facts.groups:
        yield from _groups(facts)
    if facts.reliability:
        errors = tuple((model.model, model.text) for model in facts.reliability)
        yield from _section("Calibration", Table(("model", ""), errors), left=True)
    for title, optional in (
        ("Memorisation", facts.memorisation),
        ("Canaries", facts.canaries),
        ("Outside the task", facts.lm_eval),
    ):
        if optional:
            yield from _section(title, optional)
    if facts.ablation:
        sets = _estimates(facts.ablation.sets)
        yield from _section("Was the curation worth it", sets, left=True)
        yield from ("", *_bullets(facts.ablation.sentences))


def _head(facts: Facts) -> Iterator[str]:
    verdict = facts.verdict
    yield f"# {plain(verdict.title)}"
    yield from ("", f"{plain(facts.run)}: {plain(facts.task)}", "")
    yield from (f"- **missed**: {plain(line)}" for line in verdict.missed)
    yield from _bullets(verdict.sentences)
    if facts.note:
        yield from ("", f"**{plain(facts.note)}**")


def _groups(facts: Facts) -> Iterator[str]:
    models = [score.name for score in facts.groups[0].scores]
    rows = []
    for group in facts.groups:
        scores = [score.text for score in group.scores]
        rows.append((f"{group.name}, {group.held_out:,} seeds", *scores))
    yield from _section("Score by group", Table(("group", *models), tuple(rows)))
    yield from ("", *_bullets(facts.gaps))


def _rejections(waterfall: Waterfall) -> Table:
    rejected = [(reason, f"-{count:,}") for reason, count in waterfall.rejected]
    first = ("written by the teacher", f"{waterfall.total:,}")
    last = ("kept", f"{waterfall.kept:,}")
    return Table(("reason", "samples"), (first, *rejected, last))


def _estimates(estimates: Iterable[Estimate]) -> Table:
    return Table(("", ""), tuple((estimate.name, estimate.text) for estimate in estimates))


def _bullets(lines: Iterable[str]) -> Iterator[str]:
    return (f"- {plain(line)}" for line in lines)


def _section(title: str, table: Table, left: bool = False) -> Iterator[str]:
    """Yield a heading and a table; `left` aligns all columns left, not only the first."""
    rule = ":--" if left else "--:"
    yield from ("", f"## {title}", "")
    yield _row(map(plain, table.head))
    yield _row([":--", *(rule for _ in table.head[1:])])
    yield from (_row(map(plain, row)) for row in table.rows)


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"
