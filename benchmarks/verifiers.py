"""Measures what the sandbox of the verifiers costs, and whether it ends answers that hang.

    .venv/bin/python -m benchmarks.verifiers [hangs] [math] [code]

- hangs: strings that keep math-verify busy for minutes or for ever, each before a right answer.
- math: ordinary answers in the sandbox, against math-verify called directly as its README shows, in
  turns. The speed of a core is by the processor time of all processes, which other work on the
  machine does not change.
- code: programs/s.
"""

import random
import resource
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmarks.table import Row, main, median, spread
from pipeline.errors import UnknownError
from pipeline.verifiers.verify import CheckSettings, verify

SECONDS = 4.0
BAR_SECONDS = 5.0
ROUNDS = 9
ITEMS = 200
PROGRAMS = 50
SHARE = 0.9  # of the speed without a sandbox
SETS = ",".join("x+{}" for _ in range(60))
HANGS: list[tuple[str, str]] = [  # answer, target
    # from issues of math-verify (59, 63, 65), of sympy, and of projects that train with them
    (r"\dfrac{5^{\left(5^{\left(5^{\left(5^5\right)}\right)} - 4\right)} - 5}{16}", "1"),
    (r"10^{(5^{5^{5^{5^{5}}} \cdot \log_{10}(5)} - 4)}", "1"),
    (r"2003^{2002^{2001}}", "9"),
    (r"e^{e^{e^{e^{e}}}}-e", "1"),
    (r"\sin(\tan(-4x^2-3)^3)", r"\sin(\tan(4x^2-3)^3)"),
    # numbers that no machine holds
    (r"9^{9^{9^{9}}}", "1"),
    (r"10^{10^{10}}", "1"),
    ("10**10**10", "1"),
    (r"100000000!", "1"),
    (r"((9!)!)!", "1"),
    ("5!!!!", "1"),
    ("1E999999999", "1"),
    (r"\binom{10^{12}}{5\cdot 10^{11}}", "1"),
    (r"\sqrt[1000000000]{2^{1000000001}}", "1"),
    (r"\frac{1}{10^{10^{9}}}", "1"),
    (r"\cos(10^{100000000})", "1"),
    (r"\log_{2}(3^{10^{10}})", "1"),
    (r"2^{1000000007} \mod 13", "1"),
    (r"\sqrt{10^{4000}+7}", "1"),
    ("2^{10000000000}-2^{9999999999}", "2^{9999999999}"),
    # sums, products, integrals
    (r"\sum_{k=1}^{10^{9}} k^{k}", "1"),
    (r"\sum_{k=0}^{1000000} \binom{1000000}{k}", "2^{1000000}"),
    (r"\sum_{n=1}^{\infty} \frac{\sin(n)\cos(n^2)}{n^3+n+1}", "1"),
    (r"\prod_{k=1}^{10^{7}} k", "1"),
    (r"\prod_{n=1}^{1000000} (1+\frac{1}{n^2})", "3.67"),
    (r"\int_0^1 \int_0^1 \int_0^1 \frac{\sin(xyz)\cdot e^{x^2 y}}{1+x^2+y^2+z^2} dx dy dz", "1"),
    (r"\int_0^{\infty} \frac{\sin(x^3)\ln(1+x^2)}{x(1+x^4)} dx", "1"),
    # algebra that grows
    ("(x+1)^{10000}", "(x+2)^{10000}"),
    ("(x+y+z+1)^{60}", "(x+y+z+2)^{60}"),
    ("x^{100}+x^{99}+x+1=0", "x^{100}+2x^{99}+x+1=0"),
    (r"\frac{\sin(1)^{99}+\cos(1)^{99}}{\tan(1)^{98}}", "1"),
    (rf"\{{{SETS.format(*range(60))}\}}", rf"\{{{SETS.format(*range(60)).replace('x', 'y')}\}}"),
    # depth and length
    ("(" * 200 + "1" + ")" * 200, "1"),
    ("(" * 2000 + "1" + ")" * 2000, "1"),
    ("{" * 5000, "1"),
    ("-" * 5000 + "1", "1"),
    *((r"\frac{1}{1+" * depth + "2" + "}" * depth, "1") for depth in (60, 300)),
    (r"\left(" * 300 + "1" + r"\right)" * 300, "1"),
    (r"\sqrt{1+" * 100 + "2" + "}" * 100, "1"),
    ("7" * 90_000, "1"),
    ("0." + "3" * 90_000, "1/3"),
    (r"\frac12" * 3000, "1"),
    (
        r"\{" + ",".join(map(str, range(3000))) + r"\}",
        r"\{" + ",".join(map(str, range(1, 3001))) + r"\}",
    ),
]


def check(verifier: str) -> CheckSettings:
    """Return the settings of a verifier without labels or schema."""
    return CheckSettings(verifier, None, None, SECONDS, 1024)


@dataclass(frozen=True)
class Speed:
    """Checks/s by the clock, and by processor time."""

    clock: float
    core: float


