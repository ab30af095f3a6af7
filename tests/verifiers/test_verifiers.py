"""Each verifier: right, wrong, unparsable, empty; and answers that cannot be checked."""

import json
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.config import load
from pipeline.errors import PipelineError, UnknownError
from pipeline.execution import manifest, runner
from pipeline.filters.correctness import ground_truth
from pipeline.filters.measures import Batch
from pipeline.filters.verdict import Verdict
from pipeline.records import Sample, Seed
from pipeline.stages import filter as filter_stage
from pipeline.stages import generate
from pipeline.storage.topk import TopKFolder
from pipeline.verifiers import verify as verifiers_verify
from pipeline.verifiers.verify import CheckSettings, score, verify

SECONDS = 60.0  # of a machine that has much else to do


def check(verifier: str, **changes: Any) -> CheckSettings:
    fields = {"labels": None, "schema": None, "timeout_s": SECONDS, "memory_mib": 1024, **changes}
    return CheckSettings(verifier=verifier, **fields)


@pytest.fixture
def impatient() -> Iterator[float]:
    """Return a short time limit, for which the sandbox has processes of its own."""
    yield 1.5
    for verifier in ("math", "json"):
        verifiers_verify._sandbox(verifier, 1.5, 1024).close()


@pytest.mark.parametrize(
    ("verifier", "answer", "target", "value"),
    [
        ("label", "Spam", "spam", 1.0),
        ("label", "normal", "spam", 0.0),
        ("exact", "New  york", "New York", 1.0),
        ("numeric", "$1,200", "1200", 1.0),
        ("numeric", "1201", "1200", 0.0),
    ],
)
def test_plain_verifiers_are_the_scorers(
    verifier: str, answer: str, target: str, value: float
) -> None:
    """A second copy of a metric would drift from the first."""
    assert verify(check(verifier, labels=["spam", "normal"]), answer, target).value == value


@pytest.mark.parametrize("verifier", sorted(verifiers_verify.VERIFIERS))
@pytest.mark.parametrize("answer", [None, ""])
def test_no_answer_is_wrong(verifier: str, answer: str | None) -> None:
    """A missing answer needs no check."""
    assert verify(check(verifier, labels=["spam", "normal"]), answer, "spam").value == 0.0


@pytest.mark.parametrize(
    ("answer", "target"),
    [
        ("0.5", r"\frac{1}{2}"),
        (r"$\frac12$", "1/2"),
        (r"so it is \boxed{12}.", "12"),
        ("(x+1)^2", "x^2+2x+1"),
        ("2**10", "1024"),
        (r"2\sqrt{2}", r"\sqrt{8}"),
        (r"\{1,2\}", r"\{2,1\}"),
        ("$1,200", "1200"),
        ("The answer is 12.", "12"),
        ("3/4 cups", "0.75"),
        ("pi", r"\pi"),
        ("no formula at all", "no formula at all"),
    ],
)
def test_math_right(answer: str, target: str) -> None:
    """Different notations of the same value."""
    assert verify(check("math"), answer, target).value == 1.0


@pytest.mark.parametrize(
    ("answer", "target", "why"),
    [
        ("3", "4", "is 4"),
        ("x+1", "y+1", "is y+1"),
        ("(1,2)", "(2,1)", "is (2,1)"),
        ("10**10**2", "2", "is 2"),  # not its last number
        ("hello there", "3", "no expression in the answer: hello there"),
        (r"\frac{1}{2", "1/2", r"no expression in the answer: \frac{1}{2"),
    ],
)
def test_math_wrong_or_unparsable(answer: str, target: str, why: str) -> None:
    """A formula that cannot be read as a whole must not be read in part."""
    result = verify(check("math"), answer, target)
    assert (result.value, result.explanation) == (0.0, why)


