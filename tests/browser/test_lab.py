"""A slider of `explore` in a real JupyterLab, moved by keyboard in a real browser; the picture must follow."""

import base64
import hashlib
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).resolve().parents[2]
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync"]
CELLS = ["from matplotlib.figure import Figure\nfrom cgi_helpers.lab import explore",
         "def draw(level=3, name='a'):\n"
         "    if name == 'bad':\n        raise ValueError('this name is bad')\n"
         "    figure = Figure(figsize=(3, 2))\n    figure.subplots().bar([0], [level])\n    return figure",
         "page = explore(draw, level=(1, 9), name=['a', 'bad'])\npage"]

pytestmark = pytest.mark.browser


@pytest.fixture
def lab(tmp_path):
    """Address of a JupyterLab that serves one notebook with CELLS; stopped afterwards."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(c) for c in CELLS])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3 (ipykernel)", "language": "python"}
    nbformat.write(notebook, tmp_path / "page.ipynb")
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", f"--port={port}", "--ip=127.0.0.1",
               "--IdentityProvider.token=", f"--ServerApp.root_dir={tmp_path}", "--LabApp.news_url=None"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "JUPYTER_CONFIG_DIR": str(tmp_path / "config"),
                   "JUPYTERLAB_WORKSPACES_DIR": str(tmp_path / "workspaces"), "CGI_SYNC": "0"}
    with open(tmp_path / "lab.log", "w") as log:
        server = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=log, stderr=log)
        try:
            wait_for(f"http://127.0.0.1:{port}/api", tmp_path / "lab.log")
            yield f"http://127.0.0.1:{port}/lab/tree/page.ipynb"
        finally:
            server.terminate()
            server.wait(20)


def wait_for(address, log, seconds=60):
    """Until the server answers; its log if it does not."""
    for _ in range(seconds * 4):
        try:
            urllib.request.urlopen(address, timeout=2).close()
            return
        except OSError:
            time.sleep(0.25)
    raise AssertionError(log.read_text()[-2000:])


def picture(page):
    """Digest of the picture that the page shows now, or None."""
    source = page.evaluate("""async () => {
        const image = document.querySelector('img.jupyter-widgets.widget-image, .widget-image');
        if (!image || !image.src || !image.naturalWidth) return null;
        const bytes = new Uint8Array(await (await fetch(image.src)).arrayBuffer());
        return btoa(String.fromCharCode(...bytes));
    }""")
    return hashlib.sha256(base64.b64decode(source)).hexdigest() if source else None


def until(read, accept, seconds=30):
    """Poll `read` until `accept` likes its value."""
    for _ in range(seconds * 5):
        value = read()
        if accept(value):
            return value
        time.sleep(0.2)
    raise AssertionError(f"nothing acceptable within {seconds} s; the last value was {value!r}")


def test_a_slider_moved_by_keyboard_changes_the_picture_and_errors_are_shown(lab):
    if CHROMIUM is None:
        if os.environ.get("CI"):
            pytest.fail("CI must have chromium: .ci/run installs it")
        pytest.skip("no chromium found: install it to drive JupyterLab in a browser")
    from playwright.sync_api import sync_playwright
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        page.goto(lab)
        page.get_by_text("Python 3 (ipykernel) | Idle").wait_for(timeout=90_000)
        page.locator(".jp-Notebook").click()
        page.get_by_role("menuitem", name="Run", exact=True).click()
        page.get_by_text("Run All Cells", exact=True).click()
        handle = page.locator(".widget-slider .noUi-handle, .widget-hslider .noUi-handle").first
        handle.wait_for(timeout=90_000)
        handle.focus()
        page.keyboard.press("ArrowRight")
        first = until(lambda: picture(page), bool)
        page.keyboard.press("ArrowRight")
        second = until(lambda: picture(page), lambda now: now not in (None, first))
        page.keyboard.press("ArrowLeft")
        until(lambda: picture(page), lambda now: now == first)
        page.locator(".widget-dropdown select").select_option(label="bad")
        page.get_by_text("this name is bad").wait_for(timeout=20_000)
        page.locator(".widget-dropdown select").select_option(label="a")
        page.locator(".widget-html", has_text="this name is bad").wait_for(state="detached", timeout=20_000)
        assert picture(page) == first  # level is where it was
        if os.environ.get("CGI_SCREENSHOT"):
            page.screenshot(path=os.environ["CGI_SCREENSHOT"])
        browser.close()
