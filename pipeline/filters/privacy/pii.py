"""Find personal data in a text: by pattern, and by check digits where the pattern has them.

The patterns are ours; python-stdnum and phonenumbers check the digits. The reasons are in
docs/decisions/0012-personal-data-and-language.md. Digits without separators count only after a word
such as "BSN". The check digit alone is not enough: one random nine-digit number in eleven passes
that of a Dutch BSN.
"""

import importlib
import ipaddress
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

Found = tuple[str, str]  # kind, the text

NEAR = 40  # how many characters before a number are searched for such a word
DIGIT = re.compile(r"\d")
# at least 7 digits: every phone and card number has that many
MANY_DIGITS = re.compile(r"(?:\d[^\w\n]{0,3}){6}\d")
# digits as phonenumbers reads them, with at most four of its punctuation marks between two
PHONE = re.compile(
    r"(?:\d[-x\u2010-\u2015\u2212\u30fc\uff0d\uff0f\u00a0\u00ad\u200b\u2060\u3000"
    r" ()\uff08\uff09\uff3b\uff3d.\[\]/~\u2053\u223c\uff5e]{0,4}){6,}\d"
)
AROUND = 20  # characters beside a number that can decide whether it is one of a phone
# attempts (0.1 ms each) to read one row of digits as a phone number; beyond, it is a table
ATTEMPTS = 500
EMAIL = re.compile(
    r"(?<![\w.+'-])(?!git@)[a-z0-9][\w.+'-]*@((?:[a-z0-9-]+\.)+[a-z]{2,})(?![\w@])", re.IGNORECASE
)
# domains that belong to nobody (RFC 2606 and RFC 6762)
RESERVED = re.compile(
    r"(?:^|\.)(?:example(?:\.(?:com|net|org))?|test|invalid|localhost|local)$", re.IGNORECASE
)
# last labels that are no top-level domain, as of logo@3x.png
FILE_ENDING = re.compile(
    r"\.(?:png|jpe?g|gif|svg|webp|avif|bmp|ico|tiff?|heic|css|scss|less|jsx?|tsx?|mjs|cjs|json"
    r"|html?|xml|ya?ml|toml|ini|cfg|conf|lock|log|csv|tsv|txt|pdf|docx?|xlsx?|pptx?|mp[34]|wav|ogg"
    r"|avi|webm|woff2?|ttf|otf|gz|tgz|tar|bz2|xz|whl|jar|exe|dll|deb|rpm|dmg|apk|ipynb|cpp|hpp)$",
    re.IGNORECASE,
)
# addresses that stand for another, as in instructions
PLACEHOLDER_EMAIL = re.compile(
    r"^(?:you|your[\w.-]*|user(?:name)?|name|first[._-]?name[\w.-]*|e-?mail|someone|somebody)@"
    r"(?:your[\w-]*|my|some|the)?-?(?:domain|company|site|website|host|server|provider|e?mail"
    r"|organi[sz]ation|org)\.(?:com|net|org|tld)$"
    r"|@(?:your-?[\w-]*|mydomain|domain)\.(?:com|net|org|tld)$",
    re.IGNORECASE,
)
IBAN = re.compile(
    r"(?<![a-z0-9])[a-z]{2}\d{2}"
    r"(?:[a-z0-9]{11,30}|(?: [a-z0-9]{4}){2,7}(?: [a-z0-9]{1,4})?)(?![a-z0-9])",
    re.IGNORECASE,
)
CARD = re.compile(
    r"(?<![a-zA-Z0-9_.,-])"
    r"(?:\d{14,19}|\d{4}([ -])\d{4}\1\d{4}\1\d{4}(?:\1\d{3})?|\d{4}([ -])\d{6}\2\d{4,5})"
    r"(?![a-zA-Z0-9_-]|[.,]\d)"
)
ISSUERS = re.compile(  # ISO/IEC 7812 prefixes and lengths
    r"4\d{15}"  # Visa
    r"|5[1-5]\d{14}|2(?:22[1-9]|2[3-9]\d|[3-6]\d\d|7[01]\d|720)\d{12}"  # Mastercard
    r"|3[47]\d{13}"  # American Express
    r"|6(?:011|4[4-9]\d|5\d\d)\d{12}"  # Discover
    r"|35(?:2[89]|[3-8]\d)\d{12}"  # JCB
    r"|3(?:0[0-5]|[68]\d)\d{11}"  # Diners
    r"|62\d{14,17}"  # UnionPay
)
IPV4 = re.compile(r"(?<![\w.])(?:\d{1,3}\.){3}\d{1,3}(?![\w]|\.\d)")
IPV6 = re.compile(  # addresses that are routed publicly (2000::/3)
    r"(?<![\w:.])[23][0-9a-f]{3}:(?:[0-9a-f]{0,4}:){1,6}[0-9a-f]{0,4}(?![\w:])", re.IGNORECASE
)
NO_ADDRESS = re.compile(  # words before a version number that looks like an address
    r"(?:version|ver|v|release|section|sec|chapter|driver|build|firmware|update|upgrade|patch|rev"
    r"|revision|clause|article|paragraph|figure|fig|table|appendix|step|§|[=~<>]=|\^|~)"
    r"[.:]?[\s\"'`]*v?$",
    re.IGNORECASE,
)
VERSION_AFTER = re.compile(
    r"[\"'`*]*,?\s*(?:or|and)\s+(?:later|newer|above|higher|up|older|earlier|below)\b"
    r"|[-+](?:alpha|beta|rc|dev|post|snapshot|release|ubuntu|deb)",
    re.IGNORECASE,
)
# a product's name before a version, where the first number is small; not what comes before an
# address
PRODUCT = re.compile(r"(?:^|(?<=[^\w.]))[A-Z][\w+#.-]*[\s/-]\s*$")
ADDRESS_WORD = re.compile(
    r"\b(?:ip(?:v4)?|address(?:es)?|host|server|client|gateway|router|dns|ping|connect\w*|login"
    r"|log(?:ged)? in|from|to|at|on|visit\w*|source|destination|peer|proxy|node|block\w*|ban\w*"
    r"|the|is|was|and|user|traffic|request\w*|port|subnet|network|machine|ssh|traceroute|curl)\s*$",
    re.IGNORECASE,
)
LARGEST_MAJOR = 30  # of a version that has its product's name before it
PLACEHOLDER_IPS = {"1.2.3.4", "4.3.2.1", "1.1.1.2", "5.6.7.8", "11.22.33.44", "12.34.56.78"}
RESOLVERS = {"1.1.1.1", "1.0.0.1", "8.8.8.8", "8.8.4.4", "9.9.9.9"}


