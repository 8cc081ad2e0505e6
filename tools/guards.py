"""Finds guards that no test covers: `.venv/bin/python tools/guards.py MODULE.py TEST.py...`.

A guard is an `if` whose body ends with a raise, a return, a continue or a break. Replaces one guard at a time with
False, runs the tests, and prints the guards without which they still pass. Edits files in place: use a clone or a
worktree.
"""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

LEAVES = (ast.Raise, ast.Return, ast.Continue, ast.Break)


def guards(source: str) -> Iterator[ast.expr]:
    """The one-line conditions that bind no name (`:=`), so that later code does not depend on them."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.If) or not isinstance(node.body[-1], LEAVES):
            continue
        names_something = any(isinstance(each, ast.NamedExpr) for each in ast.walk(node.test))
        if node.test.lineno == node.test.end_lineno and not names_something:
            yield node.test


def without(source: str, guard: ast.expr) -> str:
    lines = source.splitlines(keepends=True)
    line = lines[guard.lineno - 1].encode()
    lines[guard.lineno - 1] = (line[: guard.col_offset] + b"False" + line[guard.end_col_offset :]).decode()
    return "".join(lines)


def passes(tests: list[str]) -> bool:
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *tests]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def main() -> None:
    path, tests = Path(sys.argv[1]), sys.argv[2:]
    source = path.read_text()
    for guard in guards(source):
        try:
            path.write_text(without(source, guard))
            if passes(tests):
                print(f"{path}:{guard.lineno}: {source.splitlines()[guard.lineno - 1].strip()}", flush=True)  # noqa: T201
        finally:
            path.write_text(source)


if __name__ == "__main__":
    main()
