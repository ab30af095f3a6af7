"""The report: figures equal results.json, no markup from data, no requests, unfinished runs."""

import http.client
import itertools
import json
import re
import threading
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.config import Config
from pipeline.errors import PipelineError
from pipeline.evaluation.bootstrap import Interval
from pipeline.evaluation.format import shown, signed
from pipeline.evaluation.results_model import Results
from pipeline.report import axes, charts, plots, svg
from pipeline.report.build import gather
from pipeline.report.facts import Cost, Estimate, Facts, Group, Point, Waterfall
from pipeline.report.server import server
from pipeline.report.write import write
from tests.support import finished_run

VOID = {"meta", "link", "br", "img", "input", "hr"}
HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>|[x](javascript:alert(3))\n# no"


class Page(HTMLParser):
    """Parse a page; fail if a tag is not closed."""

    def __init__(self, text: str):
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return finished_run.make(tmp_path / "run", finished_run.results())


def written(run: Path) -> tuple[Page, str, str]:
    """Return (page, its text without markup, report.md)."""
    text = write(run).read_text()
    page = Page(text)
    return (
        page,
        re.sub(r"\s+", " ", " ".join(page.words)),
        (run / "report" / "report.md").read_text(),
    )


def test_one_source_of_figures(run: Path) -> None:
    """A report that computes figures itself could contradict the file that the gate reads."""
    _, page, markdown = written(run)
    found = Results.model_validate(finished_run.results())
    for model in found.models.values():
        for interval in (model.score, model.groups["long"], model.metrics["chrf"]):
            mean, _, rest = shown(interval).partition(" ")
            assert shown(interval) in markdown
            assert f"{mean} {rest}" in page
        for figure in (
            f"{model.retained:.1%}",
            f"{model.macro_f1:.3f}",
            f"{(model.parameters or 0) / 1e6:,.1f}M",
        ):
            assert figure in markdown
            assert figure in page
    for difference in found.differences.values():
        assert signed(difference) in markdown
        assert signed(difference) in page


def test_page_is_whole_and_needs_nothing(run: Path) -> None:
    """An address in the page would be a request to a third party; an open tag hides the rest."""
    page, _, _ = written(run)
    addresses = [
        value or ""
        for _, attributes in page.tags
        for key, value in attributes.items()
        if key in ("src", "href", "srcset", "action")
    ]
    assert [url for url in addresses if not url.startswith(("#", "data:"))] == []
    text = (run / "report" / "index.html").read_text()
    assert not re.search(r"url\(|@import|https?://", text)
    policy = next(
        tag["content"] or ""
        for tag in page.of("meta")
        if tag.get("http-equiv") == "Content-Security-Policy"
    )
    assert policy.startswith("default-src 'none'")
    assert "unsafe-inline' script" not in policy
    assert policy.count("sha256-") == len(page.of("script"))


def test_who_cannot_see_is_told(run: Path) -> None:
    """A screen reader needs labels on charts, headings in order and heads of tables."""
    page, _, _ = written(run)
    assert all(chart["role"] == "img" and chart["aria-label"] for chart in page.of("svg"))
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    assert all(head.get("scope") for head in page.of("th"))
    anchors = {link["href"] for link in page.of("a")}
    assert anchors <= {f"#{attributes['id']}" for _, attributes in page.tags if "id" in attributes}
    assert {"main", "nav", "header", "footer"} <= {tag for tag, _ in page.tags}


def test_names_and_values_are_text(tmp_path: Path) -> None:
    """Names of groups, reasons and tasks come from data; a page must not run them as code."""
    found = finished_run.results()
    for model in found["models"].values():
        model["groups"] = {HOSTILE: model["groups"]["short"], "other": model["groups"]["long"]}
        model["lm_eval"] = {HOSTILE: model["lm_eval"]["arc_easy"]}
    found["differences"] = {HOSTILE: finished_run.interval(0.1)}
    found["verdicts"] = [HOSTILE]
    page, words, markdown = written(
        finished_run.make(tmp_path / "run", found, rejected={HOSTILE: 3})
    )
    assert len(page.of("script")) == 1
    assert page.of("img") == []
    assert "<script>alert(1)</script>" in words
    assert not re.search(r"(?<!\\)<script|(?<!\\)\]\(|^# no", markdown, re.MULTILINE)
    rows = [line for line in markdown.splitlines() if line.startswith("| ") and "alert(1)" in line]
    assert rows
    assert all(line.count("\\|") >= 1 for line in rows)


@pytest.mark.parametrize(
    ("verdicts", "title"),
    [(None, "kd keeps 97.5%"), ([], "Ship kd: "), (["gate: kd: x"], "Do not ship kd: ")],
)
def test_only_the_gate_speaks_of_shipping(
    tmp_path: Path, verdicts: list[str] | None, title: str
) -> None:
    """Without a gate, the report must not say that a student may be shipped."""
    facts = gather(
        finished_run.make(tmp_path / "run", finished_run.results() | {"verdicts": verdicts})
    )
    assert facts.verdict.title.startswith(title)
    assert ("ship" in facts.verdict.title.lower()) == (verdicts is not None)


