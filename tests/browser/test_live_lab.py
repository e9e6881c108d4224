"""The live lab in a real JupyterLab: shipped weights, real mouse, keyboard, files;
the page must show what the package computes.

The images are the bundled sample's, so that no data set is needed.
"""

import io
import os
import re
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from cgi_helpers import data
from cgi_helpers.lab import views
from cgi_helpers.lab.engine import Engine
from cgi_helpers.lab.recipe import default_recipe, to_bytes
from cgi_helpers.method.masks import center_mask
from cgi_helpers.pipeline.artifacts import ROOT
from cgi_helpers.pipeline.session import start
from cgi_helpers.plots import HOLE

CELLS = [
    "from cgi_helpers import data\nfrom cgi_helpers.pipeline import stages\nfrom cgi_helpers.lab import LiveLab",
    "session = stages.start('laptop', device='cpu')\n"
    "session.data = data.load('fashion_mnist', limit={'train': 1000, 'validation': 200, 'test': 400})",
    "lab = LiveLab(session)\nlab",
]
BLUE = [int(HOLE[i : i + 2], 16) for i in (1, 3, 5)]

pytestmark = [pytest.mark.browser, pytest.mark.slow]


class Page:
    """What a person sees and does on the live lab."""

    def __init__(self, page, until):
        self.page, self.until, self.lab = page, until, page.locator(".cgi-lab").first
        self.lab.wait_for(timeout=90_000)

    def status(self):
        return self.lab.locator('[role="status"]').first.inner_text()

    def says(self, text):
        return self.until(self.status, lambda now: text in now)

    def notes(self, text):
        """Wait for a notice."""
        return self.until(
            lambda: " ".join(self.lab.locator('[role="alert"]').all_inner_texts()), lambda now: text in now
        )

    def pixels(self, title):
        """The picture under a title, as the browser has it."""
        figure = self.lab.locator("figure:visible", has=self.page.get_by_text(title, exact=True)).first
        return views.pixels_of(figure.locator("img").get_attribute("src"))

    def becomes(self, title, accept):
        return self.until(
            lambda: self.pixels(title) if self.shows(title) else None, lambda x: x is not None and accept(x)
        )

    def shows(self, title):
        return self.lab.locator("figcaption:visible", has_text=title).count() > 0

    def button(self, name):
        # an icon may stand before it
        self.lab.locator("button:visible", has_text=re.compile(f"^\\s*{name}$")).first.click()

    def knob(self, name):
        """The row of a slider, by its label."""
        return self.lab.locator(".cgi-number:visible", has=self.page.get_by_text(name, exact=True)).first

    def type_number(self, name, value):
        field = self.knob(name).locator("input[type=number]")
        field.click()
        field.fill(str(value))
        field.press("Enter")

    def menu(self, option):
        """The menu that offers an option (ipywidgets writes its spaces as no-break spaces)."""
        text = re.compile("^" + option.replace(" ", r"\s") + "$")
        return self.lab.locator("select", has=self.page.locator("option", has_text=text)).first

    def drag(self, *points):
        """Draw on the canvas with the mouse through points in pixels of the image."""
        self.lab.locator("canvas").scroll_into_view_if_needed()
        box = self.lab.locator("canvas").bounding_box()
        for i, (x, y) in enumerate(points):
            self.page.mouse.move(box["x"] + x / 64 * box["width"], box["y"] + y / 64 * box["height"], steps=4)
            if i == 0:
                self.page.mouse.down()
        self.page.mouse.up()

    def choose(self, name, file, content):
        with self.page.expect_file_chooser() as chooser:
            self.lab.get_by_role("button", name=name, exact=True).click()
        chooser.value.set_files({"name": file, "mimeType": "application/octet-stream", "buffer": content})

    def hole(self):
        """(64, 64) bool: what the `input` picture shows as missing."""
        return (self.pixels("input").transpose(1, 2, 0) == BLUE).all(-1)

    def fits(self):
        """All that is visible of the page lies in Lab's document area, scrolled to the page's top; nothing is cut at
        the right or scrolls inside the page; no text is smaller than 14 pixels."""
        self.lab.evaluate("e => e.scrollIntoView({block: 'start'})")
        out = self.lab.evaluate("""lab => {
            const area = lab.closest('.jp-Notebook').getBoundingClientRect(), right = lab.getBoundingClientRect().right;
            return [lab, ...lab.querySelectorAll('button, select, input, canvas, img, svg, .cgi-note, .cgi-title')]
                .map(node => [node, node.getBoundingClientRect()]).filter(([node, box]) => box.width)
                .filter(([node, box]) =>
                    box.top < area.top - 1 || box.bottom > area.bottom + 1 || box.right > right + 1)
                .map(([node, box]) => `${node.className || node.nodeName} ${node.textContent.slice(0, 30)}: `
                                      + `${box.top} to ${box.bottom}, right ${box.right} in `
                                      + `${area.top} to ${area.bottom}, right ${right}`);
        }""")
        assert out == [], "\n".join(out)
        scrolled = self.lab.evaluate("""lab => [...lab.querySelectorAll('*')]
            .filter(node => /auto|scroll/.test(getComputedStyle(node).overflowX))
            .filter(node => node.scrollWidth > node.clientWidth + 1)
            .map(node => `${node.className}: ${node.scrollWidth} in ${node.clientWidth}`)""")
        assert scrolled == [], "\n".join(scrolled)
        small = self.lab.evaluate("""lab => [...lab.querySelectorAll('*')]
            .filter(node => node.getBoundingClientRect().width)
            .filter(node => [...node.childNodes].some(child => child.nodeType === 3 && child.data.trim()))
            .filter(node => parseFloat(getComputedStyle(node).fontSize) < 14)
            .map(node => node.outerHTML.slice(0, 200))""")
        assert small == [], "\n".join(small)

    def picture(self, name):
        """Leave a screenshot in both themes where CGI_SCREENSHOTS says."""
        if not os.environ.get("CGI_SCREENSHOTS"):
            return
        for light, theme in ((False, "JupyterLab Dark"), (True, "JupyterLab Light")):
            self.page.evaluate("theme => window.jupyterapp.commands.execute('apputils:change-theme', {theme})", theme)
            self.page.locator(f'body[data-jp-theme-light="{str(light).lower()}"]').wait_for(state="attached")
            self.page.wait_for_timeout(700)  # milliseconds, until the colours have arrived
            self.lab.evaluate("e => e.scrollIntoView({block: 'start'})")
            self.page.screenshot(path=f"{os.environ['CGI_SCREENSHOTS']}/{name}-{'light' if light else 'dark'}.png")


