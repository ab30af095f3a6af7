"""Check whether the licences of teacher and seeds allow a student to be trained on their text.

The table summarises the named documents as of the date beside them. It is no legal advice: terms
change, and what a licence of data or weights means for a model that was trained on them is
unsettled in many places. Read the document itself.
"""

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from pipeline.config import Licences
from pipeline.errors import PipelineError

Ruling = Literal["allowed", "with_conditions", "forbidden", "unknown"]


@dataclass(frozen=True)
class Terms:
    """One document.

    Attributes:
        names: SPDX ids or other names of the licence.
        conditions: of attribution, share-alike, naming, notice, non-commercial, use restrictions.
        date: the version that was read.
    """

    names: tuple[str, ...]
    ruling: Ruling
    conditions: tuple[str, ...]
    meaning: str
    document: str
    date: str


def _free(names: Sequence[str], document: str, date: str) -> Terms:
    return Terms(tuple(names), "allowed", (), "nothing is asked of a student", document, date)


def _creative(
    name: str, ruling: Ruling, conditions: Sequence[str], meaning: str
) -> tuple[Terms, Terms]:
    document = f"Creative Commons {name.removeprefix('cc-').upper()}"
    terms = partial(Terms, ruling=ruling, conditions=tuple(conditions), meaning=meaning)
    current = (f"{name}-4.0", name)
    return (
        terms(names=current, document=f"{document} 4.0 International", date="2013-11-25"),
        terms(names=(f"{name}-3.0",), document=f"{document} 3.0 Unported", date="2007-02-23"),
    )


def _llama(version: str, date: str) -> Terms:
    names = (f"llama{version}", f"llama-{version}-community", f"llama-{version}")
    meaning = (
        "a published student has a name that begins with Llama, says 'Built with Llama' "
        "and comes with its use policy"
    )
    document = f"Llama {version} Community License Agreement"
    return Terms(names, "with_conditions", ("naming", "use restrictions"), meaning, document, date)


def _service(name: str, document: str, date: str) -> Terms:
    meaning = "outputs may not train models that compete with the service"
    return Terms((name,), "forbidden", (), meaning, document, date)


def _no_other_model(names: Sequence[str], model: str, document: str, date: str) -> Terms:
    meaning = (
        "neither it nor its outputs may improve another language model; "
        f"a student made from {model} itself may learn from it"
    )
    return Terms(tuple(names), "forbidden", (), meaning, document, date)


