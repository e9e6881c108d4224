"""One layout, no lint, and type hints that agree with each other: what CONTRIBUTING.md asks of every change."""

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