@pytest.mark.parametrize(
    ("answer", "target", "value"),
    [
        ("**73**", "73", 1.0),
        ("So the number is **73**.", "73", 1.0),
        ("**x = 4**", "4", 1.0),
        ("`73`", "73", 1.0),
        ("1728", "1331 and 1728", 0.0),
        ("1728 and 1331", "1331, 1728", 1.0),
        ("between 3 and 4", "4", 0.0),
        ("30 minutes", "2 hours 30 minutes", 0.0),
        ("2 hours 30 minutes", "2 hours 30 minutes", 1.0),
        ("0.0000001", "0.0000002", 0.0),
        (r"\frac{1}{2006!}", r"\frac{1}{2004!}", 0.0),
        (r"1 + \frac{1}{\mathrm{e}}", r"1 - \frac{1}{\mathrm{e}}", 0.0),
        ("1 1/4", "5/4", 1.0),
        ("0 < x < 12.5", "(0, 12.5)", 1.0),
        (r"x > 3", r"(3, \infty)", 1.0),
        ("0 <= x <= 5", "[0, 5]", 1.0),
        ("0 <= x <= 5", "(0, 5)", 0.0),
        ("3e8", "300000000", 1.0),
        ("0,75", "0.75", 1.0),
        ("2, 1", "1,2", 1.0),
        ("12:30", "2/5", 0.0),
    ],
)
def test_math_ways_of_writing(answer: str, target: str, value: float) -> None:
    """Markdown or notation made right answers wrong; one of several values was right."""
    assert verify(check("math"), answer, target).value == value


def test_math_without_a_target_is_unknown() -> None:
    """An answer cannot be wrong if the ground truth holds no expression."""
    with pytest.raises(UnknownError, match="no expression in the target"):
        verify(check("math"), "3", "see the appendix")


def test_a_tower_of_powers_is_unknown_and_the_next_is_right(impatient: float) -> None:
    """One such answer has stopped whole runs for days."""
    limited = check("math", timeout_s=impatient)
    with pytest.raises(UnknownError, match="took too long"):
        verify(limited, "9^{9^{9^{9}}}", "2")
    assert verify(limited, "1/2", "0.5").value == 1.0
    assert score(limited, "9^{9^{9^{9}}}", "2").explanation == "unknown: took too long"


@pytest.mark.parametrize(
    ("answer", "target", "value", "why"),
    [
        ('{"b": 2.0, "a": [1, null]}', '{"a": [1e0, null], "b": 2}', 1.0, "equal"),
        ('```json\n{"a": 0.1}\n```', '{"a": 0.10}', 1.0, "equal"),
        ('{"a": [1, 2]}', '{"a": [2, 1]}', 0.0, 'is {"a": [2, 1]}'),
        ('{"a": 1}', '{"a": true}', 0.0, 'is {"a": true}'),
        ('{"a": "1"}', '{"a": 1}', 0.0, 'is {"a": 1}'),
        ('{"a": 1}', '{"a": 1, "b": null}', 0.0, 'is {"a": 1, "b": null}'),
        ("1e99999999999", "1", 0.0, "is 1"),
        ("[NaN]", "[1]", 0.0, "not JSON: NaN is no JSON number"),
        ('{"a": 1, "a": 1}', '{"a": 1}', 0.0, "not JSON: a key occurs twice"),
        (
            "{a: 1}",
            "{}",
            0.0,
            "not JSON: Expecting property name enclosed in double quotes: line 1 column 2 (char 1)",
        ),
    ],
)
def test_json(answer: str, target: str, value: float, why: str) -> None:
    """Keys have no order, numbers compare by value, and true is not 1."""
    result = verify(check("json"), answer, target)
    assert (result.value, result.explanation) == (value, why)


@pytest.mark.parametrize(
    ("answer", "target", "why"),
    [("[" * 90_000, "[]", "nested too deep"), ("1", "oops", "the target is not JSON")],
)
def test_json_unknown(answer: str, target: str, why: str) -> None:
    """Neither nesting nor a bad ground truth makes an answer wrong."""
    with pytest.raises(UnknownError, match=why):
        verify(check("json"), answer, target)