@dataclass(frozen=True)
class NationalId:
    """One country's number for a person."""

    name: str
    pattern: str
    check: str | None  # a module of python-stdnum
    near: str | None = None  # pattern of the words of which one must come before the number


IDS = (
    NationalId("us_ssn", r"\d{3}-\d{2}-\d{4}", "us.ssn"),
    NationalId("us_ssn", r"\d{3} ?\d{2} ?\d{4}", "us.ssn", r"ssn|social security"),
    NationalId("gb_nhs", r"\d{3}[ -]?\d{3}[ -]?\d{4}", "gb.nhs", r"nhs"),
    NationalId(
        "gb_nino",
        r"[A-CEGHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z] ?\d\d ?\d\d ?\d\d ?[A-D]",
        None,
        r"\bni\b|nino|national insurance",
    ),
    NationalId(
        "de_steuer_id",
        r"\d{2} ?\d{3} ?\d{3} ?\d{3}",
        "de.idnr",
        r"steuer|idnr|tax id|identifikationsnummer",
    ),
    NationalId("fr_nir", r"[1278] ?\d{2} ?\d{2} ?\d[\dAB] ?\d{3} ?\d{3} ?\d{2}", "fr.nir"),
    NationalId("it_codice_fiscale", r"[A-Z]{6}\d\d[A-Z]\d\d[A-Z]\d{3}[A-Z]", "it.codicefiscale"),
    NationalId("es_dni", r"\d{8}-?[A-Z]", "es.dni", r"\bdni\b|\bnif\b|identidad"),
    NationalId("es_nie", r"[XYZ]-?\d{7}-?[A-Z]", "es.nie"),
    NationalId("nl_bsn", r"\d{9}|\d{4}\.\d{2}\.\d{3}", "nl.bsn", r"\bbsn\b|burgerservice|sofi"),
    NationalId("be_rijksregister", r"\d{2}\.\d{2}\.\d{2}-\d{3}\.\d{2}", "be.nn"),
    NationalId("se_personnummer", r"(?:\d{2})?\d{6}[-+]\d{4}", "se.personnummer"),
    NationalId("fi_hetu", r"\d{6}[-+A-FU-Y]\d{3}[0-9A-FHJ-NPR-Y]", "fi.hetu"),
    NationalId("dk_cpr", r"\d{6}-\d{4}", "dk.cpr", r"\bcpr\b|personnummer"),
    NationalId(
        "no_fodselsnummer", r"\d{6} ?\d{5}", "no.fodselsnummer", r"f[øo]dsels|personnummer|\bfnr\b"
    ),
    NationalId("pl_pesel", r"\d{11}", "pl.pesel", r"pesel"),
    NationalId("ch_ahv", r"756\.\d{4}\.\d{4}\.\d{2}", "ch.ssn"),
    NationalId("br_cpf", r"\d{3}\.\d{3}\.\d{3}-\d{2}", "br.cpf"),
    NationalId("mx_curp", r"[A-Z]{4}\d{6}[HMX][A-Z]{5}[0-9A-Z]\d", "mx.curp"),
    NationalId("in_aadhaar", r"\d{4}[ -]?\d{4}[ -]?\d{4}", "in_.aadhaar", r"aadhaar|uidai"),
    NationalId(
        "in_pan",
        r"[A-Z]{3}[ABCFGHJLPT][A-Z]\d{4}[A-Z]",
        "in_.pan",
        r"\bpan\b|income tax|permanent account",
    ),
    NationalId("cn_ric", r"\d{17}[\dXx]", "cn.ric"),
    NationalId("kr_rrn", r"\d{6}-\d{7}", "kr.rrn"),
    NationalId("ca_sin", r"\d{3}[ -]?\d{3}[ -]?\d{3}", "ca.sin", r"\bsin\b|social insurance"),
    NationalId("au_tfn", r"\d{3} ?\d{3} ?\d{3}", "au.tfn", r"\btfn\b|tax file"),
    NationalId("za_id", r"\d{13}", "za.idnr", r"\bid\b|identity"),
    NationalId("tr_kimlik", r"\d{11}", "tr.tckimlik", r"kimlik|\btckn?\b"),
    NationalId("cz_rodne_cislo", r"\d{6}/\d{4}", "cz.rc"),
    NationalId("ro_cnp", r"\d{13}", "ro.cnp", r"\bcnp\b|cod numeric"),
)
PATTERNS = [
    (re.compile(rf"(?<![a-zA-Z0-9_.,-])(?:{id_.pattern})(?![a-zA-Z0-9_]|[.,-]\d)"), id_)
    for id_ in IDS
]
KINDS = ("email", "phone", "iban", "card", "ip", "national_id")


