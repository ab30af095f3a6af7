"""Run one program and its tests, and report how many passed.

Command: `python -P -s -S program_runner.py PARENT`, in the folder that the program may write to.
PARENT is the id of the process that started it. This file imports nothing of this package, so that
the program can import neither the package nor site-packages. Request and reply are frames as in
sandbox.py.
"""

import ast
import json
import os
import resource
import sys
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
    """Return True for a test: an assert, a call such as check(f), or a function test_…."""
    if isinstance(node, ast.FunctionDef):
        return node.name.startswith("test_")
    is_call = isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)
    return is_call or isinstance(node, ast.Assert)


def run_tests(tests: ast.Module, total: int, namespace: dict[str, Any]) -> dict[str, Any]:
    """Run the statements in order. Stop at one that fails and is not a test."""
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
    """Return the program's code, or the error if it cannot be compiled."""
    try:
        return compile(text, "answer", "exec")
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