def test_json_schema(impatient: float) -> None:
    """The explanation names the misfit, and a pattern that backtracks without end is stopped."""
    schema = {
        "type": "object",
        "properties": {"n": {"type": "integer"}, "t": {"pattern": "^(a+)+$"}},
    }
    limited = check("json", schema=schema, timeout_s=impatient)
    assert verify(limited, '{"n": 1}', '{"n": 1}').value == 1.0
    assert (
        verify(limited, '{"n": "x"}', '{"n": "x"}').explanation
        == "does not fit the schema at $.n: 'x' is not of type 'integer'"
    )
    with pytest.raises(UnknownError, match="took too long"):
        verify(limited, json.dumps({"t": "a" * 60 + "!"}), "{}")


TESTS = "assert double(2) == 4\nassert double(-3) == -6\n"


@pytest.mark.parametrize(
    ("answer", "target", "value", "why"),
    [
        ("def double(x):\n    return 2 * x", TESTS, 1.0, "2 of 2 tests"),
        ("```python\ndef double(x): return 2 * x\n```", TESTS, 1.0, "2 of 2 tests"),
        (
            "def double(x): return 4",
            TESTS,
            0.5,
            "1 of 2 tests; line 2: assert double(-3) == -6: AssertionError",
        ),
        (
            "def double(x) return",
            TESTS,
            0.0,
            "0 of 2 tests; SyntaxError: expected ':' (answer, line 1)",
        ),
        ("import sys\nsys.exit(0)", TESTS, 0.0, "0 of 2 tests; SystemExit: 0"),
        (
            "def double(x): return 2 * x",
            "def check(f):\n    assert f(1) == 2\ncheck(double)",
            1.0,
            "1 of 1 tests",
        ),
        (
            "def double(x): return 2 * x",
            "def test_it():\n    assert double(1) == 2",
            1.0,
            "1 of 1 tests",
        ),
        (
            "def double(x): return None",
            "found = double(1) + 1\nassert found == 3",
            0.0,
            "0 of 1 tests; line 1: found = double(1) + 1: TypeError",
        ),
        ("open('own', 'w').write('x')\ndef double(x): return 2 * x", TESTS, 1.0, "2 of 2 tests"),
        (
            "if __name__ == '__main__': main()\ndef double(x): return 2 * x",
            TESTS,
            1.0,
            "2 of 2 tests",
        ),
    ],
)
def test_code(answer: str, target: str, value: float, why: str) -> None:
    """Tests are counted, and a program that exits early has passed none."""
    result = verify(check("code"), answer, target)
    assert (result.value, result.explanation) == (value, why)


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ("import os; os._exit(0)", "ended with exit code 0"),
        ("import ctypes; ctypes.string_at(0)", "ended with signal 11"),
        ("x = 'a' * 10**11", "MemoryError"),
        ("import numpy", "No module named 'numpy'"),
        ("import socket; socket.socket()", "PermissionError"),
        ("import subprocess; subprocess.run(['true'])", "PermissionError"),
        ("import os; os.kill(os.getppid(), 9)", "PermissionError"),
        ("open(PATH, 'w')", "PermissionError"),
        ("open(PATH)", "PermissionError"),
        ("import os; os.remove(PATH)", "PermissionError"),
        (
            "import os\nfor n in range(3, 64):\n"
            "    try: os.write(n, b'\\0\\0\\0\\x02{}')\n    except OSError: pass",
            "invalid reply",
        ),
    ],
)
def test_code_unknown(answer: str, why: str, tmp_path: Path) -> None:
    """A refused call or a missing library is no test of the answer; no file may be touched."""
    path = tmp_path / "precious"
    path.write_text("text")
    with pytest.raises(UnknownError, match=why):
        verify(check("code"), answer.replace("PATH", repr(str(path))), TESTS)
    assert path.read_text() == "text"


@pytest.mark.parametrize(
    ("target", "why"), [("assert (", "the tests are not Python"), ("x = 1", "holds no test")]
)
def test_code_without_tests_is_unknown(target: str, why: str) -> None:
    """A program is not right because nothing was tested."""
    with pytest.raises(UnknownError, match=why):
        verify(check("code"), "x = 1", target)


FUTURE = "from __future__ import annotations\nfrom dataclasses import dataclass\n"
DOUBLE = "def double(x):\n    return 2 * x\n"


