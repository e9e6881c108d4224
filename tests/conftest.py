"""Every test run writes its artifacts and figures into a temporary folder, never into the developer's own,
and leaves the process as it was."""

import os
import sys
import tempfile

import pytest
import torch

_ROOT = tempfile.TemporaryDirectory(prefix="cgi-pytest-", ignore_cleanup_errors=True)
os.environ["CGI_ROOT"] = _ROOT.name
os.environ.pop("CGI_PRESET", None)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup():
    """Weights that a test or its fixtures draw at random do not depend on the tests before it."""
    torch.manual_seed(0)


@pytest.fixture
def root(tmp_path, monkeypatch):
    """An empty folder for artifacts, shipped weights and figures of this test alone."""
    monkeypatch.setenv("CGI_ROOT", str(tmp_path))
    return tmp_path


@pytest.fixture(scope="module")
def one_thread():
    """For a module of networks so small that they only wait for a second thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def process():
    """What belongs to the whole process, so that a test that changes it would change the tests after it."""
    # pytest's, matplotlib's where HOME cannot be written, and what the first optimiser of torch sets
    own = ("PYTEST_CURRENT_TEST", "MPLCONFIGDIR", "TORCHINDUCTOR_CACHE_DIR")
    environment = {k: v for k, v in os.environ.items() if k not in own}
    return {
        "working directory": os.getcwd(),
        "environment": environment,
        "sys.path": list(sys.path),
        "threads of torch": torch.get_num_threads(),
        "default dtype": torch.get_default_dtype(),
        "gradients": torch.is_grad_enabled(),
    }


@pytest.fixture(autouse=True)
def leaves_the_process_as_it_was():
    """Fails the test that does not; set up first, so torn down after every other fixture."""
    before = process()
    yield
    after = process()
    assert not [name for name in before if before[name] != after[name]]
