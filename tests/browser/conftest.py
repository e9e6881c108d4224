"""A real JupyterLab in a headless Chromium, driven by Playwright."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import nbformat
import pytest

import guard

ROOT = Path(__file__).resolve().parents[2]
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
]


@contextlib.contextmanager
def served(folder, cells):
    """Address of a JupyterLab that serves one notebook with these code cells; stopped afterwards."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(c) for c in cells])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3 (ipykernel)", "language": "python"}
    nbformat.write(notebook, folder / "page.ipynb")
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    command = [
        sys.executable,
        "-m",
        "jupyterlab",
        "--no-browser",
        "--allow-root",
        f"--port={port}",
        "--ip=127.0.0.1",
        "--IdentityProvider.token=",
        f"--ServerApp.root_dir={folder}",
        "--LabApp.news_url=None",
        "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
        "--LabApp.expose_app_in_browser=True",
    ]
    settings = folder / "settings" / "@jupyterlab" / "apputils-extension"
    settings.mkdir(parents=True)
    # without it a question covers the page
    (settings / "notification.jupyterlab-settings").write_text('{"fetchNews": "false"}')
    (folder / "config").mkdir()
    # the server, too, stays on this machine
    (folder / "config" / "jupyter_server_config.py").write_text(guard.start_line())
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "JUPYTER_CONFIG_DIR": str(folder / "config"),
        "CGI_ROOT": str(folder),
        "JUPYTERLAB_WORKSPACES_DIR": str(folder / "workspaces"),
        "CGI_SYNC": "0",
        "JUPYTERLAB_SETTINGS_DIR": str(folder / "settings"),
    }
    with open(folder / "lab.log", "w") as log:
        server = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log, start_new_session=True)
        try:
            wait_for(f"http://127.0.0.1:{port}/api", folder / "lab.log")
            yield f"http://127.0.0.1:{port}/lab/tree/page.ipynb"
        finally:
            os.killpg(server.pid, signal.SIGTERM)  # the kernels, too
            try:
                server.wait(5)
            except subprocess.TimeoutExpired:
                os.killpg(server.pid, signal.SIGKILL)
                server.wait()


def wait_for(address, log, seconds=60):
    """Until the server answers; its log if it does not."""
    for _ in range(seconds * 4):
        try:
            urllib.request.urlopen(address, timeout=2).close()
            return
        except OSError:
            time.sleep(0.25)
    raise AssertionError(log.read_text()[-2000:])


@pytest.fixture
def open_lab(tmp_path):
    """`open_lab(cells)`: a page on which all cells of a notebook were run.
    Without a Chromium: skipped, on CI a failure."""
    if CHROMIUM is None:
        if os.environ.get("CI"):
            pytest.fail("CI must have chromium: .ci/run installs it")
        pytest.skip("no chromium found: install it to drive JupyterLab in a browser")
    from playwright.sync_api import sync_playwright

    with contextlib.ExitStack() as stack:

        def start(cells):
            address = stack.enter_context(served(tmp_path, cells))
            # a reader has scroll bars
            browser = stack.enter_context(sync_playwright()).chromium.launch(
                executable_path=CHROMIUM, args=FLAGS, ignore_default_args=["--hide-scrollbars"]
            )
            page = browser.new_page(viewport={"width": 1280, "height": 800})
            page.set_default_timeout(60_000)  # milliseconds
            page.goto(address)
            page.get_by_text("Python 3 (ipykernel) | Idle").wait_for(timeout=90_000)
            page.keyboard.press("Control+b")  # the sidebar is closed, as the page is laid out for
            page.locator(".jp-Notebook").click()
            page.get_by_role("menuitem", name="Run", exact=True).click()
            page.get_by_text("Run All Cells", exact=True).click()
            return page

        yield start


@pytest.fixture
def until():
    """`until(read, accept)`: poll `read` until `accept` likes its value, which is returned."""

    def poll(read, accept, seconds=30):
        for _ in range(seconds * 10):
            value = read()
            if accept(value):
                return value
            time.sleep(0.1)
        raise AssertionError(f"nothing acceptable within {seconds} s; the last value was {value!r}")

    return poll
