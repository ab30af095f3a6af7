"""index.html: the facts as a page that needs nothing beside it, in any browser, from a file."""

import base64
import hashlib
import re
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from pipeline.execution.paths import BASE
from pipeline.report import charts
from pipeline.report.facts import Estimate, Facts, Table

HERE = Path(__file__).parent
SCRIPT = re.compile(r"<script(?![^>]*\bsrc=)[^>]*>(.*?)</script>", re.DOTALL)
POLICY = "default-src 'none'; base-uri 'none'; form-action 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'strict-dynamic' {}"


def page(facts: Facts, samples: Markup | None) -> str:
    """The whole page. `samples` is the section of the samples, if there is one."""
    environment = Environment(
        loader=FileSystemLoader(HERE / "templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    given = {
        "facts": facts,
        "samples": samples,
        "style": Markup((HERE / "static" / "style.css").read_text(encoding="utf-8")),
        "script": Markup((HERE / "static" / "theme.js").read_text(encoding="utf-8")),
        "charts": _charts(facts),
        "tables": {"waterfall": _drops(facts), "groups": _groups(facts)},
        "sections": list(_sections(facts, samples)),
    }
    mark = "POLICY-OF-THIS-PAGE"
    text = environment.get_template("index.html").render(policy=mark, **given)
    return text.replace(mark, policy(text), 1)


def policy(text: str) -> str:
    """The Content-Security-Policy of a page: nothing from any network, no script in it but those that it was written with."""
    hashes = {
        base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        for script in SCRIPT.findall(text)
    }
    return POLICY.format(" ".join(f"'sha256-{one}'" for one in sorted(hashes)))


def _sections(facts: Facts, samples: Markup | None) -> Iterator[tuple[str, str]]:
    """(anchor, title) of what the page has."""
    for anchor, title, there in (
        ("verdict", "Verdict", True),
        ("missing", "Missing", facts.missing),
        ("models", "Models", facts.quality.rows),
        ("flow", "Flow", True),
        ("curves", "Curves", facts.panels),
        ("cost", "Cost", facts.costs),
        ("differences", "Differences", facts.differences),
        ("groups", "Groups", facts.groups),
        ("calibration", "Calibration", facts.reliability),
        ("memory", "Memory", facts.memorisation or facts.canaries),
        ("elsewhere", "Elsewhere", facts.elsewhere),
        ("ablation", "Curation", facts.ablation),
        ("samples", "Samples", samples),
        ("settings", "Settings", True),
    ):
        if there:
            yield anchor, title


def _charts(facts: Facts) -> dict[str, Any]:
    """Every drawing that the facts allow, with its figures where they are not in its words."""
    arms = facts.arms
    return {
        "waterfall": charts.both(partial(charts.waterfall, facts.waterfall))
        if facts.waterfall
        else None,
        "panels": [
            (panel, charts.curves(panel, arms), _curves(panel.curves)) for panel in facts.panels
        ],
        "costs": [
            (cost, charts.scatter(cost, arms, facts.metric), _points(cost)) for cost in facts.costs
        ],
        "differences": (
            charts.both(partial(charts.estimates, _close(facts), what="Differences", zero=True)),
            _differences(facts),
        )
        if facts.differences
        else None,
        "groups": charts.both(partial(charts.groups, facts.groups, arms)) if facts.groups else None,
        "reliability": [
            (one, charts.reliability(one, arms), _bins(one)) for one in facts.reliability
        ],
        "ablation": charts.both(
            partial(charts.estimates, facts.ablation.sets, what="Score by set", zero=False)
        )
        if facts.ablation
        else None,
    }


def _close(facts: Facts) -> Sequence[Estimate]:
    """The differences but for those against the untouched student, beside which the others would be dots."""
    return [
        one for one in facts.differences if not one.name.endswith(f" - {BASE}")
    ] or facts.differences


def _differences(facts: Facts) -> Table:
    return Table(
        ("difference", "mean [95 %]"), tuple((one.name, one.says) for one in facts.differences)
    )


def _curves(curves: Any) -> Table:
    rows = [
        (f"{one.arm}, {one.name}", f"{step:,.0f}", f"{value:.4g}")
        for one in curves
        for step, value in one.points
    ]
    return Table(("curve", "step", "value"), tuple(rows))


def _points(cost: Any) -> Table:
    rows = [
        (
            one.model,
            f"{one.cost:,.1f}",
            f"{one.score.mean:.3f} [{one.score.low:.3f}, {one.score.high:.3f}]",
        )
        for one in cost.points
    ]
    return Table(("model", cost.unit, "score [95 %]"), tuple(rows))


def _bins(one: Any) -> Table:
    rows = [
        (f"{found.confidence:.3f}", f"{found.accuracy:.3f}", f"{found.count:,}")
        for found in one.bins
    ]
    return Table(("confidence", "right", "answers"), tuple(rows))


def _drops(facts: Facts) -> Table:
    found = facts.waterfall
    return Table(
        ("reason", "samples"),
        tuple((reason, f"{number:,}") for reason, number in found.drops) if found else (),
    )


def _groups(facts: Facts) -> Table:
    rows = [(group.name, one.name, one.says) for group in facts.groups for one in group.scores]
    return Table(("group", "model", "score [95 %]"), tuple(rows))