@pytest.mark.parametrize(
    "answer",
    [
        FUTURE + "@dataclass\nclass P:\n    x: int\n" + DOUBLE,
        "from dataclasses import dataclass\n@dataclass\nclass P:\n    x: 'int'\n" + DOUBLE,
        "import typing\nclass P:\n    x: 'P'\ntyping.get_type_hints(P)\n" + DOUBLE,
        "import pickle\nclass P: pass\npickle.loads(pickle.dumps(P()))\n" + DOUBLE,
        "import copy, enum\nclass E(enum.Enum):\n    A = 1\ncopy.deepcopy(E.A)\n" + DOUBLE,
        "import sys\nsys.modules[__name__].double = lambda x: 2 * x",
    ],
)
def test_a_program_is_a_module(answer: str) -> None:
    """Dataclasses, type hints and pickle look up the module of a class, which was not there."""
    assert verify(check("code"), answer, TESTS).value == 1.0
    assert verify(check("code"), answer, "from answer import double\n" + TESTS).value == 1.0


def test_tests_may_import_from_the_future() -> None:
    """Each statement is compiled alone, and once lost what the first one changes."""
    tests = "from __future__ import annotations\ndef test_it(x: Missing = 1): assert double(x) == 2"
    assert verify(check("code"), DOUBLE, tests).value == 1.0


CASE = (
    "import unittest\nclass TestD(unittest.TestCase):\n"
    "    def setUp(self): self.two = 2\n"
    "    def test_a(self): self.assertEqual(double(self.two), 4)\n"
    "    def test_b(self):\n        with self.subTest(): self.assertEqual(double(0), 0)\n"
)


@pytest.mark.parametrize(
    "end", ["", "unittest.main()", "unittest.main(argv=['x'], exit=False)", "if 0: unittest.main()"]
)
def test_unittest_cases_are_run(end: str) -> None:
    """unittest.main(exit=False) once counted as one test, which every program passed."""
    assert verify(check("code"), DOUBLE, CASE + end).value == 1.0
    assert verify(check("code"), "def double(x): return 0", CASE + end).value == 0.5
    assert verify(check("code"), "def double(x): return 1", CASE + end).value == 0.0


@pytest.mark.parametrize(
    "target",
    [
        "assert True",
        "print(double(2) == 4)",
        "import doctest\ndoctest.testmod()",
        "def test_a():\n    try: assert double(2) == 4\n    except AssertionError: print('wrong')",
        "def test_a():\n    try: assert double(2) == 4\n    except Exception: pass",
        "def test_a(): double(2) == 4",
        "def test_a(fixture): assert double(2) == 4",
        "import unittest\nclass T(unittest.TestCase):\n    def test_a(self): pass",
        "import random\nrandom.seed(1)",
    ],
)
def test_tests_that_cannot_fail_are_unknown(target: str) -> None:
    """A test file that passes whatever the program does says nothing about it."""
    with pytest.raises(UnknownError, match=r"no test can fail|no test|takes arguments"):
        verify(check("code"), "def double(x): return 0", target)


@pytest.mark.parametrize(
    ("target", "right", "wrong"),
    [
        ("import random\nrandom.seed(1)\n" + TESTS, 1.0, 0.0),
        ("def test_a(): return double(2) == 4", 1.0, 0.0),
        ("def check(f): return f(2) == 4\ncheck(double)", 1.0, 0.0),
        ("assert double(2) != 5\nassert not double(0)", 1.0, 1.0),
        ("n = 0\nwhile double(n) < 9: n += 1\nassert n == 5", 1.0, None),
    ],
)
def test_tests_that_can_fail_count(target: str, right: float, wrong: float | None) -> None:
    """What passes without a program is no test; what returns False has failed."""
    assert verify(check("code"), DOUBLE, target).value == right
    if wrong is not None:
        assert verify(check("code"), "def double(x): return 0", target).value == wrong