def find(text: str, kinds: Sequence[str], regions: Sequence[str]) -> Iterator[Found]:
    """Yield the personal data of these kinds in a text.

    `regions` are countries ("US") whose phone numbers are found without a country code.
    """
    if "email" in kinds and "@" in text:
        yield from _emails(text)
    if DIGIT.search(text) is None:
        return
    if "iban" in kinds:
        yield from _ibans(text)
    if "ip" in kinds:
        yield from _ip_addresses(text)
    if "national_id" in kinds:
        yield from _ids(text)
    if MANY_DIGITS.search(text) is None:
        return
    if "card" in kinds:
        yield from _cards(text)
    if "phone" in kinds:
        yield from _phones(text, regions)


def _emails(text: str) -> Iterator[Found]:
    for match in EMAIL.finditer(text):
        found = match.group()
        is_file = FILE_ENDING.search(found) is not None
        if not (is_file or RESERVED.search(match.group(1)) or PLACEHOLDER_EMAIL.search(found)):
            yield "email", match.group()


def _ibans(text: str) -> Iterator[Found]:
    from stdnum import iban

    for match in IBAN.finditer(text):
        # following words may match the pattern too, so try shorter candidates
        groups = match.group().split(" ")
        candidates = (" ".join(groups[:end]) for end in range(len(groups), 0, -1))
        valid = next(filter(iban.is_valid, candidates), None)
        if valid:
            yield "iban", valid


