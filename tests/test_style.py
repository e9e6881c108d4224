"""One layout, no lint, and type hints that agree with each other: what CONTRIBUTING.md asks of every change."""

import ast
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize(
    "command", [["ruff", "check", "."], ["ruff", "format", "--check", "."], ["mypy"]], ids=["lint", "layout", "types"]
)
def test_nothing_to_complain_about(command, tmp_path):
    if importlib.util.find_spec(command[0]) is None:
        if os.environ.get("CI"):
            pytest.fail(f"CI must have {command[0]}: it is in the extra `test`")
        pytest.skip(f"{command[0]} is not installed")
    caches = {"RUFF_CACHE_DIR": str(tmp_path / "ruff"), "MYPY_CACHE_DIR": str(tmp_path / "mypy")}
    run = subprocess.run(
        [sys.executable, "-m", *command], cwd=ROOT, env={**os.environ, **caches}, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stdout + run.stderr


def public(path):
    """(name, node) of the functions of a module and of its classes' methods that are called from outside."""
    for node in ast.parse(path.read_text("utf-8")).body:
        owner = f"{node.name}." if isinstance(node, ast.ClassDef) else ""
        for f in node.body if owner else [node]:
            if isinstance(f, ast.FunctionDef) and (not f.name.startswith("_") or f.name in ("__init__", "__call__")):
                yield owner + f.name, f


@pytest.mark.parametrize("folder", ["method", "data", "study"])
def test_public_functions_say_what_they_take_and_return(folder):
    bare = []
    for path in (ROOT / "cgi_helpers" / folder).glob("*.py"):
        for name, f in public(path):
            a = f.args
            taken = [*a.posonlyargs, *a.args, *a.kwonlyargs, *filter(None, (a.vararg, a.kwarg))]
            if f.returns is None or any(x.annotation is None and x.arg != "self" for x in taken):
                bare.append(f"{path.name}: {name}")
    assert bare == []
