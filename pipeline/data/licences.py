"""Whether the terms of teacher and seeds let a student be trained on what they give.

The table says in our own words what the named documents said at the date beside them. It is no legal advice: terms change, and what a
licence of data or weights means for a model that was trained on them is unsettled in many places. Read the document itself.
"""

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pipeline.config import Licences
from pipeline.errors import PipelineError

Ruling = Literal["allowed", "with_conditions", "forbidden", "unknown"]


@dataclass(frozen=True)
class Terms:
    """One document. `conditions`: attribution, share-alike, naming, notice, non-commercial, use restrictions; `date`: the version read."""

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
    return (
        Terms(
            (f"{name}-4.0", name),
            ruling,
            tuple(conditions),
            meaning,
            f"{document} 4.0 International",
            "2013-11-25",
        ),
        Terms(
            (f"{name}-3.0",),
            ruling,
            tuple(conditions),
            meaning,
            f"{document} 3.0 Unported",
            "2007-02-23",
        ),
    )


def _llama(version: str, date: str) -> Terms:
    meaning = "a student that is given to others has a name that begins with Llama and says 'Built with Llama'; its use policy goes along"
    names = (f"llama{version}", f"llama-{version}-community", f"llama-{version}")
    return Terms(
        names,
        "with_conditions",
        ("naming", "use restrictions"),
        meaning,
        f"Llama {version} Community License Agreement",
        date,
    )


