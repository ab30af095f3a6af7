"""What checking answers costs, and what hangs: `.venv/bin/python -m benchmarks.verifiers [hangs] [math] [code]`.

**hangs** gives the sandbox strings that keep math-verify busy for minutes or for ever, each followed by an answer that is right. **math**
checks ordinary answers in it, and by math-verify called directly as its README says, alarm and all, in turns; a core's speed is that by the
processor time of all processes concerned, which other work on the machine does not change. **code** checks programs.
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
from pipeline.verifiers.verify import Check, verify

SECONDS, BAR_SECONDS = 4.0, 5.0
ROUNDS, ITEMS, PROGRAMS = 9, 200, 50
SHARE = 0.9  # of the speed without a sandbox
SETS = ",".join("x+{}" for _ in range(60))
HANGS: list[tuple[str, str]] = [  # answer, target
    # from the issues of math-verify (59, 63, 65), sympy and of those who train with them
    (r"\dfrac{5^{\left(5^{\left(5^{\left(5^5\right)}\right)} - 4\right)} - 5}{16}", "1"),
    (r"10^{(5^{5^{5^{5^{5}}} \cdot \log_{10}(5)} - 4)}", "1"),
    (r"2003^{2002^{2001}}", "9"),
    (r"e^{e^{e^{e^{e}}}}-e", "1"),
    (r"\sin(\tan(-4x^2-3)^3)", r"\sin(\tan(4x^2-3)^3)"),
    # numbers that no machine holds
    *(
        (answer, "1")
        for answer in (
            r"9^{9^{9^{9}}}",
            r"10^{10^{10}}",
            "10**10**10",
            r"100000000!",
            r"((9!)!)!",
            "5!!!!",
            "1E999999999",
        )
    ),
    *(
        (answer, "1")
        for answer in (
            r"\binom{10^{12}}{5\cdot 10^{11}}",
            r"\sqrt[1000000000]{2^{1000000001}}",
            r"\frac{1}{10^{10^{9}}}",
        )
    ),
    *(
        (answer, "1")
        for answer in (
            r"\cos(10^{100000000})",
            r"\log_{2}(3^{10^{10}})",
            r"2^{1000000007} \mod 13",
            r"\sqrt{10^{4000}+7}",
        )
    ),
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
    *(
        (answer, "1")
        for answer in (
            "(" * 200 + "1" + ")" * 200,
            "(" * 2000 + "1" + ")" * 2000,
            "{" * 5000,
            "-" * 5000 + "1",
        )
    ),
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


def check(verifier: str) -> Check:
    return Check(verifier, None, None, SECONDS, 1024)


@dataclass(frozen=True)
class Speed:
    """Checks a second: of the clock, and of the processor."""

    clock: float
    core: float


def hangs(folder: Path) -> Iterator[Row]:
    how = check("math")
    verify(how, "1/2", "0.5")
    seconds, unknown, right = [], 0, 0
    for answer, target in HANGS:
        began = time.monotonic()
        try:
            verify(how, answer, target)
        except UnknownError:
            unknown += 1
        seconds.append(time.monotonic() - began)
        right += verify(how, r"\frac{1}{2}", "0.5").value == 1.0
    ended = sum(second <= BAR_SECONDS for second in seconds)
    yield Row(
        f"answers that hang, over within {BAR_SECONDS:.0f} s",
        "all",
        f"{ended} of {len(HANGS)}, {max(seconds):.1f} s at most",
        ended == len(HANGS),
    )
    yield Row(
        "of them unknown, the others answered after all", "", f"{unknown} of {len(HANGS)}", True
    )
    yield Row(
        "the right one after each, judged right",
        "all",
        f"{right} of {len(HANGS)}",
        right == len(HANGS),
    )


def math(folder: Path) -> Iterator[Row]:
    from math_verify import parse
    from math_verify import verify as compare

    how = check("math")
    direct: list[Speed] = []
    sandboxed: list[Speed] = []
    for seed in range(ROUNDS + 1):
        items = [item for item in ordinary(random.Random(seed), ITEMS) if item[0] != item[1]]
        sides: list[tuple[list[Speed], Callable[[str, str], bool]]] = [
            (direct, lambda answer, target: compare(parse(f"${target}$"), parse(f"${answer}$"))),
            (sandboxed, lambda answer, target: verify(how, answer, target).value == 1.0),
        ]
        found = []
        for speeds, judge in sides if seed % 2 else sides[::-1]:
            began = time.monotonic(), _processor_seconds()
            found.append([judge(*item) for item in items])
            speeds.append(
                Speed(
                    len(items) / (time.monotonic() - began[0]),
                    len(items) / (_processor_seconds() - began[1]),
                )
            )
        assert found[0] == found[1], "the two sides do not agree"
    pairs = list(zip(sandboxed[1:], direct[1:], strict=True))  # the first round is the warm-up
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
    how = check("code")
    rates = []
    for _ in range(ROUNDS + 1):
        began = _processor_seconds()
        for number in range(PROGRAMS):
            assert (
                verify(
                    how,
                    f"def f(x):\n    return x + {number}",
                    f"assert f(1) == {number + 1}\nassert f(0) == {number}",
                ).value
                == 1.0
            )
        rates.append(PROGRAMS / (_processor_seconds() - began))
    yield Row("code, programs/s a core", "", spread(sorted(rates[1:]), 0), True)


def _processor_seconds() -> float:
    """Of this process and the sandbox's, that live on, and of those that have ended."""
    processes = [psutil.Process(), *psutil.Process().children()]
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (
        sum(sum(process.cpu_times()[:2]) for process in processes) + ended.ru_utime + ended.ru_stime
    )


def ordinary(random: random.Random, number: int) -> list[tuple[str, str]]:
    """(answer, target): numbers, fractions, roots, polynomials and sets, half of them right, in other words than the target's."""
    found = []
    for place in range(number):
        a, b, off = random.randint(2, 99), random.randint(2, 99), place % 2
        found.append(
            (
                (f"{a * b + off}", f"{a * b}.0"),
                (rf"\frac{{{a * 3}}}{{{b * 3 + off}}}", f"{a}/{b}"),
                (f"{(a + off) / 8}", rf"\frac{{{a}}}{{8}}"),
                (rf"{a + off}\sqrt{{{b}}}", rf"\sqrt{{{a * a * b}}}"),
                (f"(x+{a})(x+{b + off})", f"x^2+{a + b}x+{a * b}"),
                (rf"\{{{a}, {b + off}, 100\}}", rf"\{{100, {b}, {a}\}}"),
                (f"({a}, {b + off})", f"({a}.0, {b})"),
                (f"x={a + off}", f"{a}"),
            )[place // 2 % 8]
        )
    return found


MEASUREMENTS = {"hangs": hangs, "math": math, "code": code}


if __name__ == "__main__":
    sys.exit(main(MEASUREMENTS, sys.argv[1:]))
