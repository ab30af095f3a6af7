"""Personal data in a text: what is shaped like it, and whose check digits hold.

Shapes are ours, checks are python-stdnum's and phonenumbers'; docs/decisions/0012-personal-data-and-language.md says why. What is only a
row of digits counts where a word before it says what it is: one nine-digit number in eleven has the check digit of a Dutch BSN.
"""

import importlib
import ipaddress
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

Found = tuple[str, str]  # kind, the text

NEAR = 40  # characters before a number in which a word may say what it is
DIGITS = re.compile(r"\d")
MANY_DIGITS = re.compile(
    r"(?:\d[^\w\n]{0,3}){6}\d"
)  # every phone number, card and id but those with letters has as many
EMAIL = re.compile(
    r"(?<![\w.+'-])(?!git@)[a-z0-9][\w.+'-]*@((?:[a-z0-9-]+\.)+[a-z]{2,})(?![\w@])", re.IGNORECASE
)
RESERVED = re.compile(
    r"(?:^|\.)(?:example(?:\.(?:com|net|org))?|test|invalid|localhost|local)$", re.IGNORECASE
)  # RFC 2606, RFC 6762
IBAN = re.compile(
    r"(?<![a-z0-9])[a-z]{2}\d{2}(?:[a-z0-9]{11,30}|(?: [a-z0-9]{4}){2,7}(?: [a-z0-9]{1,4})?)(?![a-z0-9])",
    re.IGNORECASE,
)
CARD = re.compile(
    r"(?<![a-zA-Z0-9_.,-])(?:\d{14,19}|\d{4}([ -])\d{4}\1\d{4}\1\d{4}(?:\1\d{3})?|\d{4}([ -])\d{6}\2\d{4,5})(?![a-zA-Z0-9_-]|[.,]\d)"
)
ISSUERS = re.compile(  # ISO/IEC 7812 prefixes and lengths: Visa, Mastercard, American Express, Discover, JCB, Diners, UnionPay
    r"4\d{15}|5[1-5]\d{14}|2(?:22[1-9]|2[3-9]\d|[3-6]\d\d|7[01]\d|720)\d{12}|3[47]\d{13}|6(?:011|4[4-9]\d|5\d\d)\d{12}"
    r"|35(?:2[89]|[3-8]\d)\d{12}|3(?:0[0-5]|[68]\d)\d{11}|62\d{14,17}"
)
IPV4 = re.compile(r"(?<![\w.])(?:\d{1,3}\.){3}\d{1,3}(?![\w]|\.\d)")
IPV6 = re.compile(
    r"(?<![\w:.])[23][0-9a-f]{3}:(?:[0-9a-f]{0,4}:){1,6}[0-9a-f]{0,4}(?![\w:])", re.IGNORECASE
)  # 2000::/3
NO_ADDRESS = re.compile(
    r"(?:version|ver|v|release|section|chapter|driver|build|§)[.:]?\s*$", re.IGNORECASE
)
RESOLVERS = {"1.1.1.1", "1.0.0.1", "8.8.8.8", "8.8.4.4", "9.9.9.9"}


@dataclass(frozen=True)
class Id:
    """One country's number for a person. `check` is a module of python-stdnum; `near`: one of these words must stand before."""

    name: str
    shape: str
    check: str | None
    near: str | None = None


