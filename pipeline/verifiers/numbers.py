"""Read numbers, times of day and dates in a text, as people and LaTeX write them."""

import math
import re
import unicodedata
from dataclasses import dataclass
from decimal import Context, Decimal
from fractions import Fraction

LONGEST = 4000  # digits, and the largest power of ten

SUPERSCRIPTS = dict(zip("⁺⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "+-0123456789", strict=True))
SUPERSCRIPT = re.compile(f"[{''.join(SUPERSCRIPTS)}]+")
DASHES = "\u2010\u2011\u2012\u2013\u2014"
MINUS = re.compile(rf"[\u2212\ufe63]|(?<![^\s=(:$€£])[{DASHES}](?=[$€£]?\.?\d)")
REWRITTEN = (  # LaTeX and typography, as a plain text writes them
    (re.compile(r"\{\s*([,.])\s*\}"), r"\1"),  # 9{,}500
    (re.compile(r"(?<=\d)\\[,;: !](?=\d{3}(?!\d))|(?<=\d)~(?=\d{3}(?!\d))"), "\u202f"),
    (re.compile(r"\\(?:left|right|displaystyle|,|;|:|!)(?![a-zA-Z])"), ""),
    (re.compile(r"\\[dtc]?frac\s*(\d)\s*(\d)(?!\d)"), r" \1/\2 "),
    (re.compile(r"\\[dtc]?frac\s*(?:\{([^{}]*)\}|(\d))\s*(?:\{([^{}]*)\}|(\d))"), r" \1\2/\3\4 "),
    (re.compile(r"\\sqrt\s*(?:\[\w{0,9}\]\s*)?(?:\{[^{}]*\}|\d)|√\s*\(?[\d.,]+\)?"), "√"),
    (re.compile(r"\\(?:times|cdot|ast)(?![a-zA-Z])|[·⋅∙]"), "\u00d7"),
    (re.compile(r"\*\*(?=\s?[-+]?\d)"), "^"),
    (re.compile(r"\^\s*[{(]\s*([-+]?\d+)\s*[})]"), r"^\1"),
    (re.compile(r"([-+])\s?([$€£¥₹])\s?(?=\.?\d)"), r"\2\1"),  # -$5
    (re.compile(r"([-+])\s+(?=\d+/\d+ )"), r"\1"),  # -\frac{1}{4}
    (re.compile(r"(=\s*)([-+])\s+(?=\.?\d)"), r"\1\2"),
)
SCALES = {
    "thousand": 3, "million": 6, "millions": 6, "billion": 9, "billions": 9, "trillion": 12,
    "thousands": 3, "trillions": 12, "hundred": 2, "lakh": 5, "lakhs": 5, "crore": 7, "crores": 7,
    "millionen": 6, "mio": 6, "milliarde": 9, "milliarden": 9, "mrd": 9, "tausend": 3,
    "milliard": 9, "milliards": 9, "millón": 6, "millones": 6, "milhão": 6, "milhões": 6,
    "milione": 6, "milioni": 6, "miljoen": 6, "miljard": 9, "mln": 6, "bn": 9,
    "千": 3, "万": 4, "萬": 4, "亿": 8, "億": 8,
}  # fmt: skip
SCALE = "|".join(sorted(SCALES, key=len, reverse=True))
MONTHS = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]
MONTH = (
    r"(?P<{}>jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?"
    r"|sept?(?:ember)?|oct(?:ober)?|nov(?:ember)?|dec(?:ember)?)\.?"
)
DAY = r"(?P<{}>[0-3]?\d)(?:st|nd|rd|th)?"
PLAIN = r"\d+(?:[.,'\u2019_\u066b\u066c]\d+)*"
SPACED = r"(?<!\d )\d{1,3}(?:[ \u00a0\u2009\u202f]\d{3})+(?![\d])(?:[.,\u066b]\d+)?"
NUMBER = re.compile(
    rf"(?P<date>(?<!\d)(?:(?P<y>\d{{4}})([-/.])(?P<m>\d\d?)\3(?P<d>\d\d?)"
    rf"|(?P<a>\d\d?)([-/.])(?P<b>\d\d?)\7(?P<year>\d{{4}})"
    rf"|{MONTH.format('m1')}\s{DAY.format('d1')},?\s(?P<y1>\d{{4}})"
    rf"|{DAY.format('d2')}\s(?:of\s)?{MONTH.format('m2')},?\s(?P<y2>\d{{4}}))(?![\d/]|[-.]\d))"
    rf"|(?P<clock>(?<!\d)\d{{1,4}}(?::\d{{1,4}})+(?:\.\d{{1,9}})?(?!\d)(?:\s?(?P<half>[ap])\.?m\b\.?)?)"
    r"|(?P<sign>[-+]?)(?:"
    r"(?P<whole>\d{1,3})\s{1,2}(?P<part>[1-9]\d{0,2})/(?P<parts>\d{1,3})(?!\d)"
    rf"|(?P<above>{SPACED}|{PLAIN}|(?<!\w)\.\d+)"
    r"(?:(?:e|\s?[x*\u00d7]\s?10\s?\^\s?)(?P<power>[-+]?\d+)|\^(?P<raised>[-+]?\d+))?"
    rf"(?:(?P<kilo>k\b)|[\s-]?(?P<scale>{SCALE})(?![a-z]))?"
    r"(?:\s*/\s*(?P<below>\d+(?:\.\d+)?))?)",
    re.IGNORECASE,
)
GLUED = re.compile(r"[A-Za-z_^]")  # in front of a digit: m2, cm^3, CO2
GROUPED = re.compile(
    r"\d{1,3}(?:S\d{3})+|\d{1,2}(?:S\d{2})*S\d{3}".replace("S", "[,.'\u2019_\u066c]")
)


@dataclass(frozen=True)
class Number:
    """A number, time or date in a text. `value` is None where it cannot be one, as in 1/0.

    A time of day, a ratio or a date has `written`, which is compared in place of the value.
    """

    text: str
    value: Fraction | None
    written: str | None = None

    @property
    def is_readable(self) -> bool:
        """Tell whether there is something to compare."""
        return self.written is not None or self.value is not None

    def canonical(self, digits: int) -> str:
        """Write the number in the same way however the text wrote it, fractions rounded."""
        if self.written is not None or self.value is None:
            return self.written or ""
        if self.value.denominator == 1:
            return str(self.value.numerator)
        rounding = Context(prec=digits)
        decimal = rounding.divide(Decimal(self.value.numerator), Decimal(self.value.denominator))
        return f"{decimal.normalize(rounding):.{digits}g}"


def find_numbers(text: str) -> list[Number]:
    """Return the numbers in a text; those directly behind a letter or ^ only if all of them are."""
    text = plain(text)
    matches = list(NUMBER.finditer(text))
    free = [match for match in matches if not GLUED.match(text, match.start() - 1, match.start())]
    return [number for match in free or matches for number in _read(match)]


def last_number(text: str) -> Number | None:
    """Return the last number of a text; None if there is none that can be read."""
    numbers = find_numbers(text)
    return numbers[-1] if numbers and numbers[-1].is_readable else None


def equal(a: Number, b: Number) -> bool:
    """Tell whether two numbers are equal: whole ones exactly, others to one part in a million."""
    if a.written or b.written:
        return a.written == b.written
    if a.value is None or b.value is None:
        return False
    if a.value.denominator == 1 and b.value.denominator == 1:
        return a.value == b.value
    return abs(a.value - b.value) <= max(abs(a.value), abs(b.value)) / 1_000_000


def plain(text: str) -> str:
    """Return the text with LaTeX, fractions and digits of any script in plain typing."""
    if not text.isascii():
        text = "".join(map(_plain_character, SUPERSCRIPT.sub(_raise, text)))
        text = MINUS.sub("-", text)
    for pattern, replacement in REWRITTEN:
        text = pattern.sub(replacement, text)
    return text


def _plain_character(character: str) -> str:
    if character.isascii():
        return character
    if character.isdecimal():
        return str(unicodedata.decimal(character))
    kind, *codes = unicodedata.decomposition(character).split() or [""]
    letters = "".join(chr(int(code, 16)) for code in codes) if kind.startswith("<") else ""
    if kind == "<fraction>":  # a half is 1, fraction slash, 2
        return " " + letters.replace("\u2044", "/")
    if kind in ("<wide>", "<narrow>"):
        return letters
    if kind == "<sub>":
        return f"_{letters}"
    return "/" if character == "\u2044" else character


def _raise(match: re.Match[str]) -> str:
    return "^" + "".join(SUPERSCRIPTS[character] for character in match.group())


def _read(match: re.Match[str]) -> list[Number]:
    """Return the number that was matched, or the items of what turns out to be a list."""
    text = match.group()
    if match["date"]:
        return [_date(match)]
    if match["clock"]:
        return [_clock(text, (match["half"] or "").lower())]
    sign = -1 if match["sign"] == "-" else 1
    if match["whole"]:
        parts = Fraction(match["parts"])
        value = int(match["whole"]) + int(match["part"]) / parts if parts else None
        return [Number(text, None if value is None else sign * value)]
    items = _decimals(match["above"])
    *before, last = items
    numbers = [Number(item, _fraction(item)) for item in before]
    value = _scaled(_fraction(last), match)
    return [*numbers, Number(text if not before else last, None if value is None else sign * value)]


def _decimals(digits: str) -> list[str]:
    """Return a number with a decimal point and no separators; several if it is a list.

    Of two kinds of separators the last is the decimal one. A single comma is one too, except in
    front of exactly three digits: 1,234 is a thousand, 0,234 and 1,23 are not.
    """
    digits = digits.replace("\u066b", ".")
    spaced = re.sub(r"\s", "", digits)
    if spaced != digits:
        return [spaced.replace(",", ".")]
    separators = re.sub(r"\d", "", digits)
    if separators in ("", "."):
        return [digits]
    is_grouped = GROUPED.fullmatch(digits) and not digits.startswith("0")
    if len(set(separators)) == 1 and is_grouped:
        return [re.sub(r"\D", "", digits)]
    if separators == ",":
        return [digits.replace(",", ".")]
    whole, mark, part = re.fullmatch(r"(.*)(\D)(\d+)", digits).groups()  # type: ignore[union-attr]
    if mark in ".," and len(set(separators[:-1]) - {mark}) == 1 and GROUPED.fullmatch(whole):
        return [re.sub(r"\D", "", whole) + "." + part]
    return [item for item in re.split(r"[,'\u2019_\u066c]", digits) if item]


def _fraction(digits: str) -> Fraction | None:
    """Return the value of plain digits; None if there are too many, or two points as in 1.2.3."""
    if len(digits) > LONGEST or digits.count(".") > 1:
        return None
    return Fraction(digits)


def _scaled(value: Fraction | None, match: re.Match[str]) -> Fraction | None:
    power = int(match["power"] or 0) if len(match["power"] or "") < 6 else LONGEST + 1
    raised = int(match["raised"] or 1) if len(match["raised"] or "") < 6 else LONGEST + 1
    below = _fraction(match["below"] or "1")
    power += SCALES[match["scale"].lower()] if match["scale"] else 3 * bool(match["kilo"])
    if value is None or not below or abs(power) > LONGEST or (raised < 0 and not value):
        return None
    size = len(str(value.numerator)) + len(str(value.denominator))
    if raised != 1 and abs(raised) * size > LONGEST:
        return None
    return value**raised * Fraction(10) ** power / below


def _clock(text: str, half: str) -> Number:
    """Return a time of day, or a ratio such as 3:2 in its lowest terms."""
    fields = re.findall(r"[\d.]+", text.rstrip("apmAPM. "))
    values = [Fraction(field) for field in fields]
    is_time = len(fields) <= 3 and all(len(field.split(".")[0]) == 2 for field in fields[1:])
    if not is_time:
        scale = math.lcm(*(value.denominator for value in values))
        terms = [int(value * scale) for value in values]
        divisor = math.gcd(*terms) or 1
        return Number(text, values[-1], ":".join(str(term // divisor) for term in terms))
    hours, minutes, seconds = (*values, Fraction(0))[:3]
    if half:
        hours = hours % 12 + 12 * (half == "p")
    written = f"{int(hours):02}:{int(minutes):02}"
    return Number(text, values[-1], written + (f":{float(seconds):g}" if seconds else ""))


def _date(match: re.Match[str]) -> Number:
    """Return a date. Of 3/4/2024 the month comes first, of 3.4.2024 and 13/4/2024 the day."""
    year = match["y"] or match["year"] or match["y1"] or match["y2"]
    month, day = match["m"], match["d"]
    if name := match["m1"] or match["m2"]:
        month = str(MONTHS.index(name[:3].lower()) + 1)
        day = match["d1"] or match["d2"]
    elif match["a"]:
        month, day = match["a"], match["b"]
        if match[7] == "." or int(month) > 12:
            month, day = day, month
    written = f"{int(year):04}-{int(month):02}-{int(day):02}"
    return Number(match.group(), Fraction(match["d"] or year), written)
