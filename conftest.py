"""For tests and notebooks alike: no network; CGI_TEST_ORDER=SEED shuffles the modules and the tests in each."""

import importlib.util
import os
import random
import tempfile
from pathlib import Path

import pytest

spec = importlib.util.spec_from_file_location("guard", Path(__file__).parent / "tests" / "guard.py")
guard = importlib.util.module_from_spec(spec)
spec.loader.exec_module(guard)

FOLDER = tempfile.TemporaryDirectory(prefix="cgi-guard-", ignore_cleanup_errors=True)
os.environ.update(guard.environment(FOLDER.name))
LOG = Path(os.environ["CGI_NETWORK_LOG"])
guard.install()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    """A test fails if it, or a kernel that it started, asked for another machine."""
    LOG.unlink(missing_ok=True)
    result = yield
    assert not LOG.exists(), f"The tests use no network, but this one tried: {LOG.read_text().strip()}"
    return result


def pytest_report_header():
    return (
        f"order of the tests: CGI_TEST_ORDER={os.environ['CGI_TEST_ORDER']}"
        if os.environ.get("CGI_TEST_ORDER")
        else None
    )


def pytest_collection_modifyitems(items):
    """Modules in another order, the tests of each together (they may share what is costly);
    cells of notebooks stay in order."""
    seed = os.environ.get("CGI_TEST_ORDER")
    if not seed or any(item.path.suffix == ".ipynb" for item in items):
        return
    modules, rng = {}, random.Random(seed)
    for item in items:
        modules.setdefault(item.path, []).append(item)
    order = sorted(modules)
    rng.shuffle(order)
    for path in order:
        rng.shuffle(modules[path])
    items[:] = [item for path in order for item in modules[path]]
