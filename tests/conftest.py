"""Every test run writes its artifacts and figures into a temporary folder, never into the developer's own."""

import os
import tempfile

import pytest

_ROOT = tempfile.TemporaryDirectory(prefix="cgi-pytest-", ignore_cleanup_errors=True)
os.environ["CGI_ROOT"] = _ROOT.name
os.environ.pop("CGI_PRESET", None)


@pytest.fixture
def root(tmp_path, monkeypatch):
    """An empty folder for artifacts, shipped weights and figures of this test alone."""
    monkeypatch.setenv("CGI_ROOT", str(tmp_path))
    return tmp_path
