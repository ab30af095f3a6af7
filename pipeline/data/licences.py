"""Check whether the licences of teacher and seeds allow a student to be trained on their text.

The table, licences.yaml, summarises each document as of the date beside it. It is no legal advice:
terms change, and it is often unsettled what a licence of data or weights means for a model trained
on them. Read the document itself.
"""

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from pipeline.config import Licences
from pipeline.errors import PipelineError

Ruling = Literal["allowed", "with_conditions", "forbidden", "unknown"]


@dataclass(frozen=True)
class Terms:
    """One document of the table.

    Attributes:
        names: SPDX ids or other names of the licence.
        conditions: any of attribution, share-alike, naming, notice, non-commercial, use
            restrictions.
        date: date of the version that was read.
    """

    names: list[str]
    ruling: Ruling
    meaning: str
    document: str
    date: str
    conditions: Sequence[str] = ()


def _read_table() -> tuple[Terms, ...]:
    rows = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"))
    return tuple(Terms(**row) for row in rows)


TABLE = _read_table()
NEEDS_CONSENT = {"forbidden": "forbids", "unknown": "is not known to allow"}
KNOWN = {name: terms for terms in TABLE for name in terms.names}


@dataclass(frozen=True)
class Report:
    """The `lines` for the user, and for the manifest the verdicts under "teacher" and "seeds"."""

    lines: list[str]
    record: dict[str, dict[str, Any]]


def check_declared(declared: Licences) -> Report:
    """Check the licences that a config declares."""
    return check(declared.teacher, declared.seeds, declared.acknowledge)


def check(teacher: str | None, seeds: str | None, acknowledged: Sequence[str] = ()) -> Report:
    """Look up the declared licences. None means not declared.

    Names are SPDX ids or names of TABLE; upper and lower case are equal.

    Raises PipelineError for a licence that forbids training, or is not known to allow it, and is
    not among `acknowledged`.
    """
    declared = {"teacher": teacher, "seeds": seeds}
    missing = [f"licences.{role}" for role, name in declared.items() if name is None]
    lines = []
    if missing:
        lines.append(
            f"licences: {' and '.join(missing)} not declared; "
            "check yourself whether training is allowed"
        )
    accepted_names = {_plain(name) for name in acknowledged}
    record: dict[str, dict[str, Any]] = {}
    for role, name in declared.items():
        if name is not None:
            terms = _terms(name)
            accepted = _plain(name) in accepted_names
            if terms.ruling in NEEDS_CONSENT and not accepted:
                raise PipelineError(_refusal(role, name, terms))
            lines.append(_line(role, name, terms))
            record[role] = {
                "licence": name,
                "ruling": terms.ruling,
                "conditions": list(terms.conditions),
                "document": terms.document,
                "date": terms.date,
                "acknowledged": accepted,
            }
    return Report(lines, record)


def _plain(name: str) -> str:
    plain = name.strip().casefold().replace(" ", "-").replace("_", "-")
    return re.sub(r"-(?:only|or-later)$", "", plain)


def _terms(name: str) -> Terms:
    plain = _plain(name)
    if plain in KNOWN:
        return KNOWN[plain]
    meaning = "it is not in the table of pipeline/data/licences.yaml"
    close = difflib.get_close_matches(plain, KNOWN, n=1, cutoff=0.7)
    if close:
        meaning += f"; did you mean {close[0]}?"
    return Terms([plain], "unknown", meaning, "none", "-")


def _line(role: str, name: str, terms: Terms) -> str:
    if terms.ruling in NEEDS_CONSENT:
        return (
            f"licences: !!! {role}: {name} {NEEDS_CONSENT[terms.ruling].upper()} this training: "
            f"{terms.meaning}. It continues because licences.acknowledge names it !!!"
        )
    conditions = ""
    if terms.conditions:
        conditions = f" with conditions ({', '.join(terms.conditions)}): {terms.meaning}"
    source = f"{terms.document}, {terms.date}; no legal advice"
    return f"licences: {role}: {name} allows training{conditions} [{source}]"


def _refusal(role: str, name: str, terms: Terms) -> str:
    source = "" if terms.document == "none" else f" ({terms.document}, {terms.date})"
    replacement = "another teacher" if role == "teacher" else "other seeds"
    return (
        f"licences.{role}: {name} {NEEDS_CONSENT[terms.ruling]} this training: "
        f"{terms.meaning}{source}; take {replacement}, "
        f"or, if you have the right, say so with licences.acknowledge=[{name}]"
    )
