"""Run one program and its tests, and report how many passed.

`python -P -s -S program_runner.py PARENT`, in the folder that the program may write to. The file
stands alone, so that the program can import nothing of this package or of site-packages. Request
and reply are frames as in sandbox.py.
"""

import ast
import json
import os
import resource
import sys
from importlib.machinery import SourceFileLoader
from typing import Any

# Python's own files, and those that C libraries read
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
TASKS_OF_USER = 8192  # processes and threads of the user, root aside; sandbox.py counts threads
SHOWN = 80
# not the program's fault: a confined call, a missing module, or the memory limit
NO_FAULT = (PermissionError, ModuleNotFoundError, MemoryError)


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
        reply = attempt(request["answer"], request["target"])
    else:
        reply = {"unconfined": True}
    body = json.dumps({"token": request["token"], **reply}).encode()
    os.write(output, len(body).to_bytes(4, "big") + body)
    os._exit(0)  # whatever threads and exit handlers the program has left


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
    # without Landlock, the kernel can restrict writing to no folder, so there is no writing at all
    confinement.drop_capabilities()
    has_folder = confinement.restrict_files(os.getcwd(), READABLE)
    return bool(confinement.forbid_system_calls(allow_writing=has_folder))


def attempt(answer: str, target: str) -> dict[str, Any]:
    """Run the program and its tests: {"passed", "total", "explanation"} or {"unknown"}."""
    try:
        tests = ast.parse(target)
    except (SyntaxError, ValueError) as error:
        return {"unknown": f"the tests are not Python: {error}"}
    total = sum(map(is_test, tests.body))
    if not total:
        return {"unknown": "the target holds no test: an assert, a call, or a function test_…"}
    namespace: dict[str, Any] = {"__name__": "answer"}
    failure = execute(compile_text(answer), namespace)
    if failure is not None:
        return verdict(0, total, failure)
    return run_tests(tests, total, namespace)


def is_test(node: ast.stmt) -> bool:
    """Return whether a statement is a test: an assert, a call such as check(f), def test_…()."""
    if isinstance(node, ast.FunctionDef):
        return node.name.startswith("test_")
    is_call = isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)
    return is_call or isinstance(node, ast.Assert)


def run_tests(tests: ast.Module, total: int, namespace: dict[str, Any]) -> dict[str, Any]:
    """Run the statements in order, up to one that fails and is no test."""
    passed = 0
    first_failure = None
    for node in tests.body:
        failure = execute(compile(ast.Module([node], []), "tests", "exec"), namespace)
        if failure is None and isinstance(node, ast.FunctionDef) and is_test(node):
            failure = execute(compile(f"{node.name}()", "tests", "exec"), namespace)
        if isinstance(failure, NO_FAULT):
            return verdict(passed, total, failure)
        if failure is None:
            passed += is_test(node)
            continue
        if first_failure is None:
            code = ast.unparse(node)[:SHOWN]
            first_failure = RuntimeError(f"line {node.lineno}: {code}: {type(failure).__name__}")
        if not is_test(node):
            break
    return verdict(passed, total, first_failure)


def compile_text(text: str) -> Any:
    """Return the program's code, or the error that it has instead."""
    try:
        return compile(text, "answer", "exec")
    except (SyntaxError, ValueError, RecursionError) as error:
        return error


def execute(code: Any, namespace: dict[str, Any]) -> BaseException | None:
    """Run code and return what stopped it, SystemExit included; None if nothing did."""
    try:
        if isinstance(code, BaseException):
            raise code
        exec(code, namespace)
    except BaseException as error:  # whatever a program raises is its outcome
        return error
    return None


def verdict(passed: int, total: int, failure: BaseException | None) -> dict[str, Any]:
    """Return the reply: the number of passed tests and the first failure, or {"unknown"}."""
    if isinstance(failure, NO_FAULT):
        return {"unknown": f"{type(failure).__name__}: {failure}"[:SHOWN]}
    explanation = f"{passed} of {total} tests"
    if type(failure) is RuntimeError:  # of `run_tests`, which names the type
        explanation += f"; {failure}"
    elif failure is not None:
        explanation += f"; {type(failure).__name__}: {failure}"
    return {"passed": passed, "total": total, "explanation": explanation}


if __name__ == "__main__":
    main()
