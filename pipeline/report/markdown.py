"""report.md: the facts for a pull request."""

import re
from collections.abc import Iterable, Iterator

from pipeline.report.facts import Estimate, Facts, Table, Waterfall

SPECIAL = re.compile(r"[\\`*|<>~&]|(?<!\w)_|_(?!\w)|(?<=\])(?=[(\[])|^\s*(?=[#+-]\s|\d+[.)]\s)|\s+")


def markdown(facts: Facts) -> str:
    """The whole text."""
    return "\n".join(_lines(facts)) + "\n"


def plain(words: str) -> str:
    """Words as words: nothing in them is markup, and they stay on one line."""
    return SPECIAL.sub(lambda found: " " if found[0].isspace() else f"\\{found[0]}", words)


def _lines(facts: Facts) -> Iterator[str]:
    verdict = facts.verdict
    yield f"# {plain(verdict.title)}"
    yield from ("", f"{plain(facts.run)}: {plain(facts.task)}", "")
    yield from (f"- **missed**: {plain(line)}" for line in verdict.failed)
    yield from (f"- {plain(line)}" for line in verdict.says)
    if facts.note:
        yield from ("", f"**{plain(facts.note)}**")
    if facts.missing:
        rows = tuple((one.what, one.state, one.command) for one in facts.missing)
        yield from _section("What is missing", Table(("part", "state", "command"), rows), left=True)
    if facts.quality.rows:
        yield from _section("Models", facts.quality)
    if facts.closeness.rows:
        yield from _section("Probabilities", facts.closeness)
    if facts.cost.rows:
        yield from _section("Cost", facts.cost)
    if facts.differences:
        yield from _section(
            "Differences, paired by held-out seed", _said(facts.differences), left=True
        )
    flow = tuple((one.name, one.count, one.note) for one in facts.flow)
    yield from _section("From seeds to figures", Table(("", "count", ""), flow), left=True)
    if facts.waterfall:
        yield from _section("What the filters took", _drops(facts.waterfall))
    if facts.groups:
        models = [one.name for one in facts.groups[0].scores]
        scores = tuple(
            (f"{group.name}, {group.held_out:,} seeds", *(one.says for one in group.scores))
            for group in facts.groups
        )
        yield from _section("Score by group", Table(("group", *models), scores))
        yield from ("", *(f"- {plain(line)}" for line in facts.gaps))
    if facts.reliability:
        yield from _section(
            "Calibration",
            Table(("model", ""), tuple((one.model, one.says) for one in facts.reliability)),
            left=True,
        )
    for title, table in (
        ("Memorisation", facts.memorisation),
        ("Canaries", facts.canaries),
        ("Outside the task", facts.elsewhere),
    ):
        if table:
            yield from _section(title, table)
    if facts.ablation:
        yield from _section("Was the curation worth it", _said(facts.ablation.sets), left=True)
        yield from ("", *(f"- {plain(line)}" for line in facts.ablation.says))


def _drops(found: Waterfall) -> Table:
    taken = [(reason, f"-{number:,}") for reason, number in found.drops]
    return Table(
        ("reason", "samples"),
        (("written by the teacher", f"{found.given:,}"), *taken, ("kept", f"{found.kept:,}")),
    )


def _said(estimates: Iterable[Estimate]) -> Table:
    return Table(("", ""), tuple((one.name, one.says) for one in estimates))


def _section(title: str, table: Table, left: bool = False) -> Iterator[str]:
    yield from ("", f"## {title}", "")
    yield _row(table.head)
    yield _row([":--", *(":--" if left else "--:" for _ in table.head[1:])], escape=False)
    yield from map(_row, table.rows)


def _row(cells: Iterable[str], escape: bool = True) -> str:
    return "| " + " | ".join(plain(cell) if escape else cell for cell in cells) + " |"
