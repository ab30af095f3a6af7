"""Personal data and secrets: what is found, what only looks like it, and how values are masked."""

import time
from collections.abc import Callable
from typing import Any

import pytest

from pipeline.filters.privacy import credentials, scan
from pipeline.filters.privacy import pii as personal
from pipeline.records import Sample, Seed
from tests.support import credential_cases, pii_cases
from tests.support.filters import batch, reasons

Make = Callable[..., Sample]
MAIL = "Write to maria.lopez82@gmail.com."
KEY = "token ghp_" + credential_cases.drawn(36)


def pii(sample: Sample, **settings: Any) -> Any:
    (rejection,) = scan.pii(
        batch(sample), **{"kinds": personal.KINDS, "regions": ["US"], "inputs": False, **settings}
    )
    return rejection


@pytest.mark.parametrize(("kind", "text"), pii_cases.HELD)
def test_personal_data_is_found(kind: str, text: str) -> None:
    """Each kind alone: a card found as a phone number would hide that no card is found."""
    kinds = [kind] if kind in personal.KINDS else ["national_id"]
    assert kind in [name for name, _ in personal.find(text, kinds, ["US"])]


@pytest.mark.parametrize("text", pii_cases.CLEAN)
def test_numbers_are_left_alone(text: str) -> None:
    """Tasks consist of sums, versions, dates and ids of things."""
    assert list(personal.find(text, personal.KINDS, ["US"])) == []


def test_beginnings_of_a_web_token_one_after_the_other() -> None:
    """Each was once read to the end of the text, which took minutes."""
    assert list(credentials.find("eyJ-" * 200_000)) == []


LONG = {
    "fractions": "1/1" * 33_000,
    "fractions apart": "1/2 3/4 " * 12_500,
    "decimals": "0.1234, 0.5678, " * 6_000,
    "digits": "1 " * 50_000,
    "dates": "2024-01-02 " * 9_000,
    "addresses": "2001:" * 20_000,
    "phones that are none": "(555) 123 4567, " * 6_000,
    "plus signs": "+1 " * 33_000,
    "spaces": "1" + " " * 100_000 + "234567",
}


@pytest.mark.parametrize("name", LONG)
def test_a_long_text_of_numbers_takes_little_time(name: str) -> None:
    """A reply of 100 kB once took 12 seconds."""
    began = time.process_time()
    assert list(personal.find(LONG[name], personal.KINDS, ["US", "GB"])) == []
    assert time.process_time() - began < 4.0


def test_a_phone_behind_a_long_table_is_found() -> None:
    """A limit for the whole text would end the search before it."""
    table = "\n".join(f"{row / 7:.4f} {row / 3:.4f} {row}" for row in range(3000))
    text = f"{table}\ncall (415) 555-2671 or +44 20 7946 0958\n{table}"
    found = [value for kind, value in personal.find(text, ["phone"], ["US"])]
    assert {"(415) 555-2671", "+44 20 7946 0958"} <= set(found)


def test_a_number_beyond_stdnums_tables_is_no_number() -> None:
    """Its table of counties has gaps, which once ended the stage with a KeyError."""
    numbers = " ".join(f"{area}00001{year}0101001X" for area in range(11, 66) for year in (1949,))
    numbers += " " + " ".join(f"{n:06}194901010014" for n in range(110000, 660000, 97))
    assert all(kind for kind, _ in personal.find(numbers, ["national_id"], []))


@pytest.mark.parametrize(("kind", "text"), credential_cases.HELD)
def test_secrets_are_found(kind: str, text: str) -> None:
    """A student reveals a key that it has memorised."""
    assert kind in [name for name, _ in credentials.find(text)]


@pytest.mark.parametrize("text", credential_cases.CLEAN)
def test_talk_of_secrets_is_left_alone(text: str) -> None:
    """Placeholders, hashes and sentences with the word key are no secrets."""
    assert list(credentials.find(text)) == []


@pytest.mark.parametrize(("kind", "text"), [*pii_cases.HELD, *credential_cases.HELD])
def test_what_decided_is_masked(sample: Make, kind: str, text: str) -> None:
    """People read and share rejected samples; the reasons must not repeat the data."""
    whole = dict([*personal.find(text, personal.KINDS, ["US"]), *credentials.find(text)])[kind]
    shown = scan.masked(whole)
    assert whole not in shown
    assert sum(c.isalnum() for c in shown.replace("*", "")) <= 2
    assert len(shown) <= scan.SHOWN


def test_short_values_are_masked_whole() -> None:
    """First and last of four characters are half of a PIN."""
    assert scan.masked("1234") == "****"


def test_all_parts_are_looked_at(sample: Make) -> None:
    """A rationale that is cut out of the reply is still stored and trained on."""
    assert pii(sample()) is None
    for part in ("text", "rationale", "answer"):
        assert reasons([pii(sample(**{part: MAIL}))]) == ["holds_pii"]
    assert pii(sample(text=MAIL)) == ("holds_pii", "email m****.*******@*****.**m")


def test_what_the_input_holds_is_the_tasks_own(sample: Make) -> None:
    """An extraction task repeats the address of its input, in any spelling; others are rejected."""
    given = Seed(id="n", inputs={"mail": {"from": ["Maria.Lopez82@gmail.com", "(212) 736 5000"]}})
    assert pii(sample(text=MAIL, seed=given)) is None
    assert pii(sample(text="Call 212-736-5000.", seed=given)) is None
    assert pii(sample(text="Write to tom.baker@yahoo.com.", seed=given))[0] == "holds_pii"


def test_inputs_can_be_looked_at_too(sample: Make) -> None:
    """Students are trained on replies, but the data set may be shared with its inputs."""
    given = Seed(id="n", inputs={"mail": MAIL})
    assert pii(sample(seed=given)) is None
    assert reasons([pii(sample(seed=given), inputs=True)]) == ["holds_pii"]
    assert reasons([pii(sample(seed=given, text=MAIL), inputs=True)]) == ["holds_pii"]


def test_kinds_and_regions(sample: Make) -> None:
    """A filter on phone numbers must keep addresses; a national number needs its country."""
    assert pii(sample(text=MAIL), kinds=["phone"]) is None
    assert pii(sample(text="Ring 020 7946 0958."), regions=["US"]) is None
    assert reasons([pii(sample(text="Ring 020 7946 0958."), regions=["US", "GB"])]) == ["holds_pii"]


def test_holds_secret(sample: Make) -> None:
    """The filter has its own reason and value; a key in the input belongs to the task."""
    ((reason, value),) = filter(None, scan.secrets(batch(sample(text=KEY), sample()), inputs=False))
    assert (reason, str(value)[:17]) == ("holds_secret", "github_token g**_")
    assert scan.secrets(
        batch(sample(text=KEY, seed=Seed(id="n", inputs={"code": KEY}))), inputs=False
    ) == [None]
