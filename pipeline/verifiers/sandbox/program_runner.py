"""Run one program and its tests, and report how many passed.

Command: `python -P -s -S program_runner.py PARENT`, in the folder that the program may write to.
PARENT is the id of the process that started it. This file imports nothing of this package, so that
the program can import neither the package nor site-packages. Request and reply are frames as in
sandbox.py.
"""

import __future__

import ast
import builtins
import json
import os
import resource
import sys
import types
from importlib.machinery import SourceFileLoader
from typing import Any

# folders that the program may read: Python's own files, and those that C libraries need
READABLE = (
    sys.base_prefix,
    os.path.dirname(os.__file__),
    "/usr/lib",
    "/usr/share/zoneinfo",
    "/lib",
    "/lib64",
    "/dev/urandom",
)
FILE_MIB, OPEN_FILES = 16, 64
# Processes and threads of this user; the kernel ignores the limit for root, so sandbox.py also
# counts the threads.
TASKS_OF_USER = 8192
SHOWN = 80  # characters of a message
# errors that the limits cause (a forbidden call, a missing module, too little memory), so the
# program may be right: its result is unknown
NO_FAULT = (PermissionError, ModuleNotFoundError, MemoryError)
NO_TESTS = ("print", "unittest.main")
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
RESULT = "_result_of_the_test"
MOST_USES = 100_000  # uses of the stand-in for any program


def main() -> None:
    """Read one request from stdin, run its program, and write the reply."""
    path = os.path.join(os.path.dirname(__file__), "confinement.py")
    confinement = SourceFileLoader("confinement", path).load_module()
    confinement.end_with_parent(int(sys.argv[1]))
    size = int.from_bytes(sys.stdin.buffer.read(4), "big")
    request = json.loads(sys.stdin.buffer.read(size))
    output = os.dup(1)
    devnull = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(devnull, stream)
    if confine(confinement, request["seconds"], request["memory_mib"]):
        reply = attempt(program_of(request["answer"], request["blocks"]), request["target"])
    else:
        reply = {"unconfined": True}
    body = json.dumps({"token": request["token"], **reply}).encode()
    os.write(output, len(body).to_bytes(4, "big") + body)
    os._exit(0)  # do not wait for threads or exit handlers that the program has left


def confine(confinement: Any, seconds: int, memory_mib: int) -> bool:
    """Give up all rights that the program does not need. Returns False if the kernel refuses."""
    limits = {
        resource.RLIMIT_CPU: seconds,
        resource.RLIMIT_AS: memory_mib << 20,
        resource.RLIMIT_FSIZE: FILE_MIB << 20,
        resource.RLIMIT_NOFILE: OPEN_FILES,
        resource.RLIMIT_NPROC: TASKS_OF_USER,
        resource.RLIMIT_CORE: 0,
    }
    confinement.limit_resources(limits)
    confinement.drop_capabilities()
    # a kernel without Landlock cannot limit writing to one folder, so then all writing is forbidden
    has_folder = confinement.restrict_files(os.getcwd(), READABLE)
    return bool(confinement.forbid_system_calls(allow_writing=has_folder))


def program_of(answer: str, blocks: list[str]) -> str:
    """Return the program in an answer: all of it, or its Markdown blocks with definitions.

    Of two definitions of a name the later one counts, so a correction replaces what it corrects.
    """
    if not blocks or not isinstance(compile_text(answer), Exception):
        return answer
    readable = [block for block in blocks if not isinstance(compile_text(block), Exception)]
    defining = [block for block in readable if any(map(is_definition, ast.parse(block).body))]
    chosen = defining or readable or blocks
    program = "\n\n".join(chosen)
    return chosen[-1] if isinstance(compile_text(program), Exception) else program


def is_definition(node: ast.stmt) -> bool:
    """Return whether a statement defines a function or a class."""
    return isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)