@pytest.fixture
def direct(monkeypatch):
    """`direct(recipe changes)`: the refined bytes computed here, without a page."""
    monkeypatch.delenv("CGI_ROOT")
    session = start("laptop", device="cpu", progress=False)
    session.data = data.load("fashion_mnist", limit={"train": 1000, "validation": 200, "test": 400})
    engine = Engine(session)
    return lambda **changes: to_bytes(engine.run(replace(default_recipe(session), **changes)).refined[0])


def close(a, b):
    """Equal but for the last grey level, in which another number of threads may round differently."""
    return a.shape == b.shape and np.abs(a.astype(int) - b.astype(int)).max() <= 1


def test_the_live_lab_does_what_it_says(open_lab, until, direct, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "pretrained").symlink_to(ROOT / "data" / "pretrained")
    page = Page(open_lab(CELLS), until)

    # it starts by itself and ends with the pixels that the package computes
    page.says("Done")
    assert close(page.pixels("refined"), direct())
    assert np.array_equal(page.hole(), center_mask(64)[0, 0].numpy() == 0)
    page.fits()
    page.picture("inpaint")

    # a slider by keyboard, and a number typed
    handle = page.knob("refinement steps").locator(".noUi-handle")
    handle.focus()
    page.page.keyboard.press("ArrowRight")
    page.becomes("refined", lambda x: close(x, direct(steps=21)))
    page.type_number("refinement steps", 20)
    page.becomes("refined", lambda x: close(x, direct()))
    page.type_number("iterations", 25)  # stays 25
    page.says("Done in")
    page.becomes("refined", lambda x: close(x, direct(iterations=25)))
    page.type_number("iterations", 100)
    page.says("100 search iterations")

    # step through the run
    until(lambda: page.lab.get_by_label("frame", exact=True).is_enabled(), bool)
    page.lab.get_by_label("frame", exact=True).focus()
    page.page.keyboard.press("Home")
    page.becomes("filled by the search", lambda x: not close(x, direct()))
    page.lab.get_by_text("iter. 0", exact=False).first.wait_for()
    page.lab.get_by_role("button", name="Play", exact=True).click()
    page.becomes("refined", lambda x: close(x, direct()))

    # a knob moved while it plays: the new run's last picture stays
    page.lab.get_by_role("button", name="Play", exact=True).click()
    page.becomes("filled by the search", lambda x: not close(x, direct()))
    page.type_number("refinement steps", 21)
    page.becomes("refined", lambda x: close(x, direct(steps=21)))
    page.says("Done")
    page.page.wait_for_timeout(500)  # milliseconds, in which a late tick would show
    assert close(page.pixels("refined"), direct(steps=21))
    page.type_number("refinement steps", 20)

    # draw, erase, undo, clear, a rectangle by keyboard
    page.drag((4, 8), (60, 8))
    until(page.hole, lambda h: h[8, 5:59].all() and h[16:48, 16:48].all() and h.sum() > 32 * 32 + 300)
    assert page.menu("drawn").input_value() == "drawn"
    drawn = page.hole()
    page.button("Erase")
    page.drag((32, 40), (32, 24))
    until(page.hole, lambda h: not h[26:38, 32].any() and h[20, 20])
    page.button("Undo")
    until(page.hole, lambda h: np.array_equal(h, drawn))
    page.says("Done")
    page.picture("drawn")
    page.button("Clear")
    page.says("There is no hole: draw one")
    page.picture("no-hole")
    for name, value in {"left": 40, "top": 10, "width": 20, "height": 30}.items():
        page.lab.get_by_label(name, exact=True).fill(str(value))
    page.lab.get_by_label("height", exact=True).press("Enter")
    expected = np.zeros((64, 64), bool)
    expected[10:40, 40:60] = True
    until(page.hole, lambda h: np.array_equal(h, expected))
    page.says("Done")

    # an own picture, and files that are none
    own, out = np.zeros((128, 128), np.uint8), io.BytesIO()
    own[20:108, 30:98] = 200
    Image.fromarray(own).save(out, "PNG")
    page.choose("Upload", "mine.png", out.getvalue())
    page.becomes("original", lambda x: np.array_equal(x[0], own[::2, ::2]))
    page.choose("Upload", "big.png", b"no picture" * 1_200_000)  # 12 MB: more than one message may hold
    page.notes("big.png is not a picture that can be read")
    page.fits()
    page.picture("notice")
    page.menu("any class").select_option("any class")  # the way back
    page.becomes("original", lambda x: not np.array_equal(x[0], own[::2, ::2]))
    page.menu("your picture").select_option("your picture")
    page.becomes("original", lambda x: np.array_equal(x[0], own[::2, ::2]))

    # stop, and go on
    page.type_number("iterations", 1000)
    page.says("Search:")
    page.button("Stop")
    page.says("Stopped")
    page.picture("stopped")
    page.type_number("iterations", 20)
    page.says("Done")

    # save, and load what was saved
    page.button("Save")
    page.notes("Saved in")
    page.fits()
    page.picture("saved")
    saved = until(lambda: sorted((tmp_path / "artifacts" / "laptop" / "lab").glob("*.json")), bool)[0]
    final = page.pixels("refined")
    assert np.array_equal(np.asarray(Image.open(saved.with_suffix(".png"))), final[0])
    page.button("Defaults")
    page.becomes("refined", lambda x: close(x, direct()))
    page.choose("Load recipe", "saved.json", saved.read_bytes())
    page.becomes("refined", lambda x: np.array_equal(x, final))

    # the other pages
    for index, title in enumerate(("D shaped 2 epochs", "spread", "D shaped 2"), 1):
        page.lab.locator(".lm-TabBar-tab").nth(index).click()
        until(lambda: page.shows(title), bool)
        page.says("Done")
        page.fits()
        page.picture(f"tab{index}")

    # the kernel is restarted under the live page
    page.lab.locator(".lm-TabBar-tab").nth(0).click()
    page.page.get_by_role("menuitem", name="Kernel", exact=True).click()
    page.page.get_by_text("Restart Kernel…", exact=True).first.click()
    page.page.get_by_role("button", name="Confirm Kernel Restart").click()
    until(lambda: page.lab.locator(".cgi-message").first.inner_text(), lambda text: "kernel was restarted" in text)
    banner = page.lab.evaluate("e => getComputedStyle(e, '::before').content")
    assert "The kernel was restarted or has ended" in banner
    page.picture("restarted")
