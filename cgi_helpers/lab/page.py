"""The live lab: choose or draw a hole, turn a knob, watch search and refinement fill it.

Callbacks only read the controls and ask the worker; the worker's thread computes and shows. Everything shown passes one
lock with the number of the newest request, so that nothing old appears after something new.
"""

import base64
import contextlib
import hashlib
import html
import os
import random
import threading
import time

import ipywidgets as widgets

from ..artifacts import atomic_write
from ..data import CLASSES
from ..masks import MASKS, named_mask
from ..runtime import generator
from . import recipe as recipes
from . import views
from .engine import Engine
from .knobs import lambda_marks, make_knobs
from .painter import Painter
from .picker import FilePicker
from .screen import Screen
from .upload import read_image
from .worker import Worker

INTERVAL = 0.07          # seconds between frames shown: 14 a second
COMPLETIONS = 8          # of the diversity screen
OWN, DRAWN = "your picture", "drawn"
TABS = ("Inpaint", "Compare", "Diversity", "Look into D")
PAGES = ("inpaint", "compare", "diversity", "look")
BAR = dict(align_items="center")


def _button(text, hint, action, **options):
    button = widgets.Button(description=text, tooltip=hint, layout=widgets.Layout(width="auto", flex="0 0 auto"), **options)
    button.on_click(lambda _: action())
    return button