def attempt(answer: str, target: str) -> dict[str, Any]:
    """Run the program and its tests: {"passed", "total", "explanation"} or {"unknown"}."""
    try:
        tests = ast.parse(target)
        compile(target, "tests", "exec", dont_inherit=True)
    except (SyntaxError, ValueError) as error:
        return {"unknown": f"the tests are not Python: {error}"}
    total = sum(map(count_tests, tests.body))
    if not total:
        return {"unknown": "the target holds no test: an assert, a call, or a function test_…"}
    for node in tests.body:
        if isinstance(node, ast.FunctionDef) and count_tests(node) and takes_arguments(node):
            return {"unknown": f"{node.name} takes arguments, which nothing gives"}
    namespace = new_module()
    failure = execute(compile_text(answer), namespace)
    if failure is not None:
        return verdict(0, total, failure)
    outcomes = run_tests(tests, namespace)
    for outcome in outcomes:
        if isinstance(outcome, NO_FAULT):
            return verdict(0, total, outcome)
    if None in outcomes:
        able = tests_that_can_fail(tests)
        outcomes = [outcome for outcome, can_fail in zip(outcomes, able, strict=True) if can_fail]
        if not outcomes:
            return {"unknown": "no test can fail: each passes with any program"}
    first_failure = next((outcome for outcome in outcomes if outcome is not None), None)
    return verdict(outcomes.count(None), len(outcomes), first_failure)


def new_module() -> dict[str, Any]:
    """Return the namespace of an empty module `answer`, which dataclasses and pickle look up."""
    module = sys.modules["answer"] = types.ModuleType("answer")
    return module.__dict__


def count_tests(node: ast.stmt) -> int:
    """Return how many tests a statement is.

    A test is an assert, a call such as check(f), def test_…(), and a method test_…() of a TestCase.
    """
    if isinstance(node, ast.FunctionDef):
        return int(node.name.startswith("test_"))
    if isinstance(node, ast.ClassDef):
        return len(test_methods(node))
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        return int(ast.unparse(node.value.func) not in NO_TESTS)
    return int(isinstance(node, ast.Assert))


def test_methods(node: ast.ClassDef) -> list[str]:
    """Return the names of the test methods of a unittest.TestCase."""
    if not any(ast.unparse(base).endswith("TestCase") for base in node.bases):
        return []
    functions = [entry for entry in node.body if isinstance(entry, FUNCTIONS)]
    return [entry.name for entry in functions if entry.name.startswith("test")]


def takes_arguments(node: ast.FunctionDef) -> bool:
    """Return whether a function cannot be called without arguments, such as pytest's fixtures."""
    arguments = node.args
    needed = len(arguments.posonlyargs) + len(arguments.args) - len(arguments.defaults)
    return needed > 0 or None in arguments.kw_defaults


def run_tests(tests: ast.Module, namespace: dict[str, Any]) -> list[BaseException | None]:
    """Run the statements in order; return what stopped each test, None if it passed.

    A statement that fails and is no test fails all tests behind it.
    """
    outcomes: list[BaseException | None] = []
    broken = None
    for node in tests.body:
        count = count_tests(node)
        if broken is None and not (isinstance(node, ast.Expr) and is_runner(node)):
            failures = run_statement(node, tests, namespace)
            explained = [explain(node, failure) for failure in failures]
            if count == 0 or len(explained) != count:
                broken = next((failure for failure in explained if failure), None)
            else:
                outcomes += explained
                continue
        outcomes += [broken] * count
    return outcomes


def is_runner(node: ast.Expr) -> bool:
    """Return whether a statement is unittest.main(), whose tests are run without it."""
    return isinstance(node.value, ast.Call) and ast.unparse(node.value.func) == "unittest.main"


def run_statement(
    node: ast.stmt, tests: ast.Module, namespace: dict[str, Any]
) -> list[BaseException | None]:
    """Run a statement, and the tests that it defines: what stopped each."""
    flags = future_flags(tests)
    if isinstance(node, ast.Expr) and count_tests(node):
        call = ast.Assign([ast.Name(RESULT, ast.Store())], node.value)
        node = ast.fix_missing_locations(ast.copy_location(call, node))
    code = compile(ast.Module([node], []), "tests", "exec", flags=flags, dont_inherit=True)
    failure = execute(code, namespace)
    if failure is None and isinstance(node, ast.FunctionDef) and count_tests(node):
        failure = execute(compile(f"{RESULT} = {node.name}()", "tests", "exec"), namespace)
    if failure is None and isinstance(node, ast.ClassDef) and test_methods(node):
        return [run_method(namespace[node.name], name) for name in test_methods(node)]
    if failure is None and namespace.pop(RESULT, None) is False:
        failure = AssertionError("is False")
    return [failure]


def future_flags(tests: ast.Module) -> int:
    """Return the compiler's flags for what the tests import from __future__."""
    flags = 0
    for node in tests.body:
        if isinstance(node, ast.ImportFrom) and node.module == "__future__":
            for name in node.names:
                flags |= getattr(__future__, name.name).compiler_flag
    return flags


