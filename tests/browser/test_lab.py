"""A slider of `explore` in a real JupyterLab, moved by keyboard in a real browser; the picture must follow."""

import base64
import hashlib
import os

import pytest

CELLS = [
    "from matplotlib.figure import Figure\nfrom cgi_helpers.lab import explore",
    "def draw(level=3, name='a'):\n"
    "    if name == 'bad':\n        raise ValueError('this name is bad')\n"
    "    figure = Figure(figsize=(3, 2))\n    figure.subplots().bar([0], [level])\n    return figure",
    "page = explore(draw, level=(1, 9), name=['a', 'bad'])\npage",
]

pytestmark = pytest.mark.browser


def picture(page):
    """Digest of the picture that the page shows now, or None."""
    source = page.evaluate("""async () => {
        const image = document.querySelector('img.jupyter-widgets.widget-image, .widget-image');
        if (!image || !image.src || !image.naturalWidth) return null;
        const bytes = new Uint8Array(await (await fetch(image.src)).arrayBuffer());
        return btoa(String.fromCharCode(...bytes));
    }""")
    return hashlib.sha256(base64.b64decode(source)).hexdigest() if source else None


def test_a_slider_moved_by_keyboard_changes_the_picture_and_errors_are_shown(open_lab, until):
    page = open_lab(CELLS)
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
    page.get_by_text("ValueError: this name is bad").wait_for(timeout=20_000)
    page.locator(".widget-dropdown select").select_option(label="a")
    page.locator(".widget-html", has_text="this name is bad").wait_for(state="detached", timeout=20_000)
    assert picture(page) == first  # level is where it was
    if os.environ.get("CGI_SCREENSHOT"):
        page.screenshot(path=os.environ["CGI_SCREENSHOT"])