IDS = (
    Id("us_ssn", r"\d{3}-\d{2}-\d{4}", "us.ssn"),
    Id("us_ssn", r"\d{3} ?\d{2} ?\d{4}", "us.ssn", r"ssn|social security"),
    Id("gb_nhs", r"\d{3}[ -]?\d{3}[ -]?\d{4}", "gb.nhs", r"nhs"),
    Id(
        "gb_nino",
        r"[A-CEGHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z] ?\d\d ?\d\d ?\d\d ?[A-D]",
        None,
        r"\bni\b|nino|national insurance",
    ),
    Id(
        "de_steuer_id",
        r"\d{2} ?\d{3} ?\d{3} ?\d{3}",
        "de.idnr",
        r"steuer|idnr|tax id|identifikationsnummer",
    ),
    Id("fr_nir", r"[1278] ?\d{2} ?\d{2} ?\d[\dAB] ?\d{3} ?\d{3} ?\d{2}", "fr.nir"),
    Id("it_codice_fiscale", r"[A-Z]{6}\d\d[A-Z]\d\d[A-Z]\d{3}[A-Z]", "it.codicefiscale"),
    Id("es_dni", r"\d{8}-?[A-Z]", "es.dni", r"\bdni\b|\bnif\b|identidad"),
    Id("es_nie", r"[XYZ]-?\d{7}-?[A-Z]", "es.nie"),
    Id("nl_bsn", r"\d{9}|\d{4}\.\d{2}\.\d{3}", "nl.bsn", r"\bbsn\b|burgerservice|sofi"),
    Id("be_rijksregister", r"\d{2}\.\d{2}\.\d{2}-\d{3}\.\d{2}", "be.nn"),
    Id("se_personnummer", r"(?:\d{2})?\d{6}[-+]\d{4}", "se.personnummer"),
    Id("fi_hetu", r"\d{6}[-+A-FU-Y]\d{3}[0-9A-FHJ-NPR-Y]", "fi.hetu"),
    Id("dk_cpr", r"\d{6}-\d{4}", "dk.cpr", r"\bcpr\b|personnummer"),
    Id("no_fodselsnummer", r"\d{6} ?\d{5}", "no.fodselsnummer", r"f[øo]dsels|personnummer|\bfnr\b"),
    Id("pl_pesel", r"\d{11}", "pl.pesel", r"pesel"),
    Id("ch_ahv", r"756\.\d{4}\.\d{4}\.\d{2}", "ch.ssn"),
    Id("br_cpf", r"\d{3}\.\d{3}\.\d{3}-\d{2}", "br.cpf"),
    Id("mx_curp", r"[A-Z]{4}\d{6}[HMX][A-Z]{5}[0-9A-Z]\d", "mx.curp"),
    Id("in_aadhaar", r"\d{4}[ -]?\d{4}[ -]?\d{4}", "in_.aadhaar", r"aadhaar|uidai"),
    Id(
        "in_pan",
        r"[A-Z]{3}[ABCFGHJLPT][A-Z]\d{4}[A-Z]",
        "in_.pan",
        r"\bpan\b|income tax|permanent account",
    ),
    Id("cn_ric", r"\d{17}[\dXx]", "cn.ric"),
    Id("kr_rrn", r"\d{6}-\d{7}", "kr.rrn"),
    Id("ca_sin", r"\d{3}[ -]?\d{3}[ -]?\d{3}", "ca.sin", r"\bsin\b|social insurance"),
    Id("au_tfn", r"\d{3} ?\d{3} ?\d{3}", "au.tfn", r"\btfn\b|tax file"),
    Id("za_id", r"\d{13}", "za.idnr", r"\bid\b|identity"),
    Id("tr_kimlik", r"\d{11}", "tr.tckimlik", r"kimlik|\btckn?\b"),
    Id("cz_rodne_cislo", r"\d{6}/\d{4}", "cz.rc"),
    Id("ro_cnp", r"\d{13}", "ro.cnp", r"\bcnp\b|cod numeric"),
)
SHAPES = tuple(
    (re.compile(rf"(?<![a-zA-Z0-9_.,-])(?:{one.shape})(?![a-zA-Z0-9_]|[.,-]\d)"), one)
    for one in IDS
)
KINDS = ("email", "phone", "iban", "card", "ip", "national_id")


def find(text: str, kinds: Sequence[str], regions: Sequence[str]) -> Iterator[Found]:
    """All that is found, by kind. `regions`: countries ("US") whose phone numbers are known without their +code."""
    if "email" in kinds and "@" in text:
        yield from (
            ("email", match.group())
            for match in EMAIL.finditer(text)
            if not RESERVED.search(match.group(1))
        )
    if DIGITS.search(text) is None:
        return
    if "iban" in kinds:
        yield from _ibans(text)
    if "ip" in kinds:
        yield from _addresses(text)
    if "national_id" in kinds:
        yield from _ids(text)
    if MANY_DIGITS.search(text) is None:
        return
    if "card" in kinds:
        yield from (
            ("card", match.group()) for match in CARD.finditer(text) if _is_card(match.group())
        )
    if "phone" in kinds:
        yield from _phones(text, regions)


def _ibans(text: str) -> Iterator[Found]:
    from stdnum import iban

    for match in IBAN.finditer(text):
        groups = match.group().split(" ")  # the words after it may look like more of it
        tried = (" ".join(groups[:end]) for end in range(len(groups), 0, -1))
        valid = next((candidate for candidate in tried if iban.is_valid(candidate)), None)
        if valid:
            yield "iban", valid


def _is_card(candidate: str) -> bool:
    from stdnum import luhn

    digits = re.sub(r"\D", "", candidate)
    return len(set(digits)) > 1 and ISSUERS.fullmatch(digits) is not None and luhn.is_valid(digits)


def _addresses(text: str) -> Iterator[Found]:
    """Public addresses; those of one's own network, of documentation and of name servers are nobody's."""
    for match in (*IPV4.finditer(text), *IPV6.finditer(text)):
        try:
            address = ipaddress.ip_address(match.group())
        except ValueError:
            continue
        if (
            address.is_global
            and match.group() not in RESOLVERS
            and not NO_ADDRESS.search(text[max(0, match.start() - NEAR) : match.start()])
        ):
            yield "ip", match.group()


def _ids(text: str) -> Iterator[Found]:
    for shape, one in SHAPES:
        for match in shape.finditer(text):
            before = text[max(0, match.start() - NEAR) : match.start()]
            if one.near is not None and not re.search(one.near, before, re.IGNORECASE):
                continue
            if one.check is None or importlib.import_module(f"stdnum.{one.check}").is_valid(
                match.group().replace(" ", "")
            ):
                yield one.name, match.group()


def _phones(text: str, regions: Sequence[str]) -> Iterator[Found]:
    import phonenumbers

    if "+" in text:
        yield from (
            ("phone", match.raw_string) for match in phonenumbers.PhoneNumberMatcher(text, None)
        )
    for region in regions:
        for match in phonenumbers.PhoneNumberMatcher(
            text, region, phonenumbers.Leniency.STRICT_GROUPING
        ):
            if re.search(
                r"\d\D+\d", match.raw_string
            ):  # a bare row of digits is more often a number than somebody's
                yield "phone", match.raw_string