@pytest.mark.parametrize(
    "answer",
    [
        "Here is the solution:\n```python\n{}```\nIt doubles x.",
        "```python\r\n{}```\r\n",
        "```python\n{}",
        "~~~py\n{}~~~",
        "````\n{}````",
        "1. So:\n   ```python\n   def double(x):\n       return 2 * x\n   ```\n",
        "```python title=x.py\n{}```",
        "Install:\n```bash\npip install x\n```\n```python\n{}```\nUse:\n```python\ndouble(y)\n```",
        "```python\ndef double(x): return 0\n```\nNo, that is wrong.\n```python\n{}```",
        "```python\n{}```\nprints\n```\n4 apples\n```",
        "'''\n```\nsome text\n```\n'''\n{}",
    ],
)
def test_code_in_markdown(answer: str) -> None:
    """Right code was wrong in a block with CRLF or among sentences."""
    assert verify(check("code"), answer.replace("{}", DOUBLE), TESTS).value == 1.0


@pytest.mark.parametrize(
    "answer",
    [
        '```json\r\n{"a": "x"}\r\n```',
        'Here it is:\n```json\n{"a": "x"}\n```\nDone.',
        '```json\n{"a": 1}\n```\nNo:\n```json\n{"a": "x"}\n```',
        '```{"a": "x"}```',
        '```json {"a": "x"}```',
        '~~~\n{"a": "x"}\n~~~',
    ],
)
def test_json_in_markdown(answer: str) -> None:
    """Right JSON was wrong in a block with CRLF or among sentences."""
    assert verify(check("json"), answer, '{"a": "x"}').value == 1.0


def test_code_that_hangs_is_unknown() -> None:
    """Also if it catches every exception."""
    forever = "while True:\n    try:\n        while True: pass\n    except BaseException: pass"
    with pytest.raises(UnknownError, match="took too long"):
        verify(check("code", timeout_s=1.0), forever, TESTS)