@pytest.mark.parametrize(
    ("low", "high", "sentence"),
    [
        (0.01, 0.05, "KD is significantly better than SFT (95 %)"),
        (-0.01, 0.05, "KD and SFT show no significant difference (95 %)"),
        (-0.05, -0.01, "KD is significantly worse than SFT (95 %)"),
    ],
)
def test_kd_and_sft_by_the_interval(tmp_path: Path, low: float, high: float, sentence: str) -> None:
    """A mean above 0 is no significant difference if the interval holds 0."""
    found = finished_run.results() | {
        "differences": {"kd - sft": {"mean": 0.0, "low": low, "high": high}}
    }
    sentences = gather(finished_run.make(tmp_path / "run", found)).verdict.sentences
    assert sum(line.startswith(sentence) for line in sentences) == 1


def test_one_held_out_seed_shows_nothing(tmp_path: Path) -> None:
    """With one example the report said that SFT beats KD: [-1, -1], p = 1."""
    point = {"mean": -1.0, "low": -1.0, "high": -1.0, "p": 1.0}
    found = finished_run.results() | {"held_out": 1, "verdicts": None}
    found["differences"] = {"kd - sft": point, "kd - teacher": point}
    facts = gather(finished_run.make(tmp_path / "run", found))
    words = " ".join([*facts.verdict.sentences, *(row.text for row in facts.differences)])
    assert "1 is too few held-out examples for any claim" in words
    assert "significantly" not in words


def test_p_alone_can_deny_a_difference(tmp_path: Path) -> None:
    """Four pairs that differ gave an interval above 0 and p = 0.125, called significant."""
    point = {"mean": 0.1, "low": 0.02, "high": 0.2, "p": 0.125}
    found = finished_run.results() | {"differences": {"kd - sft": point}}
    facts = gather(finished_run.make(tmp_path / "run", found))
    assert "significantly" not in " ".join([*facts.verdict.sentences, facts.differences[0].text])


def test_unequal_arms_do_not_compare_methods(tmp_path: Path) -> None:
    """An sft arm on 200 rows made KD the better method in the report."""
    found = finished_run.results() | {
        "differences": {"kd - sft": {"mean": 0.1, "low": 0.05, "high": 0.2, "p": 0.001}}
    }
    run = finished_run.make(tmp_path / "run", found)
    for begun in run.rglob("begun.json"):
        tree = json.loads(begun.read_text())
        tree["config"]["train"]["arms"]["sft"]["limit"] = 200
        begun.write_text(json.dumps(tree))
    sentences = " ".join(gather(run).verdict.sentences)
    assert "kd and sft do not compare KD with SFT, because they also differ in limit" in sentences
    assert "KD is significantly better" not in sentences


def test_groups_of_a_few_seeds_have_no_gap(tmp_path: Path) -> None:
    """One right and one wrong answer made a gap that the report called amplified."""
    found = finished_run.results()
    found["models"]["kd"]["groups"]["short"]["held_out"] = 5
    lines = " ".join(gather(finished_run.make(tmp_path / "run", found)).gaps)
    assert "kd: its best and worst group are 0.120 apart" in lines
    assert "a group has too few held-out examples" in lines
    assert "amplified" not in lines


def test_gap_beside_the_teachers(run: Path) -> None:
    """The student must not be blamed for a gap of the teacher's, or for noise."""
    lines = {line.partition(":")[0]: line for line in gather(run).gaps}
    assert "amplified, the teacher's own are 0.040 apart" in lines["kd"]
    assert "inherited" in lines["sft"]
    assert "narrowed" in lines["small"]


def test_old_results_have_a_report(tmp_path: Path) -> None:
    """A run of an older version, without some figures, had no report."""
    added = ("metrics", "calibration", "fidelity", "load", "memorisation", "lm_eval")
    found = finished_run.results()
    found["models"] = {
        name: {k: v for k, v in model.items() if k not in added}
        for name, model in found["models"].items()
    }
    del found["verdicts"]
    facts = gather(finished_run.make(tmp_path / "run", found))
    assert "ROUGE-L" not in facts.quality.head
    assert not facts.closeness.rows
    assert not facts.reliability
    assert facts.memorisation is facts.canaries is facts.lm_eval is None
    assert "latency p50, p95" not in facts.cost.head
    write(tmp_path / "run")


@pytest.mark.parametrize("until", range(5))
def test_unfinished(tmp_path: Path, until: int) -> None:
    """Wherever a run stopped, the report must show what exists and how to make the rest."""
    run = finished_run.make(tmp_path / "run", None, until)
    facts = gather(run)
    assert facts.verdict.title.startswith("No verdict yet")
    assert facts.missing[0].command.startswith(
        (
            "pipeline generate",
            "pipeline filter",
            "pipeline train",
            "pipeline train",
            "pipeline train",
        )[until]
    )
    assert [step.done for step in facts.flow] == [True, until > 0, until > 1, until > 3, False]
    assert "What is missing" in written(run)[1]