def _cards(text: str) -> Iterator[Found]:
    from stdnum import luhn

    for match in CARD.finditer(text):
        digits = re.sub(r"\D", "", match.group())
        if len(set(digits)) > 1 and ISSUERS.fullmatch(digits) and luhn.is_valid(digits):
            yield "card", match.group()


def _ip_addresses(text: str) -> Iterator[Found]:
    """Yield public IP addresses, except those of documentation, name servers and placeholders.

    A version number that looks like one is none.
    """
    for match in (*IPV4.finditer(text), *IPV6.finditer(text)):
        try:
            address = ipaddress.ip_address(match.group())
        except ValueError:
            continue
        is_personal = address.is_global and match.group() not in RESOLVERS | PLACEHOLDER_IPS
        if is_personal and not (address.version == 4 and _is_version(match)):
            yield "ip", match.group()


def _is_version(match: re.Match[str]) -> bool:
    """Return whether the words beside four numbers say that they are a version or a section."""
    before = _text_before(match)
    if NO_ADDRESS.search(before) or VERSION_AFTER.match(match.string, match.end()):
        return True
    is_small = int(match.group().partition(".")[0]) <= LARGEST_MAJOR
    named = PRODUCT.search(before)
    return bool(is_small and named and not ADDRESS_WORD.search(before.rstrip("/- ")))


def _ids(text: str) -> Iterator[Found]:
    for pattern, id_ in PATTERNS:
        for match in pattern.finditer(text):
            if id_.near and not re.search(id_.near, _text_before(match), re.IGNORECASE):
                continue
            number = match.group().replace(" ", "")
            if id_.check is None or _is_valid(id_.check, number):
                yield id_.name, match.group()


def _is_valid(check: str, number: str) -> bool:
    try:
        return bool(importlib.import_module(f"stdnum.{check}").is_valid(number))
    except LookupError:  # stdnum's table of Chinese counties has gaps
        return False


def _text_before(match: re.Match[str]) -> str:
    return match.string[max(0, match.start() - NEAR) : match.start()]


def _phones(text: str, regions: Sequence[str]) -> Iterator[Found]:
    from phonenumbers import Leniency, PhoneNumberMatcher

    strict = Leniency.STRICT_GROUPING
    for part in dict.fromkeys(_phone_parts(text)):
        if "+" in part or "\uff0b" in part:
            for match in PhoneNumberMatcher(part, None, max_tries=ATTEMPTS):
                yield "phone", match.raw_string
        for region in regions:
            for match in PhoneNumberMatcher(part, region, strict, max_tries=ATTEMPTS):
                # an ungrouped number is more often something else
                if re.search(r"\d\D+\d", match.raw_string):
                    yield "phone", match.raw_string


def _phone_parts(text: str) -> Iterator[str]:
    """Yield the parts of a text that can hold a phone's number, with what is beside them.

    The matcher alone takes seconds for 100 kB of short numbers.
    """
    rows = [match.span() for match in PHONE.finditer(text)]
    ends = [0, *(end for _, end in rows)]
    begins = [*(begin for begin, _ in rows[1:]), len(text)]
    for (begin, end), last, following in zip(rows, ends, begins, strict=False):
        yield text[max(last, begin - AROUND) : min(following, end + AROUND)]