class LiveLab(widgets.VBox):
    """The whole page. `synchronous` (or CGI_SYNC=1): compute inside callbacks, without a thread (papermill, nbval, Colab).

    `recipe`: what it starts with, by default the preset's best search and per-image refinement; `start`: run it at once.
    """

    def __init__(self, session, recipe=None, synchronous=None, start=True):
        if synchronous is None:
            synchronous = os.environ.get("CGI_SYNC") == "1"
        self.session, self.engine, self.worker = session, Engine(session), Worker(synchronous)
        self.lock, self.generation, self.quiet = threading.RLock(), 0, threading.local()
        self.run, self.picture, self.saved = None, "", None
        self.first_frame = None   # seconds from the last request to its first frame
        self.runs_started = 0
        recipe = recipe or recipes.default_recipe(session)
        super().__init__([self._build(recipe)], layout=widgets.Layout(max_width="1160px"))
        self.add_class("cgi-lab")
        self.set_recipe(recipe, run=start)

    # --- building

    def _build(self, recipe):
        self.status = widgets.HTML(layout=widgets.Layout(min_height="28px"))
        self.screens = {"inpaint": Screen(columns=2, side=178), "compare": Screen(columns=5, side=176),
                        "diversity": Screen(columns=5, side=176), "look": Screen(columns=7, side=140)}
        self.curves = Screen(empty="")
        self.knobs = make_knobs(self.session, recipe)
        for knob in self.knobs.values():
            knob.observe(lambda change: self.ask(), names="value")
        inpaint = widgets.HBox([self._source(), self._middle(), self._right()], layout=widgets.Layout(grid_gap="12px"))
        explained = {"compare": "The same hole and the same search result, refined with every stored discriminator.",
                     "diversity": f"{COMPLETIONS} completions of the same hole, each searched and refined from its own random z.",
                     "look": "Where each discriminator's gradient asks for change (darkest: most, each map by its own scale)."}
        others = [widgets.VBox([widgets.HTML(f"<p style='font-size:15px;margin:4px 0'>{text}</p>"), self.screens[name]])
                  for name, text in explained.items()]
        self.tabs = widgets.Tab([inpaint, *others], titles=TABS)
        self.tabs.observe(lambda change: self.ask(), names="selected_index")
        style = widgets.HTML("<style>.cgi-lab .widget-label, .cgi-lab .jupyter-button, .cgi-lab .widget-readout, .cgi-lab select,"
                             " .cgi-lab input, .cgi-lab .widget-html-content { font-size: 14px }"
                             " .cgi-lab .lm-TabBar-tabLabel { font-size: 15px } .cgi-lab .widget-inline-hbox { margin: 0 2px }"
                             " .cgi-lab.jupyter-widgets-disconnected::before { content: 'The kernel was restarted or has ended: run the"
                             " notebook\\'s cells again.'; font: 600 16px var(--jp-ui-font-family); padding: 6px; border-left: 4px solid"
                             " #d55e00; color: var(--jp-ui-font-color1) }"
                             " .cgi-lab .jupyter-widgets-disconnected::before { display: none }</style>", layout=widgets.Layout(display="none"))
        return widgets.VBox([style, self.status, self.tabs])

    def _source(self):
        p = self.session.preset
        wide = dict(layout=widgets.Layout(width="138px"))
        self.label = widgets.Dropdown(options=["any class", *CLASSES, OWN], tooltip="Show a test image of this class.", **wide)
        self.number = widgets.BoundedIntText(value=0, min=0, max=self._guarded(lambda: len(self.session.data["test"]) - 1) or 0,
                                             tooltip="Number of the test image.", layout=widgets.Layout(width="76px"))
        self.upload = FilePicker(lambda name, content: self._guarded(lambda: self.take_picture(name, content)), self._say,
                                 label="Upload", accept=".png,.jpg,.jpeg",
                                 hint="A PNG or JPEG of any size; it is made grey and small, as the networks see it.")
        self.hole = widgets.Dropdown(options=[*MASKS, DRAWN], tooltip="A named hole, or draw one on the image below.", **wide)
        self.painter = Painter(size=p.size, shown=256)
        self.label.observe(lambda change: self._guarded(self._choose_class), names="value")
        self.number.observe(lambda change: self._guarded(self._choose_number), names="value")
        self.hole.observe(lambda change: self._guarded(self._choose_hole), names="value")
        self.painter.observe(lambda change: self._guarded(self._take_drawing), names="hole")
        at_random = _button("Random", "Show a random test image of the chosen class.", lambda: self._guarded(self._choose_random))
        text = lambda t: widgets.HTML(f"<b>{t}</b>", layout=widgets.Layout(width="50px"))  # noqa: E731
        return widgets.VBox([widgets.HBox([text("image"), self.label, self.number], layout=widgets.Layout(**BAR)),
                             widgets.HBox([at_random, self.upload], layout=widgets.Layout(padding="0 0 0 50px", **BAR)),
                             widgets.HBox([text("hole"), self.hole], layout=widgets.Layout(**BAR)), self.painter],
                            layout=widgets.Layout(width="276px", flex="0 0 auto"))

    def _middle(self):
        self.start = _button("Run", "Search, then refine, with the present knobs.", self.ask, button_style="primary", icon="play")
        self.halt = _button("Stop", "Stop within one iteration; what was computed stays.", self.stop, icon="stop")
        self.play = widgets.Play(interval=90, min=0, max=0, value=0, show_repeat=False, disabled=True)
        self.frame = widgets.IntSlider(min=0, max=0, value=0, description="frame", disabled=True, style={"description_width": "44px"},
                                       tooltip="Step through the run: search iterations, then refinement steps.",
                                       layout=widgets.Layout(width="240px"))
        widgets.jslink((self.play, "value"), (self.frame, "value"))
        self.frame.observe(lambda change: self._guarded(self._step_to), names="value")
        return widgets.VBox([widgets.HBox([self.start, self.halt], layout=widgets.Layout(**BAR)), self.screens["inpaint"],
                             widgets.HBox([self.play, self.frame], layout=widgets.Layout(**BAR))],
                            layout=widgets.Layout(width="398px", flex="0 0 auto"))

    def _right(self):
        self.loader = FilePicker(lambda name, content: self._guarded(lambda: self.take_recipe(content)), self._say,
                               label="Load recipe", accept=".json", hint="A .json file that this page saved.")
        save = _button("Save", "Save the shown picture as PNG and everything that it depends on as JSON.",
                       lambda: self._guarded(self.save), icon="save")
        reset = _button("Defaults", "All knobs, image and hole as at the beginning.",
                        lambda: self.set_recipe(recipes.default_recipe(self.session)))
        self.links = widgets.HTML(layout=widgets.Layout(display="none"))
        rows = []
        for name, knob in self.knobs.items():
            rows += [knob] + ([lambda_marks(knob)] if name == "lam" else [])
        return widgets.VBox([*rows, widgets.HBox([save, self.loader, reset], layout=widgets.Layout(**BAR)), self.links, self.curves],
                            layout=widgets.Layout(width="366px", flex="0 0 auto"))

    # --- what the controls say

    def recipe(self):
        """The recipe that the controls describe."""
        hole = self.hole.value if self.hole.value != DRAWN else recipes.hole_text(self.painter.mask)
        return recipes.Recipe(image=self.number.value, picture=self.picture, hole=hole,
                              **{name: knob.value for name, knob in self.knobs.items()})

    def set_recipe(self, recipe, run=True):
        """Set every control to `recipe`; one run, not one per control."""
        def everything():
            with self._hold():
                self.picture, self.number.value = recipe.picture, recipe.image
                for name, knob in self.knobs.items():
                    knob.value = getattr(recipe, name)
                named = recipe.hole in MASKS
                self.hole.value = recipe.hole if named else DRAWN
                self.painter.set_mask((recipes.hole_mask(recipe, self.session)).cpu())
                self._show_source()
            return True
        if self._guarded(everything) and run:
            self.ask()

    @property
    def held(self):
        """True while this very thread sets controls itself: then their changes ask for nothing (another thread's still do)."""
        return getattr(self.quiet, "held", False)

    @contextlib.contextmanager
    def _hold(self):
        with self.lock:
            before, self.quiet.held = self.held, True
            try:
                yield
            finally:
                self.quiet.held = before

    def _choose_class(self):
        if self.held or self.label.value in ("any class", OWN):
            return
        labels = self.session.data["test"].labels
        self.number.value = int((labels == CLASSES.index(self.label.value)).nonzero()[0])

    def _choose_random(self):
        labels = self.session.data["test"].labels
        among = range(len(labels))
        if self.label.value in CLASSES:
            among = (labels == CLASSES.index(self.label.value)).nonzero()[:, 0].tolist()
        self.picture = ""
        self.number.value = random.choice([i for i in among if i != self.number.value] or among)

    def _choose_number(self):
        if self.held:
            return
        self.picture = ""
        self._show_source()
        self.ask()

    def _show_source(self):
        self.painter.set_image(recipes.target(self.recipe_of_image(), self.session).cpu())
        with self._hold():
            self.label.value = OWN if self.picture else CLASSES[int(self.session.data["test"].labels[self.number.value])]

    def recipe_of_image(self):
        """The default recipe with the present image."""
        return recipes.Recipe(**{**vars(recipes.default_recipe(self.session)), "image": self.number.value, "picture": self.picture})

    def _choose_hole(self):
        if self.held or self.hole.value == DRAWN:
            return
        p = self.session.preset
        with self._hold():
            self.painter.set_mask(named_mask(self.hole.value, p.size, generator(self.session.seed, self.hole.value)))
        self.ask()

    def _take_drawing(self):
        if self.held:
            return
        with self._hold():
            self.hole.value = DRAWN
        self.ask()

    def take_picture(self, name, content):
        """Use an own picture (bytes of a PNG or JPEG) instead of a test image; ValueError in one sentence if it is none."""
        p = self.session.preset
        x, note = read_image(content, name, p.size, p.channels)
        self.picture = recipes.picture_text(x)
        self._show_source()
        self.ask(note)

    def take_recipe(self, content):
        """Set all controls as a saved recipe (bytes of its JSON) says, and run it."""
        recipe, note = recipes.parse(content.decode("utf-8", "replace"), self.session)
        self.set_recipe(recipe, run=False)
        self.ask(note)

    # --- asking the worker

    def ask(self, note=""):
        """Cancel what runs and compute what the open tab shows, with the newest values."""
        if self.held:
            return
        page = PAGES[self.tabs.selected_index or 0]
        recipe = self._guarded(self.recipe)
        if recipe is None:
            return
        with self.lock:
            self.generation += 1
            mine = self.generation
        self._say("Computing ...")
        asked = time.perf_counter()
        self.worker.submit(lambda cancel: self._work(page, recipe, mine, cancel, asked, note))

    def stop(self):
        """Stop what runs; the frames computed so far can be replayed."""
        busy = self.worker.busy
        self.worker.stop()
        if not busy:
            self._say("Nothing is running.")

    def _work(self, page, recipe, mine, cancel, asked, note):
        self.runs_started += 1
        try:
            done = getattr(self, f"_page_{page}")(recipe, mine, cancel, asked)
            text = done or "Stopped; press Run to go on with the present knobs."
        except Exception as error:  # a traceback in a thread would be lost: the reader must see what was wrong
            text = _sentence(error)
        with self.lock:
            if mine == self.generation:
                self._say(f"{text} {note}")

    def _page_inpaint(self, recipe, mine, cancel, asked):
        run, shown, self.first_frame = None, 0.0, None
        for run in self.engine.stream(recipe, cancel):
            now = time.perf_counter()
            if now - shown >= INTERVAL:
                self._show_run(run, mine, streaming=True)
                shown = now
                self.first_frame = self.first_frame or time.perf_counter() - asked
        if run is None:
            return None
        self._show_run(run, mine)
        if run.refined is None:
            return None
        last = run.frames[-1]
        kept = f", step {last.kept} kept" if recipe.steps else ""
        return f"Done in {last.seconds:.1f} s: {run.searched - 1} search iterations, {recipe.steps} refinement steps{kept}."

    def _show_run(self, run, mine, streaming=False):
        frame, total = run.frames[-1], run.recipe.iterations + run.recipe.steps + 1
        name, of = ("search", run.recipe.iterations) if frame.phase == "search" else ("refinement", run.recipe.steps)
        view = views.run_view(run, len(run.frames) - 1)
        with self.lock:
            if mine != self.generation:
                return
            self.run = run
            self._put(view)
            if streaming:
                self._say(f"{name.capitalize()}: {frame.step} of {of}, {frame.seconds:.1f} s")
            with self._hold():
                self.frame.disabled = self.play.disabled = streaming
                self.frame.max = self.play.max = total if streaming else len(run.frames) - 1
                self.frame.value = self.play.value = len(run.frames) - 1

    def _step_to(self):
        with self.lock:
            if self.held or self.run is None or self.frame.disabled:
                return
            self._put(views.run_view(self.run, min(self.frame.value, len(self.run.frames) - 1)))

    def _put(self, view):
        self.screens["inpaint"].view = {**view, "charts": ""}
        self.curves.view = {**view, "pictures": []}

    def _page_compare(self, recipe, mine, cancel, asked):
        return self._show("compare", mine, self.engine.compare(recipe, cancel), views.compare_view)

    def _page_diversity(self, recipe, mine, cancel, asked):
        return self._show("diversity", mine, self.engine.diversity(recipe, COMPLETIONS, cancel), views.diversity_view)

    def _page_look(self, recipe, mine, cancel, asked):
        return self._show("look", mine, self.engine.gradients(recipe, cancel), views.gradient_view)

    def _show(self, page, mine, result, view):
        if result is None:
            return None
        shown = view(*result)
        with self.lock:
            if mine == self.generation:
                self.screens[page].view = shown
        return "Done."

    # --- saying and saving

    def _say(self, text):
        self.status.value = f'<div role="status" style="font-size:15px">{html.escape(text)}</div>'

    def _guarded(self, action):
        """The action's result; an error becomes a sentence in the page and None."""
        try:
            return action()
        except Exception as error:  # callbacks of buttons would swallow it
            with self.lock:
                self.generation += 1
            self.worker.stop()
            self._say(_sentence(error))

    def save(self):
        """Write the shown picture (PNG) and its recipe (JSON) into the store's folder `lab`; links to both appear."""
        with self.lock:
            run, index = self.run, self.frame.value
        if run is None or run.refined is None:
            raise ValueError("There is no finished run to save yet: press Run and wait for it.")
        frame = run.frames[min(index, len(run.frames) - 1)]
        text, address = recipes.dump(run.recipe, self.session), views.url(frame.image)
        name = "live-" + hashlib.sha256(f"{text}{frame.phase}{frame.step}".encode()).hexdigest()[:8]
        folder = self.session.store.own / "lab"
        png = base64.b64decode(address.partition(",")[2])
        atomic_write(folder / f"{name}.png", lambda p: p.write_bytes(png))
        atomic_write(folder / f"{name}.json", lambda p: p.write_text(text))
        self.saved = folder / f"{name}.json"
        json_address = "data:application/json;base64," + base64.b64encode(text.encode()).decode()
        self.links.layout.display = None
        self.links.value = (f'<div style="line-height:1.3;overflow-wrap:anywhere">Saved in {html.escape(str(folder))}: <a download="{name}.png" href="{address}" style="color:'
                            f'var(--jp-content-link-color)">{name}.png</a> and <a download="{name}.json" href="{json_address}" '
                            f'style="color:var(--jp-content-link-color)">{name}.json</a></div>')


def _sentence(error):
    """An error for the page: our own say everything in their text; others are named."""
    known = isinstance(error, (ValueError, RuntimeError, FileNotFoundError)) and str(error)
    return str(error) if known else f"{type(error).__name__}: {error}"
