"""python tests/browser/film.py GIF: film a hole being drawn and filled, in a real JupyterLab, for the README."""

import contextlib
import io
import re
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from PIL import Image  # noqa: E402
from playwright.sync_api import sync_playwright  # noqa: E402

from conftest import CHROMIUM, FLAGS, ROOT, served  # noqa: E402

CELLS = [
    "from cgi_helpers import data\nfrom cgi_helpers.pipeline import stages\nfrom cgi_helpers.lab import LiveLab",
    "session = stages.start('laptop', device='cpu')\n"
    "session.data = data.load('fashion_mnist', limit={'train': 1000, 'validation': 200, 'test': 400})",
    "lab = LiveLab(session)\nlab",
]
STROKES = [[(12, 44), (30, 36), (52, 42)], [(40, 22), (48, 34)]]  # pixels of the image
WIDTH, COLOURS = 825, 256
SHORT, LONG = 90, 1800  # milliseconds of a frame; of the last one


class Film:
    """Screenshots of one element, kept when they differ."""

    def __init__(self, element):
        self.element, self.frames = element, []

    def shoot(self, milliseconds=SHORT):
        picture = Image.open(io.BytesIO(self.element.screenshot())).convert("RGB")
        size = WIDTH, round(picture.height * WIDTH / picture.width)
        sheet = Image.new("RGB", self.frames[0][0].size if self.frames else size, "white")  # tabs differ in height
        sheet.paste(picture.resize(size, Image.Resampling.LANCZOS))
        picture = sheet
        if self.frames and self.frames[-1][0].tobytes() == picture.tobytes():
            self.frames[-1][1] += milliseconds
        else:
            self.frames.append([picture, milliseconds])

    def save(self, path):
        """One palette for all frames, so that only what moves is stored."""
        # few pixels are red, but those matter
        palette = self.frames[-1][0].quantize(COLOURS, Image.Quantize.MAXCOVERAGE)
        frames = [picture.quantize(palette=palette, dither=Image.Dither.NONE) for picture, _ in self.frames]
        frames[0].save(
            path, save_all=True, append_images=frames[1:], duration=[t for _, t in self.frames], loop=0, optimize=True
        )


def main(path):
    folder = Path(tempfile.mkdtemp())
    (folder / "data").mkdir()
    (folder / "data" / "pretrained").symlink_to(ROOT / "data" / "pretrained")
    with contextlib.ExitStack() as stack:
        address = stack.enter_context(served(folder, CELLS))
        browser = stack.enter_context(sync_playwright()).chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        page.goto(address)
        page.get_by_text("Python 3 (ipykernel) | Idle").wait_for(timeout=90_000)
        page.keyboard.press("Control+b")
        page.locator(".jp-Notebook").click()
        page.get_by_role("menuitem", name="Run", exact=True).click()
        page.get_by_text("Run All Cells", exact=True).click()
        lab = page.locator(".cgi-lab").first
        lab.get_by_text("Done in").wait_for(timeout=90_000)
        lab.evaluate("e => e.scrollIntoView({block: 'start'})")
        # there is more to see than from the encoder's answer
        lab.locator("select", has=page.locator("option", has_text=re.compile(r"random\sstart"))).first.select_option(
            "random start"
        )
        lab.get_by_role("button", name="Clear", exact=True).click()
        lab.get_by_text("There is no hole").wait_for()
        film, canvas = Film(lab), lab.locator("canvas").bounding_box()
        film.shoot(1200)
        for stroke in STROKES:
            for i, (x, y) in enumerate(stroke):
                page.mouse.move(
                    canvas["x"] + x / 64 * canvas["width"], canvas["y"] + y / 64 * canvas["height"], steps=6
                )
                page.mouse.down() if i == 0 else film.shoot(2 * SHORT)
            page.mouse.up()
            lab.get_by_text("Done in").wait_for(state="hidden")
            while not lab.get_by_text("Done in").count():
                film.shoot()
            film.shoot(LONG)
        lab.get_by_role("tab", name="Diversity").click()
        lab.get_by_text("from z 8").wait_for()
        lab.get_by_text("Done in").wait_for()
        film.shoot(2 * LONG)
    film.save(path)
    print(f"{len(film.frames)} frames, {Path(path).stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main(*sys.argv[1:])