def run_method(case: Any, name: str) -> BaseException | None:
    """Run one test of a unittest.TestCase, and return what stopped it."""
    import unittest

    class Result(unittest.TestResult):
        failure: BaseException | None = None

        def addError(self, test: Any, err: Any) -> None:  # noqa: N802
            self.failure = err[1]

        addFailure = addError  # noqa: N815

        def addSubTest(self, test: Any, subtest: Any, err: Any) -> None:  # noqa: N802
            self.failure = err[1] if err else self.failure

    result = Result()
    try:
        unittest.TestSuite([case(name)]).run(result)
    except BaseException as error:  # such as SystemExit
        return error
    return result.failure


def explain(node: ast.stmt, failure: BaseException | None) -> BaseException | None:
    """Return a failure with the line that it happened in."""
    if failure is None or isinstance(failure, NO_FAULT):
        return failure
    code = ast.unparse(node)[:SHOWN]
    return RuntimeError(f"line {node.lineno}: {code}: {type(failure).__name__}")


def tests_that_can_fail(tests: ast.Module) -> list[bool]:
    """Return which tests fail without a program; none of them if all pass with any program.

    Any program: one whose functions return what is true and equal to everything, or to nothing.
    """
    without = [failure is not None for failure in run_tests(tests, new_module())]
    for truth in (False, True):
        namespace = new_module()
        names = [node.id for node in ast.walk(tests) if isinstance(node, ast.Name)]
        for node in ast.walk(tests):
            if isinstance(node, ast.ImportFrom) and node.module == "answer":
                names += [name.name for name in node.names]
        anything = Anything(truth)
        namespace.update((name, anything) for name in names if not hasattr(builtins, name))
        outcomes = run_tests(tests, namespace)
        if any(failed and outcome for failed, outcome in zip(without, outcomes, strict=True)):
            return without
    return [False] * len(without)


class Anything:
    """A function, and all that it returns: true and equal to everything, or to nothing."""

    def __init__(self, truth: bool) -> None:
        self.truth = truth
        self.uses = 0

    def itself(self, *_: Any, **__: Any) -> "Anything":
        """Return itself; raises MemoryError in an endless loop."""
        self.count()
        return self

    def is_true(self, *_: Any) -> bool:
        """Return the truth of every comparison."""
        self.count()
        return self.truth

    def count(self) -> None:
        """Count a use, and end a loop that goes on for ever."""
        self.uses += 1
        if self.uses > MOST_USES:
            raise RecursionError("endless")

    def __getattr__(self, name: str) -> "Anything":
        if name.startswith("__"):
            raise AttributeError(name)
        return self.itself()

    def __iter__(self) -> Any:
        return iter(())

    def __len__(self) -> int:
        return int(self.is_true())

    def __ne__(self, _: object) -> bool:
        return not self.is_true()

    __hash__ = object.__hash__
    __call__ = __getitem__ = __enter__ = itself
    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = itself
    __mod__ = __floordiv__ = __pow__ = __neg__ = __abs__ = __round__ = itself
    __eq__ = __lt__ = __le__ = __gt__ = __ge__ = __bool__ = __contains__ = is_true
    __int__ = __index__ = __len__

    def __exit__(self, *_: Any) -> None:
        pass

    def __float__(self) -> float:
        return float(self.truth)


def compile_text(text: str) -> Any:
    """Return the program's code, or the error if it cannot be compiled."""
    try:
        return compile(text, "answer", "exec", dont_inherit=True)
    except (SyntaxError, ValueError, RecursionError) as error:
        return error


def execute(code: Any, namespace: dict[str, Any]) -> BaseException | None:
    """Run code and return the exception that stopped it, even SystemExit; None if there is none."""
    try:
        if isinstance(code, BaseException):
            raise code
        exec(code, namespace)
    except BaseException as error:  # any exception of the program is its result, not ours
        return error
    return None


def verdict(passed: int, total: int, failure: BaseException | None) -> dict[str, Any]:
    """Return the reply: the number of passed tests and the first failure, or {"unknown"}."""
    if isinstance(failure, NO_FAULT):
        return {"unknown": f"{type(failure).__name__}: {failure}"[:SHOWN]}
    explanation = f"{passed} of {total} tests"
    if type(failure) is RuntimeError:  # from `run_tests`, whose text already names the type
        explanation += f"; {failure}"
    elif failure is not None:
        explanation += f"; {type(failure).__name__}: {failure}"
    return {"passed": passed, "total": total, "explanation": explanation}


if __name__ == "__main__":
    main()
