"""The report in headless Chromium, opened from disk and browsed by mouse and by keyboard.

Screenshots are left in pytest's folder.
"""

import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from playwright.sync_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Error,
    Page,
    Request,
    expect,
    sync_playwright,
)

from pipeline.config import Config, load
from pipeline.execution import runner
from pipeline.inspection.tokens import token_probabilities
from pipeline.records import Rejected, Sample, Scored
from pipeline.report.paged_data import Facet, Index, in_pages, write_data
from pipeline.report.sample_browser import section
from pipeline.report.write import write
from pipeline.stages import evaluate, generate
from pipeline.stages import filter as filter_stage
from pipeline.storage.samples import Samples
from pipeline.storage.shards import read_records, write_shards
from pipeline.storage.topk import TopKFolder
from tests.support.task import PROMPT, write_seeds

PATIENCE_MS = 40_000  # on two cores that are busy
HOSTILE = '<img src=x onerror="document.title=1"></script><script>document.title=2</script>'
REPLIES = [" yes, it is even\n", " no, it is odd\n", " perhaps ☃, who knows\n"]
MANY = 100_000

Open = Callable[..., Page]


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    """Debian's Chromium, which `make test` installs if it may. Skips without one."""
    path = shutil.which("chromium")
    if path is None:
        pytest.skip("there is no chromium; install it: apt-get install chromium")
    expect.set_options(timeout=PATIENCE_MS)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=path, args=["--no-sandbox"], timeout=PATIENCE_MS
        )
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with right, wrong and unreadable replies and made-up answers, and its report."""
    folder = tmp_path_factory.mktemp("browsed")
    write_seeds(folder / "eval.jsonl", range(100, 112))
    rows = [
        {
            "id": f"n{n}",
            "number": HOSTILE if n == 7 else n,
            "target": "no" if n % 2 else "yes",
            "group": f"g{n % 3}",
        }
        for n in range(30)
    ]
    (folder / "seeds.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "prompt.md").write_text(PROMPT)
    config = load(_config(folder))
    for module in (generate, filter_stage):
        runner.execute(module, config)
    runner.execute(evaluate, config, ["teacher"])
    _student(config)
    write(Path(config.run_dir))
    return Path(config.run_dir)


def _config(folder: Path) -> Path:
    tree: dict[str, Any] = {
        "run_dir": str(folder / "run"),
        "task": {
            "seeds": str(folder / "seeds.jsonl"),
            "eval_seeds": str(folder / "eval.jsonl"),
            "metric": "label",
            "labels": ["yes", "no"],
        },
        "teacher": {"backend": "fake", "model": "fake", "replies": REPLIES, "logprobs": 8},
        "generate": {"prompt": str(folder / "prompt.md"), "samples": 2, "shard_size": 16},
        "student": {"model": "random"},
        "train": {"prompt": str(folder / "prompt.md"), "report_to": []},
        "evaluate": {"backend": "fake"},
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(tree))
    return folder / "config.yaml"


def _student(config: Config) -> None:
    """Write answers of an arm kd that gets the opposite score of the teacher on each seed."""
    folder = Path(config.run_dir) / "evaluate"
    shutil.copytree(folder / "teacher", folder / "kd")
    answers = []
    for answer in read_records(folder / "teacher", Scored):
        score = answer.score.model_copy(
            update={"value": 1.0 - answer.score.value, "explanation": "opposite"}
        )
        answers.append(
            answer.model_copy(update={"model": "kd", "score": score, "text": "the student says"})
        )
    write_shards(folder / "kd", answers)


@pytest.fixture
def opened(chromium: Browser, run_dir: Path, tmp_path: Path) -> Iterator[Open]:
    """Opens the report in a window; checks at the end that it used no network and had no error."""
    errors: list[Error] = []
    windows: list[tuple[BrowserContext, list[Request], list[ConsoleMessage]]] = []

    def open_report(
        page: Path = run_dir / "report" / "index.html", address: str = "", **settings: Any
    ) -> Page:
        context = chromium.new_context(
            reduced_motion="reduce", **{"viewport": {"width": 1280, "height": 900}, **settings}
        )
        context.set_default_timeout(PATIENCE_MS)
        context.route(re.compile("^(?!file:|data:)"), lambda route: route.abort())
        window = context.new_page()
        requests: list[Request] = []
        messages: list[ConsoleMessage] = []
        window.on("request", lambda request: requests.append(request))
        window.on("console", lambda message: messages.append(message))
        window.on("pageerror", lambda error: errors.append(error))
        windows.append((context, requests, messages))
        window.goto(page.as_uri() + address)
        if settings.get("java_script_enabled", True):
            expect(window.locator(".detail:visible h3")).to_be_visible()
        return window

    yield open_report
    for number, (context, requests, messages) in enumerate(windows):
        context.pages[0].screenshot(path=tmp_path / f"{number}.png")
        urls = [request.url for request in requests]
        assert [url for url in urls if not url.startswith(("file:", "data:"))] == []
        assert [m.text for m in messages if m.type in ("error", "warning")] == []
        context.close()
    assert errors == []


@pytest.fixture(scope="session")
def samples(run_dir: Path) -> list[Sample]:
    return list(Samples(run_dir / "generate"))


def status(window: Page) -> Any:
    return expect(window.locator("[role=status]:visible"))


def heading(window: Page) -> Any:
    return expect(window.locator(".detail:visible h3"))


def test_opens_from_a_file(opened: Open, samples: list[Sample]) -> None:
    """A report that needs a server or a network cannot be sent to a colleague."""
    window = opened()
    status(window).to_have_text(f"{len(samples)} samples")
    heading(window).to_contain_text(samples[0].id)
    expect(window.locator(".line").first).to_contain_text("0")


def test_search_reads_what_the_list_does_not_show(opened: Open, samples: list[Sample]) -> None:
    """The search loads pages to read rationales, too; Esc clears it."""
    window = opened()
    window.keyboard.press("/")
    window.keyboard.type("KNOWS who")
    matches = [sample.id for sample in samples if "who knows" in sample.text]
    status(window).to_have_text(f"{len(matches)} of {len(samples)} samples")
    heading(window).to_contain_text(matches[0])
    window.keyboard.press("Escape")
    status(window).to_have_text(f"{len(samples)} samples")


def test_filters_narrow_one_another(opened: Open, run_dir: Path, samples: list[Sample]) -> None:
    """The count beside a choice is the number of rows that it would list."""
    window = opened()
    rejected = list(read_records(run_dir / "filter" / "rejected", Rejected))
    reasons = [f"{rejection.filter}.{rejection.reason}" for rejection in rejected]
    window.get_by_role("button", name=re.compile("^rejected")).click()
    status(window).to_have_text(f"{len(rejected)} of {len(samples)} samples")
    menu = window.get_by_label("Rejected for")
    option = menu.locator("option", has_text=reasons[0])
    expect(option).to_have_text(f"{reasons[0]} ({reasons.count(reasons[0])})")
    menu.select_option(option.get_attribute("value"))
    status(window).to_have_text(f"{reasons.count(reasons[0])} of {len(samples)} samples")
    heading(window).to_contain_text(rejected[0].id)
    expect(window.locator(".why")).to_have_text(f"{reasons[0]}: {rejected[0].value}")
    window.get_by_role("button", name="Show all").click()
    window.get_by_role("button", name=re.compile("^g1")).click()
    in_group = [sample for sample in samples if sample.seed.group == "g1"]
    status(window).to_have_text(f"{len(in_group)} of {len(samples)} samples")


def test_keys_alone_are_enough(opened: Open, samples: list[Sample]) -> None:
    """Keys move from the list to a sample, to its tokens and back."""
    window = opened()
    window.locator(".list:visible").focus()
    window.keyboard.press("j")
    window.keyboard.press("ArrowDown")
    heading(window).to_contain_text(samples[2].id)
    window.keyboard.press("k")
    heading(window).to_contain_text(samples[1].id)
    expect(window.locator(".token.current")).to_be_visible()
    window.keyboard.press("Enter")
    window.keyboard.press("ArrowRight")
    expect(window.locator(".likely p")).to_contain_text("Token 2 of")
    window.keyboard.press("Escape")
    window.keyboard.press("End")
    heading(window).to_contain_text(samples[-1].id)


def test_hover_shows_what_else_was_likely(
    opened: Open, run_dir: Path, samples: list[Sample]
) -> None:
    """Probabilities shifted by a token or a sample would belong to another one."""
    window = opened()
    topk = TopKFolder(run_dir / "generate").topk_of(samples[1])
    known = token_probabilities(topk, 5)
    place = int(np.argmin(known.written))
    window.locator(".line").nth(1).click()
    heading(window).to_contain_text(samples[1].id)
    window.locator(".tokens .token").nth(place).hover()
    expect(window.locator(".likely p")).to_have_text(f"Token {place + 1} of {len(known.written)}")
    expect(window.locator(".likely li.written span").last).to_have_text(
        f"{known.written[place]:.3f}"
    )
    expect(window.locator(".likely li")).to_have_count(
        2 + int((known.others[place] >= 0.0005).sum())
    )
    shades = {
        re.sub(" answer| current", "", str(token.get_attribute("class")))
        for token in window.locator(".tokens .token").all()
    }
    assert len(shades) > 1
    window.screenshot(path=run_dir / "hover.png")


def test_a_character_of_several_tokens_is_whole(opened: Open, samples: list[Sample]) -> None:
    """Bytes decoded one at a time would show as question marks."""
    snowman = next(sample.id for sample in samples if "☃" in sample.text)
    window = opened(address=f"#samples&id={snowman}")
    expect(window.locator(".tokens")).to_contain_text("perhaps ")
    expect(window.locator(".tokens")).to_contain_text("☃")
    assert "\ufffd" not in window.locator(".tokens").inner_text()


def test_a_sample_can_be_linked(opened: Open, samples: list[Sample]) -> None:
    """The address holds the selected sample and the choices that lead to it."""
    wanted = next(sample for sample in samples[40:] if sample.seed.group == "g2")
    window = opened(address=f"#samples&id={wanted.id}&slice=g2&sort=rising")
    heading(window).to_contain_text(wanted.id)
    expect(window.locator(".line[aria-selected=true]")).to_be_in_viewport()
    status(window).to_have_text(f"20 of {len(samples)} samples")
    window.evaluate(f"location.hash = '#samples&id={samples[3].id}'")
    heading(window).to_contain_text(samples[3].id)
    window.locator(".line").first.click()
    assert f"id={samples[0].id}".replace("/", "%2F") in window.url


def test_teacher_beside_student(opened: Open, run_dir: Path) -> None:
    """Users first read the seeds on which the teacher is right and the student wrong."""
    window = opened()
    window.get_by_role("button", name=re.compile("^Held-out answers")).click()
    for model, verdict in (("teacher", "right"), ("kd", "wrong")):
        window.get_by_role("group", name=model).get_by_role(
            "button", name=re.compile(f"^{verdict}")
        ).click()
    answers = read_records(run_dir / "evaluate" / "teacher", Scored)
    right = [answer for answer in answers if answer.score.value == 1]
    status(window).to_have_text(f"{len(right)} of 12 held-out examples")
    heading(window).to_contain_text(right[0].seed_id)
    detail = window.locator(".detail:visible")
    expect(detail.locator(".model")).to_have_count(2)
    expect(detail).to_contain_text(right[0].text.strip())
    expect(detail).to_contain_text("wrong: opposite")
    assert "view=held-out" in window.url


def test_text_from_outside_is_only_text(opened: Open) -> None:
    """Markup in a seed must not become part of the page."""
    window = opened(address="#samples&id=n7/0")
    expect(window.locator(".detail:visible .facts").first).to_contain_text(HOSTILE)
    assert window.locator("#browser img").count() == 0
    assert window.title() not in ("1", "2")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_light_and_dark(opened: Open, run_dir: Path, scheme: str) -> None:
    """The button switches the colours, whatever the system prefers."""
    window = opened(color_scheme=scheme)
    colour = "getComputedStyle(document.querySelector('.list')).backgroundColor"
    before = window.evaluate(colour)
    window.locator("#samples").screenshot(path=run_dir / f"{scheme}.png")
    window.locator("#theme").click()
    assert window.evaluate(colour) != before


def test_narrow(opened: Open, run_dir: Path) -> None:
    """On a phone nothing overflows, and the list is above the sample."""
    window = opened(viewport={"width": 360, "height": 780})
    for view in ("Held-out answers", "Generated"):
        window.get_by_role("button", name=re.compile(f"^{view}")).click()
        heading(window).to_be_visible()
        assert window.evaluate("document.documentElement.scrollWidth") == 360
    listed, detail = (
        window.locator(f"{part}:visible").bounding_box() for part in (".list", ".detail")
    )
    assert listed is not None
    assert detail is not None
    assert listed["y"] + listed["height"] <= detail["y"]
    window.locator("#samples").screenshot(path=run_dir / "narrow.png")


def test_print_says_where_to_look(opened: Open) -> None:
    """A list that scrolls would be cut on paper."""
    window = opened()
    window.emulate_media(media="print")
    expect(window.locator("#browser .app")).to_be_hidden()
    expect(window.locator("#browser .print-only")).to_contain_text("60 samples")


def test_without_scripts(opened: Open) -> None:
    """An empty section would look like a run without samples."""
    expect(opened(java_script_enabled=False).locator("#browser noscript p")).to_contain_text(
        "needs JavaScript"
    )


@pytest.fixture(scope="session")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page with 100,000 samples, one of which differs."""
    folder = tmp_path_factory.mktemp("many")
    index = Index(
        [Facet("verdict", "Verdict", ["kept"]), Facet("truth", "Truth", ["right"])],
        sorts=[("input", "in input order")],
    )
    row: dict[str, Any] = {
        "inputs": [["text", "a prompt"]],
        "text": "a reply",
        "rationale": None,
        "answer": "a",
        "spans": [None, None],
        "target": None,
    }
    row |= {"why": None, "said": None, "ended": "stop", "tokens": 3}
    rows = (
        row if number != MANY - 2 else row | {"rationale": "a needle"} for number in range(MANY)
    )
    for name, page in in_pages(rows):
        write_data(folder / "samples" / "generated", name, page)
    for number in range(MANY):
        for facet in index.facets:
            facet.add(facet.values[0])
        index.add(f"s{number}", f"answer {number}", "a prompt", None)
    write_data(folder / "samples" / "generated", "index", index.to_json())
    samples = section({"generated": MANY})
    (folder / "index.html").write_text(
        f"<!doctype html><meta charset=utf-8><section id=samples>{samples}</section>"
    )
    return folder / "index.html"


def test_a_hundred_thousand_samples(opened: Open, many: Path) -> None:
    """Only visible rows are drawn; a search of all texts shows its progress and can be stopped."""
    window = opened(many)
    status(window).to_have_text("100,000 samples")
    assert window.locator(".line").count() < 60
    window.locator(".list").focus()
    window.keyboard.press("End")
    heading(window).to_contain_text(f"s{MANY - 1}")
    window.locator("input[type=search]").fill("needle")
    status(window).to_contain_text("searched")
    status(window).to_have_text("1 of 100,000 samples")
    heading(window).to_contain_text(f"s{MANY - 2}")
    window.locator("input[type=search]").fill("nothing like it")
    window.get_by_role("button", name="Stop").click()
    status(window).to_contain_text("stopped after")