def hangs(folder: Path) -> Iterator[Row]:
    """Check the answers that hang, and a right answer after each."""
    math_check = check("math")
    verify(math_check, "1/2", "0.5")
    seconds = []
    unknown = 0
    right = 0
    for answer, target in HANGS:
        started = time.monotonic()
        try:
            verify(math_check, answer, target)
        except UnknownError:
            unknown += 1
        seconds.append(time.monotonic() - started)
        right += verify(math_check, r"\frac{1}{2}", "0.5").value == 1.0
    ended = sum(second <= BAR_SECONDS for second in seconds)
    yield Row(
        f"answers that hang, over within {BAR_SECONDS:.0f} s",
        "all",
        f"{ended} of {len(HANGS)}, {max(seconds):.1f} s at most",
        ended == len(HANGS),
    )
    yield Row(
        "unknown among them; the others ended by themselves", "", f"{unknown} of {len(HANGS)}", True
    )
    yield Row(
        "the right answer after each, judged right",
        "all",
        f"{right} of {len(HANGS)}",
        right == len(HANGS),
    )


def math(folder: Path) -> Iterator[Row]:
    """Compare the speed in the sandbox with that of math-verify called directly."""
    from math_verify import parse
    from math_verify import verify as compare

    math_check = check("math")
    direct: list[Speed] = []
    sandboxed: list[Speed] = []
    for seed in range(ROUNDS + 1):
        items = [item for item in ordinary(random.Random(seed), ITEMS) if item[0] != item[1]]
        sides: list[tuple[list[Speed], Callable[[str, str], bool]]] = [
            (direct, lambda answer, target: compare(parse(f"${target}$"), parse(f"${answer}$"))),
            (sandboxed, lambda answer, target: verify(math_check, answer, target).value == 1.0),
        ]
        verdicts = []
        for speeds, judge in sides if seed % 2 else sides[::-1]:
            clock = time.monotonic()
            processor = _processor_seconds()
            verdicts.append([judge(*item) for item in items])
            clock_rate = len(items) / (time.monotonic() - clock)
            speeds.append(Speed(clock_rate, len(items) / (_processor_seconds() - processor)))
        assert verdicts[0] == verdicts[1], "the two sides do not agree"
    pairs = list(zip(sandboxed[1:], direct[1:], strict=True))  # the first round is a warm-up
    ratios = sorted(ours.core / theirs.core for ours, theirs in pairs)
    yield Row(
        "math, checks/s a core, in the sandbox over without it",
        f">= {SHARE}",
        spread(ratios),
        median(ratios) >= SHARE,
    )
    yield Row(
        "math, the same by the clock",
        "",
        spread(sorted(ours.clock / theirs.clock for ours, theirs in pairs)),
        True,
    )
    yield Row(
        "math, checks/s a core, in the sandbox",
        "",
        spread(sorted(ours.core for ours, _ in pairs), 0),
        True,
    )
    yield Row(
        "math, checks/s a core, math-verify called directly",
        "",
        spread(sorted(theirs.core for _, theirs in pairs), 0),
        True,
    )


def code(folder: Path) -> Iterator[Row]:
    """Measure how many programs a core checks in a second."""
    code_check = check("code")
    rates = []
    for _ in range(ROUNDS + 1):
        started = _processor_seconds()
        for number in range(PROGRAMS):
            program = f"def f(x):\n    return x + {number}"
            tests = f"assert f(1) == {number + 1}\nassert f(0) == {number}"
            assert verify(code_check, program, tests).value == 1.0
        rates.append(PROGRAMS / (_processor_seconds() - started))
    yield Row("code, programs/s a core", "", spread(sorted(rates[1:]), 0), True)


def _processor_seconds() -> float:
    """Return the processor time of this process and its children, running or ended."""
    processes = [psutil.Process(), *psutil.Process().children()]
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    running = sum(sum(process.cpu_times()[:2]) for process in processes)
    return running + ended.ru_utime + ended.ru_stime


def ordinary(random: random.Random, number: int) -> list[tuple[str, str]]:
    """Return answers and targets: numbers, fractions, roots, polynomials and sets.

    Half of the answers are right, written in another way than the target.
    """
    items = []
    for place in range(number):
        a = random.randint(2, 99)
        b = random.randint(2, 99)
        off = place % 2
        kinds = (
            (f"{a * b + off}", f"{a * b}.0"),
            (rf"\frac{{{a * 3}}}{{{b * 3 + off}}}", f"{a}/{b}"),
            (f"{(a + off) / 8}", rf"\frac{{{a}}}{{8}}"),
            (rf"{a + off}\sqrt{{{b}}}", rf"\sqrt{{{a * a * b}}}"),
            (f"(x+{a})(x+{b + off})", f"x^2+{a + b}x+{a * b}"),
            (rf"\{{{a}, {b + off}, 100\}}", rf"\{{100, {b}, {a}\}}"),
            (f"({a}, {b + off})", f"({a}.0, {b})"),
            (f"x={a + off}", f"{a}"),
        )
        items.append(kinds[place // 2 % len(kinds)])
    return items


MEASUREMENTS = {"hangs": hangs, "math": math, "code": code}


if __name__ == "__main__":
    sys.exit(main(MEASUREMENTS, sys.argv[1:]))