def test_an_arm_that_is_being_trained(tmp_path: Path) -> None:
    """Its curve must end at the last checkpoint by number, not by name."""
    run = finished_run.make(tmp_path / "run", None, 3)
    for step in (20, 100):
        log = [{"step": step, "loss": 1.0}]
        finished_run.write(
            run / "train" / "kd" / "checkpoints" / f"checkpoint-{step}" / "trainer_state.json",
            {"log_history": log},
        )
    assert gather(run).panels[0].curves[0].points == ((100.0, 1.0),)


def test_nothing_begun(tmp_path: Path) -> None:
    """A mistyped folder must not get an empty report."""
    with pytest.raises(PipelineError, match="no stage was started here"):
        write(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_config_makes_the_run_again(run: Path) -> None:
    """The config that the report writes must give the same run."""
    write(run)
    tree = yaml.safe_load((run / "report" / "config.yaml").read_text())
    assert Config.model_validate(tree) == Config.model_validate(finished_run.CONFIG)


@pytest.fixture
def served(run: Path) -> Iterator[Any]:
    path = write(run)
    with server(path.parent, 0) as listening:
        thread = threading.Thread(target=listening.serve_forever)
        thread.start()
        yield listening
        listening.shutdown()
        thread.join()


def asked(served: Any, path: str, method: str = "GET", **headers: str) -> int:
    connection = http.client.HTTPConnection(*served.server_address)
    connection.request(method, path, headers=headers)
    return connection.getresponse().status


def test_serves_the_report_alone(served: Any, run: Path) -> None:
    """Samples can be private: no other machine, no other file, no DNS rebinding."""
    assert served.server_address[0] == "127.0.0.1"
    assert asked(served, "/") == asked(served, "/report.md") == 200
    (run / "report" / "out").symlink_to(run / "evaluate")
    (run / "report" / "folder").mkdir()
    for path in (
        "/../evaluate/results.json",
        "/%2e%2e/evaluate/results.json",
        "/out/results.json",
        "/folder/",
        "//etc/passwd",
    ):
        assert asked(served, path) == 404
    assert asked(served, "/", Host="evil.example:80") == 404
    assert asked(served, "/", "POST") == asked(served, "/", "PUT") == 501


def test_a_port_that_is_taken(served: Any, tmp_path: Path) -> None:
    """A port that is in use gave a traceback."""
    with pytest.raises(PipelineError, match="give another with --port"):
        server(tmp_path, served.server_address[1])


def test_labels_keep_apart() -> None:
    """Two labels in the same place cannot be read."""
    points = tuple(
        Point(f"model-{number}", 10.0, Interval(mean=0.9, low=0.89, high=0.91))
        for number in range(5)
    )
    drawn = plots.scatter(
        Cost("", "answers", (*points, Point("far", 100.0, Interval(mean=0.1, low=0.0, high=0.2)))),
        ["teacher"],
        "label",
    )
    places = {
        (x, y) for x, y in re.findall(r'<text x="([\d.]+)" y="([\d.]+)" class="strong halo"', drawn)
    }
    assert len(places) == 6
    assert svg.apart([5.0, 5.0, 5.0], 10.0, 0.0, 22.0) == [2.0, 12.0, 22.0]


def test_charts_of_edges() -> None:
    """Nothing or everything rejected, equal figures, one value: no division by 0, no log of 0."""
    same = Interval(mean=0.0, low=0.0, high=0.0)
    for width in (charts.WIDE, charts.NARROW):
        charts.waterfall(Waterfall(5, (), 5), width, "wide")
        charts.waterfall(Waterfall(5, (("a.b", 5),), 0), width, "wide")
        charts.estimates([Estimate("a", same)], width, "wide", "x", True)
        charts.groups([Group("g", 1, (Estimate("teacher", same),))], ["teacher"], width, "wide")
    for cost in (1.0, 1e9):
        plots.scatter(
            Cost("", "", (Point("a", 1.0, same), Point("b", cost, same))), ["a", "b"], "label"
        )
    assert axes.ticks(1.0, 1.0) == [1.0]


def test_facts_hold_no_markup(run: Path) -> None:
    """Facts are written to Markdown too, so HTML in them would show as text."""

    def texts(found: Any) -> Iterator[str]:
        if isinstance(found, str):
            yield found
        elif isinstance(found, tuple):
            for item in found:
                yield from texts(item)

    facts: Facts = gather(run)
    assert not [
        text
        for field in vars(facts).values()
        for text in texts(field)
        if "<" in text.replace("p < ", "")
    ]
    assert json.loads((run / "evaluate" / "results.json").read_text()) == finished_run.results()