@pytest.mark.parametrize("name", ["a", "a" * 250])
def test_a_program_that_digs_deep_ends_nothing(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Deeply nested folders once ended the whole stage when they were removed."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    dig = "import os\nfor _ in range(1500):\n"
    dig += f"    os.mkdir({name!r}); os.chdir({name!r}); open('file', 'w').close()\n"
    result = verify(check("code"), dig + "os.mkdir('shut', 0)\ndef double(x): return 2 * x", TESTS)
    assert result.value == 1.0
    assert list(tmp_path.iterdir()) == []


def test_too_long_is_not_even_tried() -> None:
    """Sending it would take longer than the check may."""
    with pytest.raises(UnknownError, match="longer than 100,000 characters"):
        verify(check("math"), "7" * 200_000, "1")


def test_the_filter_names_what_is_wrong_and_what_is_unknown(sample: Callable[..., Sample]) -> None:
    """Right, half right, unknown, and a seed without ground truth; the judge has the thresholds."""
    seed = Seed(id="n", inputs={}, target=TESTS)
    answers = ["def double(x): return 2 * x", "def double(x): return 4", "import numpy"]
    samples = [
        *(sample(n, answer=answer, seed=seed) for n, answer in enumerate(answers)),
        sample(9, seed=Seed(id="x", inputs={})),
    ]
    settings = {
        "verifier": "code",
        "labels": None,
        "schema": None,
        "timeout_s": SECONDS,
        "memory_mib": 1024,
    }
    column = ground_truth.check_answers(Batch(samples, TopKFolder(Path())), **settings)
    assert [value for value, _ in column] == [1.0, 0.5, None, 1.0]
    rows = np.arange(4)
    unknown = Verdict(
        "unknown_correctness", "ModuleNotFoundError: No module named 'numpy' (import numpy)"
    )
    assert ground_truth.reject_wrong(rows, column, 0.5, "drop") == {2: unknown}
    wrong = "def double(x): return 4 (1 of 2 tests; line 2: assert double(-3) == -6: Assertio"
    assert ground_truth.reject_wrong(rows, column, 1.0, "keep") == {
        1: Verdict("wrong_answer", wrong)
    }
    assert ground_truth.reject_wrong(np.array([0, 3]), column, 1.0, "drop") == {}


def test_the_config_gives_the_schema(workshop: Path) -> None:
    """With an invalid schema the filter would reject every answer, hours later."""
    changes = [
        "task.metric=json",
        "task.labels=null",
        f"task.verifier.json_schema={workshop / 'schema.json'}",
    ]
    task = load(workshop / "config.yaml", changes).task
    with pytest.raises(PipelineError, match="cannot be read as JSON"):
        verifiers_verify.load_check(task)
    (workshop / "schema.json").write_text('{"type": "nonsense"}')
    with pytest.raises(PipelineError, match="is no JSON schema"):
        verifiers_verify.load_check(task)
    (workshop / "schema.json").write_text('{"type": "object"}')
    assert verifiers_verify.load_check(task).schema == {"type": "object"}
    assert verifiers_verify.files(task) == [workshop / "schema.json"]
    with pytest.raises(PipelineError, match="json_schema is for metric 'json'"):
        load(workshop / "config.yaml", [changes[2]])


def test_the_filter_stage_checks_by_the_metric_of_the_task(workshop: Path) -> None:
    """The config must reach the verifier.

    Here the same word is right, and another cannot be compared as mathematics.
    """
    changes = ["task.metric=math", "task.labels=null", "filter.duplicate=false"]
    runner.execute(generate, load(workshop / "config.yaml", changes))
    runner.execute(filter_stage, load(workshop / "config.yaml", changes))
    counts = manifest.read_manifest(workshop / "run", "filter")["counts"]
    assert set(counts["rejected"]) == {"correct.unknown_correctness"}
    runner.execute(
        filter_stage,
        load(workshop / "config.yaml", [*changes, "filter.unknown=keep"]),
        prepare=runner.archive,
    )
    assert manifest.read_manifest(workshop / "run", "filter")["counts"]["kept"] == counts["samples"]


@pytest.mark.parametrize(
    ("verifier", "answer", "target", "value"),
    [
        ("exact", "NYC", '["New York", "NYC"]', 1.0),
        ("exact", "Boston", '["New York", "NYC"]', 0.0),
        ("label", "normal", '["spam", "normal"]', 1.0),
        ("numeric", "7", "[5, 7]", 1.0),
        ("numeric", "6", '["5", "7"]', 0.0),
        ("rouge_l", "a cat", '["dogs bark", "a cat"]', 1.0),
        ("math", "1/2", r'["3", "\\frac{1}{2}"]', 1.0),
        ("math", "[1, 2]", "[1, 2]", 1.0),  # an interval
        ("json", '["b"]', '["a", "b"]', 0.0),  # a list is one value
        ("code", "f = abs", '["assert f(-1) == 1", "assert f(-2) == 3"]', 0.5),
    ],
)
def test_any_of_several_targets_is_right(
    verifier: str, answer: str, target: str, value: float
) -> None:
    """A question with two right answers counted one of them as wrong, or both."""
    assert verify(check(verifier, labels=["spam", "normal"]), answer, target).value == value


def test_unreadable_target_among_several_is_unknown_not_wrong() -> None:
    """With one target that cannot be read, a miss of the others says nothing."""
    assert verify(check("numeric"), "5", '["none", "5"]').value == 1.0
    with pytest.raises(UnknownError, match="no number in the target"):
        verify(check("numeric"), "6", '["none", "5"]')


@pytest.mark.parametrize(
    ("verifier", "good", "bad"),
    [
        ("label", "spam", "ham"),
        ("numeric", "3 apples", "some"),
        ("math", "x^2", "the empty"),
        ("json", "{}", "{a}"),
        ("code", "assert f(1)", "assert f("),
        ("code", '["assert f(1)"]', "# none"),
        ("exact", "...", '["a", " "]'),
        ("chrf", "a", " "),
    ],
)
def test_the_metric_reads_targets(verifier: str, good: str, bad: str) -> None:
    """A target that no answer can match was found after the teacher was paid."""
    settings = check(verifier, labels=["spam", "normal"])
    verifiers_verify.check_target(settings, good)
    with pytest.raises(UnknownError):
        verifiers_verify.check_target(settings, bad)