def _service(name: str, document: str, date: str) -> Terms:
    return Terms(
        (name,),
        "forbidden",
        (),
        "outputs may not train models that compete with the service",
        document,
        date,
    )


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
        "name the authors where the data, or what quotes it, is given to others",
    ),
    *_creative(
        "cc-by-sa",
        "with_conditions",
        ("attribution", "share-alike"),
        "name the authors; what counts as adapted from the data is given to others under the same licence only",
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
        "name the authors; not for commercial advantage; what is adapted stays under the same licence",
    ),
    *_creative(
        "cc-by-nd",
        "unknown",
        ("attribution",),
        "nothing adapted may be given to others, and whether a student is adapted is disputed",
    ),
    *_creative(
        "cc-by-nc-nd",
        "unknown",
        ("attribution", "non-commercial"),
        "not for commercial advantage; nothing adapted may be given to others, and whether a student is adapted is disputed",
    ),
    Terms(
        ("odc-by", "odc-by-1.0"),
        "with_conditions",
        ("attribution",),
        "name the database where it, or what is made from it, is given to others",
        "Open Data Commons Attribution License 1.0",
        "2010-06-24",
    ),
    Terms(
        ("odbl", "odbl-1.0"),
        "with_conditions",
        ("attribution", "share-alike"),
        "name the database; databases derived from it are given to others under the same licence only",
        "Open Data Commons Open Database License 1.0",
        "2009-06-29",
    ),
    Terms(
        ("gpl-3.0", "gpl-2.0", "agpl-3.0", "lgpl-3.0"),
        "with_conditions",
        ("share-alike",),
        "works based on the licensed one stay under it; whether a student is such a work is unsettled, most so where its text is repeated",
        "GNU General Public License 3 (2 and the Affero and Lesser ones alike)",
        "2007-06-29",
    ),
    Terms(
        ("llama2", "llama-2", "llama-2-community"),
        "forbidden",
        (),
        "neither it nor its outputs may improve another language model; a student made from Llama 2 itself may learn from it",
        "Llama 2 Community License Agreement",
        "2023-07-18",
    ),
    Terms(
        ("llama3", "llama-3", "llama-3-community"),
        "forbidden",
        (),
        "neither it nor its outputs may improve another language model; a student made from Llama 3 itself may learn from it",
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
        "a student that is to do as Gemma 1 to 3 does is a derivative: the terms and their prohibited uses go along with it",
        "Gemma Terms of Use",
        "2026-04-01",
    ),
    Terms(
        ("qwen", "qwen-license"),
        "with_conditions",
        ("naming",),
        "a student that is given to others says 'Built with Qwen' or 'Improved using Qwen'",
        "Qwen License Agreement",
        "2024-09-19",
    ),
    Terms(
        ("qwen-research",),
        "with_conditions",
        ("non-commercial", "naming"),
        "research and evaluation only; a student that is given to others says 'Built with Qwen' or 'Improved using Qwen'",
        "Qwen Research License Agreement",
        "2024-09-19",
    ),
    Terms(
        ("tongyi-qianwen", "tongyi-qianwen-license"),
        "forbidden",
        (),
        "neither it nor its outputs may improve another language model; a student made from Qwen itself may learn from it",
        "Tongyi Qianwen License Agreement (first Qwen models)",
        "2023-08-03",
    ),
    Terms(
        ("deepseek", "deepseek-license"),
        "with_conditions",
        ("use restrictions", "notice"),
        "a student distilled from it is a derivative: the prohibited uses go along with it (models under MIT: say mit)",
        "DeepSeek License Agreement 1.0",
        "2023-10-23",
    ),
    Terms(
        ("openrail-m", "bigscience-openrail-m", "bigscience-bloom-rail-1.0"),
        "with_conditions",
        ("use restrictions", "notice"),
        "a student made with its outputs so as to do as it does is a derivative: the prohibited uses go along with it",
        "BigScience OpenRAIL-M License",
        "2022-08-18",
    ),
    Terms(
        ("mistral-research", "mrl", "mrl-0.1"),
        "with_conditions",
        ("non-commercial",),
        "model, derivatives and outputs are for research and personal use; anything else needs a licence of Mistral AI",
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
KNOWN = {name: terms for terms in TABLE for name in terms.names}


@dataclass(frozen=True)
class Report:
    """`lines` for the user, and what was found, by "teacher" and "seeds", for the run's own records (JSON values)."""

    lines: list[str]
    record: dict[str, dict[str, Any]]


def check_declared(declared: Licences) -> Report:
    """`check` of what a config declares."""
    return check(declared.teacher, declared.seeds, declared.acknowledge)


def check(teacher: str | None, seeds: str | None, acknowledged: Sequence[str] = ()) -> Report:
    """Hold the declared licences (SPDX ids or names of TABLE, case aside) against the table; None is one that is not declared.

    Raises PipelineError where one forbids training, or is not known to allow it, and is not among `acknowledged`.
    """
    declared = {"teacher": teacher, "seeds": seeds}
    missing = [f"licences.{role}" for role, name in declared.items() if name is None]
    lines = (
        [
            f"licences: {' and '.join(missing)} not declared; whether training is allowed is for you to know"
        ]
        if missing
        else []
    )
    taken = {_plain(name) for name in acknowledged}
    record: dict[str, dict[str, Any]] = {}
    for role, name in declared.items():
        if name is not None:
            terms, accepted = _terms(name), _plain(name) in taken
            if terms.ruling in ("forbidden", "unknown") and not accepted:
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
    return re.sub(
        r"-(?:only|or-later)$", "", name.strip().casefold().replace(" ", "-").replace("_", "-")
    )


def _terms(name: str) -> Terms:
    close = difflib.get_close_matches(_plain(name), KNOWN, n=1, cutoff=0.7)
    meaning = "it is not in the table of pipeline/data/licences.py" + (
        f"; did you mean {close[0]}?" if close else ""
    )
    return KNOWN.get(_plain(name), Terms((_plain(name),), "unknown", (), meaning, "none", "-"))


def _line(role: str, name: str, terms: Terms) -> str:
    if terms.ruling in ("forbidden", "unknown"):
        said = (
            "FORBIDS this training"
            if terms.ruling == "forbidden"
            else "IS NOT KNOWN to allow this training"
        )
        return f"licences: !!! {role}: {name} {said}: {terms.meaning}. It goes on because licences.acknowledge names it !!!"
    asked = (
        f" with conditions ({', '.join(terms.conditions)}): {terms.meaning}"
        if terms.conditions
        else ""
    )
    return f"licences: {role}: {name} allows training{asked} [{terms.document}, {terms.date}; no legal advice]"


def _refusal(role: str, name: str, terms: Terms) -> str:
    said = (
        "forbids this training"
        if terms.ruling == "forbidden"
        else "is not known to allow this training"
    )
    source = f" ({terms.document}, {terms.date})" if terms.document != "none" else ""
    return (
        f"licences.{role}: {name} {said}: {terms.meaning}{source}; take {'another teacher' if role == 'teacher' else 'other seeds'}, "
        f"or, if you have the right, say so with licences.acknowledge=[{name}]"
    )