QWEN_NAMING = "a published student says 'Built with Qwen' or 'Improved using Qwen'"
TABLE = (
    Terms(("own",), "allowed", (), "your own work", "your own statement", "-"),
    _free(("apache-2.0",), "Apache License 2.0", "2004-01"),
    _free(("mit",), "MIT License", "1988"),
    _free(
        ("bsd-3-clause", "bsd-2-clause", "isc"),
        "BSD 3-Clause License (2-Clause and ISC alike)",
        "1999-07-22",
    ),
    _free(
        ("cc0-1.0", "cc0", "unlicense", "pddl", "public-domain"),
        "CC0 1.0 Universal (Unlicense and PDDL alike)",
        "2009-03-11",
    ),
    *_creative(
        "cc-by",
        "with_conditions",
        ("attribution",),
        "name the authors where the data, or text that quotes it, is published",
    ),
    *_creative(
        "cc-by-sa",
        "with_conditions",
        ("attribution", "share-alike"),
        "name the authors; what is adapted from the data is published under the same licence",
    ),
    *_creative(
        "cc-by-nc",
        "with_conditions",
        ("attribution", "non-commercial"),
        "name the authors; not for commercial advantage",
    ),
    *_creative(
        "cc-by-nc-sa",
        "with_conditions",
        ("attribution", "non-commercial", "share-alike"),
        "name the authors; not for commercial advantage; adaptations keep the same licence",
    ),
    *_creative(
        "cc-by-nd",
        "unknown",
        ("attribution",),
        "no adaptation may be published, and whether a student is one is disputed",
    ),
    *_creative(
        "cc-by-nc-nd",
        "unknown",
        ("attribution", "non-commercial"),
        "not for commercial advantage; "
        "no adaptation may be published, and whether a student is one is disputed",
    ),
    Terms(
        ("odc-by", "odc-by-1.0"),
        "with_conditions",
        ("attribution",),
        "name the database where it, or what is made from it, is published",
        "Open Data Commons Attribution License 1.0",
        "2010-06-24",
    ),
    Terms(
        ("odbl", "odbl-1.0"),
        "with_conditions",
        ("attribution", "share-alike"),
        "name the database; databases derived from it are published under the same licence",
        "Open Data Commons Open Database License 1.0",
        "2009-06-29",
    ),
    Terms(
        ("gpl-3.0", "gpl-2.0", "agpl-3.0", "lgpl-3.0"),
        "with_conditions",
        ("share-alike",),
        "works based on the licensed one keep the licence; whether a student is such a work is "
        "unsettled, above all where it repeats text",
        "GNU General Public License 3 (2 and the Affero and Lesser ones alike)",
        "2007-06-29",
    ),
    _no_other_model(
        ("llama2", "llama-2", "llama-2-community"),
        "Llama 2",
        "Llama 2 Community License Agreement",
        "2023-07-18",
    ),
    _no_other_model(
        ("llama3", "llama-3", "llama-3-community"),
        "Llama 3",
        "Meta Llama 3 Community License Agreement",
        "2024-04-18",
    ),
    _llama("3.1", "2024-07-23"),
    _llama("3.2", "2024-09-25"),
    _llama("3.3", "2024-12-06"),
    _llama("4", "2025-04-05"),
    Terms(
        ("gemma", "gemma-terms"),
        "with_conditions",
        ("use restrictions", "notice"),
        "a student that imitates Gemma 1 to 3 is a derivative: it keeps the terms and their "
        "prohibited uses",
        "Gemma Terms of Use",
        "2026-04-01",
    ),
    Terms(
        ("qwen", "qwen-license"),
        "with_conditions",
        ("naming",),
        QWEN_NAMING,
        "Qwen License Agreement",
        "2024-09-19",
    ),
    Terms(
        ("qwen-research",),
        "with_conditions",
        ("non-commercial", "naming"),
        f"research and evaluation only; {QWEN_NAMING}",
        "Qwen Research License Agreement",
        "2024-09-19",
    ),
    _no_other_model(
        ("tongyi-qianwen", "tongyi-qianwen-license"),
        "Qwen",
        "Tongyi Qianwen License Agreement (first Qwen models)",
        "2023-08-03",
    ),
    Terms(
        ("deepseek", "deepseek-license"),
        "with_conditions",
        ("use restrictions", "notice"),
        "a student distilled from it is a derivative: it keeps the prohibited uses "
        "(for models under MIT declare mit)",
        "DeepSeek License Agreement 1.0",
        "2023-10-23",
    ),
    Terms(
        ("openrail-m", "bigscience-openrail-m", "bigscience-bloom-rail-1.0"),
        "with_conditions",
        ("use restrictions", "notice"),
        "a student that imitates it is a derivative: it keeps the prohibited uses",
        "BigScience OpenRAIL-M License",
        "2022-08-18",
    ),
    Terms(
        ("mistral-research", "mrl", "mrl-0.1"),
        "with_conditions",
        ("non-commercial",),
        "model, derivatives and outputs are for research and personal use; "
        "anything else needs a licence of Mistral AI",
        "Mistral AI Research License 0.1",
        "2024",
    ),
    Terms(
        ("mistral-non-production", "mnpl", "mnpl-0.1"),
        "with_conditions",
        ("non-commercial",),
        "model, derivatives and outputs are for tests and research, not for production",
        "Mistral AI Non-Production License 0.1",
        "2024",
    ),
    _service("openai-terms", "OpenAI Services Agreement", "2025-05-31"),
    _service("anthropic-terms", "Anthropic Commercial Terms of Service", "2025-06-17"),
    _service("google-terms", "Gemini API Additional Terms of Service", "2025-05-20"),
    Terms(
        ("proprietary", "other"),
        "unknown",
        (),
        "what is allowed stands in your contract",
        "your contract",
        "-",
    ),
    Terms(("unknown",), "unknown", (), "nobody has said what is allowed", "none", "-"),
)
NEEDS_CONSENT = {"forbidden": "forbids", "unknown": "is not known to allow"}
KNOWN = {name: terms for terms in TABLE for name in terms.names}


@dataclass(frozen=True)
class Report:
    """The `lines` for the user, and the verdict by "teacher" and "seeds" for the run's manifest."""

    lines: list[str]
    record: dict[str, dict[str, Any]]


def check_declared(declared: Licences) -> Report:
    """Check the licences that a config declares."""
    return check(declared.teacher, declared.seeds, declared.acknowledge)


def check(teacher: str | None, seeds: str | None, acknowledged: Sequence[str] = ()) -> Report:
    """Look up the declared licences, SPDX ids or names of TABLE in any case; None: not declared.

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
    meaning = "it is not in the table of pipeline/data/licences.py"
    close = difflib.get_close_matches(plain, KNOWN, n=1, cutoff=0.7)
    if close:
        meaning += f"; did you mean {close[0]}?"
    return Terms((plain,), "unknown", (), meaning, "none", "-")


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
