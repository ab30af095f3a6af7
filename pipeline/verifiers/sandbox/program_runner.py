"""Runs one program and its tests, and says how many passed: `python -P -s -S program_runner.py PARENT`, in the folder that it may write to.

A file by itself, without the package. The request and the reply are frames as in sandbox.py.
"""

import ast
import json
import os
import resource
import sys
from importlib.machinery import SourceFileLoader
from typing import Any

# Python's own, and what C libraries look into
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
SHOWN = 80
# no fault of the program's: it met a lock, a module that is not here, or the limit of memory
NO_FAULT = (PermissionError, ModuleNotFoundError, MemoryError)


def main() -> None:
    # this file stands alone, so that nothing of the package or of site-packages can be imported by the program
    confinement = SourceFileLoader(
        "confinement", os.path.join(os.path.dirname(__file__), "confinement.py")
    ).load_module()
    confinement.end_with_parent(int(sys.argv[1]))
    request = json.loads(sys.stdin.buffer.read(int.from_bytes(sys.stdin.buffer.read(4), "big")))
    reply = os.dup(1)
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nowhere, stream)
    locked = lock(confinement, request["seconds"], request["memory_mib"])
    found = attempt(request["answer"], request["target"]) if locked else {"unlocked": True}
    body = json.dumps({"token": request["token"], **found}).encode()
    os.write(reply, len(body).to_bytes(4, "big") + body)
    os._exit(0)  # whatever threads and exit handlers the program has left


def lock(confinement: Any, seconds: int, memory_mib: int) -> bool:
    """Give up everything that can be. False if the kernel does not go along, for then nothing is run."""
    limits = {
        resource.RLIMIT_CPU: seconds,
        resource.RLIMIT_AS: memory_mib << 20,
        resource.RLIMIT_FSIZE: FILE_MIB << 20,
        resource.RLIMIT_NOFILE: OPEN_FILES,
        resource.RLIMIT_CORE: 0,
    }
    confinement.limit_resources(limits)
    # a kernel without Landlock leaves no folder to write to
    return bool(
        confinement.forbid_system_calls(
            allow_writing=confinement.restrict_files(os.getcwd(), READABLE)
        )
    )


def attempt(answer: str, target: str) -> dict[str, Any]:
    """{"passed", "total", "explanation"} or {"unknown"}."""
    try:
        tests = ast.parse(target)
    except (SyntaxError, ValueError) as error:
        return {"unknown": f"the tests are not Python: {error}"}
    total = sum(map(is_test, tests.body))
    if not total:
        return {"unknown": "the target holds no test: an assert, a call, or a function test_…"}
    space: dict[str, Any] = {"__name__": "answer"}
    failure = execute(compile_text(answer), space)
    if failure is not None:
        return verdict(0, total, failure)
    return tested(tests, total, space)


def is_test(node: ast.stmt) -> bool:
    """Top-level asserts, calls such as check(f), and functions test_…; all else prepares them."""
    call = isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)
    return (
        isinstance(node, ast.Assert)
        or call
        or (isinstance(node, ast.FunctionDef) and node.name.startswith("test_"))
    )


def tested(tests: ast.Module, total: int, space: dict[str, Any]) -> dict[str, Any]:
    passed, first = 0, None
    for node in tests.body:
        failure = execute(compile(ast.Module([node], []), "tests", "exec"), space)
        if failure is None and isinstance(node, ast.FunctionDef) and is_test(node):
            failure = execute(compile(f"{node.name}()", "tests", "exec"), space)
        passed += failure is None and is_test(node)
        if isinstance(failure, NO_FAULT):
            return verdict(passed, total, failure)
        if failure is not None and first is None:
            first = RuntimeError(
                f"line {node.lineno}: {ast.unparse(node)[:SHOWN]}: {type(failure).__name__}"
            )
        if failure is not None and not is_test(node):
            break
    return verdict(passed, total, first)


def compile_text(text: str) -> Any:
    try:
        return compile(text, "answer", "exec")
    except (SyntaxError, ValueError, RecursionError) as error:
        return error


def execute(code: Any, space: dict[str, Any]) -> BaseException | None:
    """What stopped it, SystemExit too; None if nothing did."""
    try:
        if isinstance(code, BaseException):
            raise code
        exec(code, space)
    except BaseException as error:  # whatever a program raises is its outcome
        return error
    return None


def verdict(passed: int, total: int, failure: BaseException | None) -> dict[str, Any]:
    if isinstance(failure, NO_FAULT):
        return {"unknown": f"{type(failure).__name__}: {failure}"[:SHOWN]}
    why = (
        ""
        if failure is None
        else f"; {failure if type(failure) is RuntimeError else f'{type(failure).__name__}: {failure}'}"
    )
    return {"passed": passed, "total": total, "explanation": f"{passed} of {total} tests{why}"}


if __name__ == "__main__":
    main()
