"""Write index.html as one page that needs no network and, except for samples, no other file."""

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
from pipeline.report import charts, plots
from pipeline.report.facts import Cost, Estimate, Facts, Group, Panel, Reliability, Table, Waterfall

HERE = Path(__file__).parent
SCRIPT = re.compile(r"<script(?![^>]*\bsrc=)[^>]*>(.*?)</script>", re.DOTALL)
POLICY = (
    "default-src 'none'; base-uri 'none'; form-action 'none'; img-src data:; "
    "style-src 'unsafe-inline'; script-src 'strict-dynamic' {}"
)
POLICY_MARK = "POLICY-OF-THIS-PAGE"


def page(facts: Facts, samples: Markup | None) -> str:
    """Return the whole page; `samples` is the section with the samples, None if there are none."""
    text = render(
        "index.html",
        trim_blocks=True,
        policy=POLICY_MARK,
        facts=facts,
        samples=samples,
        style=static("style.css"),
        script=static("theme.js"),
        charts=_charts(facts),
        sections=list(_sections(facts, samples)),
    )
    return text.replace(POLICY_MARK, _policy(text), 1)


def render(template: str, *, trim_blocks: bool = False, **values: Any) -> str:
    """Fill a template of this folder; an unknown name in it is an error."""
    environment = Environment(
        loader=FileSystemLoader(HERE / "templates"),
        autoescape=True,
        trim_blocks=trim_blocks,
        lstrip_blocks=trim_blocks,
        undefined=StrictUndefined,
    )
    return environment.get_template(template).render(**values)


def static(name: str) -> Markup:
    """Return a style sheet or script of this folder."""
    return Markup((HERE / "static" / name).read_text(encoding="utf-8"))


def _policy(text: str) -> str:
    """Return the Content-Security-Policy of a page: no network, and no script but its own."""
    digests = {hashlib.sha256(script.encode()).digest() for script in SCRIPT.findall(text)}
    hashes = sorted(base64.b64encode(digest).decode() for digest in digests)
    return POLICY.format(" ".join(f"'sha256-{code}'" for code in hashes))


def _sections(facts: Facts, samples: Markup | None) -> Iterator[tuple[str, str]]:
    """Yield (anchor, title) of each section of the page."""
    for anchor, title, content in (
        ("verdict", "Verdict", True),
        ("missing", "Missing", facts.missing),
        ("advice", "Advice", facts.advice),
        ("models", "Models", facts.quality.rows),
        ("flow", "Flow", True),
        ("curves", "Curves", facts.panels),
        ("cost", "Cost", facts.costs),
        ("differences", "Differences", facts.differences),
        ("groups", "Groups", facts.groups),
        ("calibration", "Calibration", facts.reliability),
        ("memory", "Memorisation", facts.memorisation or facts.canaries),
        ("lm-eval", "Other tasks", facts.lm_eval),
        ("ablation", "Curation", facts.ablation),
        ("samples", "Samples", samples),
        ("settings", "Settings", True),
    ):
        if content:
            yield anchor, title


def _charts(facts: Facts) -> dict[str, Any]:
    """Return each chart that has data, with a table of the same data."""
    drawn: dict[str, Any] = {
        "panels": [(p, plots.curves(p, facts.arms), _panel_data(p)) for p in facts.panels],
        "costs": [
            (cost, plots.scatter(cost, facts.arms, facts.metric), _cost_data(cost))
            for cost in facts.costs
        ],
        "reliability": [
            (model, plots.reliability(model, facts.arms), _reliability_data(model))
            for model in facts.reliability
        ],
    }
    if facts.waterfall:
        draw = partial(charts.waterfall, facts.waterfall)
        drawn["waterfall"] = charts.both(draw), _waterfall_data(facts.waterfall)
    if facts.differences:
        rows = _without_base(facts.differences)
        draw = partial(charts.estimates, rows, what="Differences", zero=True)
        drawn["differences"] = charts.both(draw), _differences_data(facts.differences)
    if facts.groups:
        draw = partial(charts.groups, facts.groups, facts.arms)
        drawn["groups"] = charts.both(draw), _groups_data(facts.groups)
    if facts.ablation:
        draw = partial(charts.estimates, facts.ablation.sets, what="Score by set", zero=False)
        drawn["ablation"] = charts.both(draw)
    return drawn


def _without_base(differences: Sequence[Estimate]) -> Sequence[Estimate]:
    """Drop differences to the base student: they are so large that others could not be seen."""
    return [row for row in differences if not row.name.endswith(f" - {BASE}")] or differences


def _differences_data(differences: Sequence[Estimate]) -> Table:
    return Table(("difference", "mean [95 %]"), tuple((row.name, row.text) for row in differences))


def _panel_data(panel: Panel) -> Table:
    rows = [
        (f"{curve.arm}, {curve.name}", f"{step:,.0f}", f"{value:.4g}")
        for curve in panel.curves
        for step, value in curve.points
    ]
    return Table(("curve", "step", "value"), tuple(rows))


def _cost_data(cost: Cost) -> Table:
    rows = []
    for point in cost.points:
        score = point.score
        interval = f"{score.mean:.3f} [{score.low:.3f}, {score.high:.3f}]"
        rows.append((point.model, f"{point.cost:,.1f}", interval))
    return Table(("model", cost.unit, "score [95 %]"), tuple(rows))


def _reliability_data(model: Reliability) -> Table:
    rows = [(f"{b.confidence:.3f}", f"{b.accuracy:.3f}", f"{b.count:,}") for b in model.bins]
    return Table(("confidence", "right", "answers"), tuple(rows))


def _waterfall_data(samples: Waterfall) -> Table:
    rows = [(reason, f"{number:,}") for reason, number in samples.rejected]
    return Table(("reason", "samples"), tuple(rows))


def _groups_data(groups: Sequence[Group]) -> Table:
    rows = [(group.name, score.name, score.text) for group in groups for score in group.scores]
    return Table(("group", "model", "score [95 %]"), tuple(rows))
