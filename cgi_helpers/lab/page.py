"""The live lab: choose or draw a hole, turn a knob, watch search and refinement fill it.

Callbacks only read the controls and ask the worker; the worker's thread computes and shows. Everything shown passes one
lock with the number of the newest request, so that nothing old appears after something new.
"""

import base64
import contextlib
import hashlib
import html
import random
import threading
import time
import weakref

import ipywidgets as widgets

from ..pipeline.artifacts import atomic_write
from ..data import CLASSES
from ..method.masks import MASKS, named_mask
from ..method.runtime import generator
from . import recipe as recipes
from . import views
from .engine import Engine
from .knobs import lambda_marks, make_knobs
from .painter import Painter
from .picker import FilePicker
from .player import Player
from .screen import Screen
from .upload import read_image
from .worker import Worker, synchronous_here

INTERVAL = 0.07          # seconds between frames shown: 14 a second
COMPLETIONS = 8          # of the diversity screen
ANY, OWN, DRAWN = "any class", "your picture", "drawn"
STOPPED = "Stopped; press Run to compute with the present knobs."
TABS = {"inpaint": "Inpaint", "compare": "Compare", "diversity": "Diversity", "look": "Look into D"}
EMPTY = {"pictures": [], "charts": "", "heat": ""}
ROW = dict(align_items="center")
OPEN = weakref.WeakValueDictionary()   # id of a session -> its page
STYLE = """<style>.cgi-lab .widget-label, .cgi-lab .jupyter-button, .cgi-lab .widget-readout, .cgi-lab select, .cgi-lab input,
.cgi-lab .widget-html-content { font-size: 14px } .cgi-lab .lm-TabBar-tabLabel { font-size: 15px } .cgi-lab .widget-inline-hbox { margin: 0 2px }
.cgi-lab .widget-tab-contents { padding: 8px 12px }
.cgi-lab.jupyter-widgets-disconnected::before { content: 'The kernel was restarted or has ended: run the notebook\\'s cells again.';
font: 600 16px var(--jp-ui-font-family); padding: 6px; border-left: 4px solid #d55e00; color: var(--jp-ui-font-color1) }
.cgi-lab .jupyter-widgets-disconnected::before { display: none }
.cgi-lab .cgi-notice { border-left: 4px solid #d55e00; padding-left: 6px; line-height: 1.35; overflow-wrap: anywhere }
.cgi-lab .cgi-notice a { color: var(--jp-content-link-color) }</style>"""


class LiveLab(widgets.VBox):
    """The whole page. `synchronous`: compute inside callbacks, without a thread (papermill, nbval, Colab); see `synchronous_here`.

    `recipe`: what it starts with, by default `recipe.default_recipe`; `start`: run it at once.
    A session has one page: a newer one closes the older.
    """

    def __init__(self, session, recipe=None, synchronous=None, start=True):
        if synchronous is None:
            synchronous = synchronous_here()
        older = OPEN.pop(id(session), None)
        if older is not None:
            older.close()
        self.session, self.engine, self.worker = session, Engine(session), Worker(synchronous)
        self.lock, self.generation, self.quiet = threading.RLock(), 0, threading.local()
        self.run, self.index, self.compared = None, 0, {}   # what is shown: a run and its frame; screen -> its recipe
        self.picture, self.own, self.saved = "", "", None   # the own picture shown, the last one there was; path of the last JSON
        self.first_frame = None   # seconds from the last request to its first frame
        self.runs_started = 0
        problem = None
        if recipe is None:
            try:
                recipe = recipes.default_recipe(session)
            except Exception as error:  # a damaged choice of the shaping stage: the page can do without
                recipe, problem = recipes.default_recipe(session, tuned=False), error
        super().__init__(self._build(recipe), layout=widgets.Layout(max_width="1160px"))
        self.add_class("cgi-lab")
        OPEN[id(session)] = self
        self._act(lambda: self.set_recipe(recipe, run=start), about_state=True)
        if problem:
            self._notify(_sentence(problem))

    def close(self):
        """End the worker's thread, forget networks and runs, and take all controls from the browser."""
        if self.comm is None:
            return
        with self.lock:
            self.generation += 1
        self.worker.close()
        self.engine.cache.clear()
        self.engine.nets.clear()
        self.run = None
        for widget in _parts(self, set()):
            widget.close()
        super().close()

    # --- building

    def _build(self, recipe):
        self.screens = {"inpaint": Screen(columns=2, side=190), "compare": Screen(columns=5, side=190),
                        "diversity": Screen(columns=5, side=190), "look": Screen(columns=7, side=132)}
        self.curves = Screen(empty="")
        self.knobs = make_knobs(self.session, recipe)
        for knob in self.knobs.values():
            self._on(knob, "value", self.ask)
        inpaint = widgets.HBox([self._source(recipe), self._middle(), self._right()], layout=widgets.Layout(grid_gap="12px"))
        explained = {"compare": "The same hole and the same search result, refined with every stored discriminator.",
                     "diversity": f"{COMPLETIONS} completions of the same hole, each searched and refined from its own random z.",
                     "look": "Where each discriminator's gradient asks for change (darkest: most, each map by its own scale)."}
        others = [widgets.VBox([widgets.HTML(f"<p style='font-size:15px;margin:0'>{text}</p>"), self.screens[name]])
                  for name, text in explained.items()]
        self.tabs = widgets.Tab([inpaint, *others], titles=list(TABS.values()))
        self._on(self.tabs, "selected_index", self.ask)
        self.start = _button("Run", "Search, then refine, with the present knobs.", lambda: self._act(self.ask, about_state=True),
                             button_style="primary", icon="play")
        self.halt = _button("Stop", "Stop within one iteration; what was computed stays.", lambda: self._act(self.stop), icon="stop")
        self.status = widgets.HTML()
        self.notice = widgets.HTML(layout=widgets.Layout(display="none"))
        top = widgets.HBox([self.start, self.halt, self.status], layout=widgets.Layout(min_height="32px", **ROW))
        return [widgets.HTML(STYLE, layout=widgets.Layout(display="none")), top, self.notice, self.tabs]

    def _source(self, recipe):
        p = self.session.preset
        wide = dict(layout=widgets.Layout(width="138px"))
        self.label = widgets.Dropdown(options=[ANY, *CLASSES], tooltip="Show a test image of this class.", **wide)
        self.number = widgets.BoundedIntText(value=recipe.image, min=0, max=recipe.image, tooltip="Number of the test image.",
                                             layout=widgets.Layout(width="76px"))
        self.kind = widgets.HTML(layout=widgets.Layout(flex="0 0 auto"))
        self.upload = FilePicker(lambda name, content: self._act(lambda: self.take_picture(name, content)), self._notify,
                                 label="Upload", accept=".png,.jpg,.jpeg",
                                 hint="A PNG or JPEG of any size; it is made grey and small, as the networks see it.")
        self.hole = widgets.Dropdown(options=[*MASKS, DRAWN], value=recipe.hole if recipe.hole in MASKS else DRAWN,
                                     tooltip="A named hole, or draw one on the image below.", **wide)
        self.painter = Painter(size=p.size, shown=272)
        self._on(self.label, "value", self._choose_class)
        self._on(self.number, "value", self._choose_number)
        self._on(self.hole, "value", self._choose_hole)
        self._on(self.painter, "hole", self._take_drawing)
        at_random = _button("Random", "Show a random test image of the chosen class.", lambda: self._act(self._choose_random, about_state=True))
        text = lambda t: widgets.HTML(f"<b>{t}</b>", layout=widgets.Layout(width="50px"))  # noqa: E731
        return widgets.VBox([widgets.HBox([text("image"), self.label, self.number], layout=widgets.Layout(**ROW)),
                             widgets.HBox([at_random, self.upload, self.kind], layout=widgets.Layout(**ROW)),
                             widgets.HBox([text("hole"), self.hole], layout=widgets.Layout(**ROW)), self.painter],
                            layout=widgets.Layout(width="280px", flex="0 0 auto"))

    def _middle(self):
        self.player = Player(lambda run, index: self._act(lambda: self._step_to(run, index)))
        return widgets.VBox([self.screens["inpaint"], self.player], layout=widgets.Layout(width="398px", flex="0 0 auto"))

    def _right(self):
        self.loader = FilePicker(lambda name, content: self._act(lambda: self.take_recipe(content)), self._notify,
                                 label="Load recipe", accept=".json", hint="A .json file that this page saved.")
        save = _button("Save", "Save the shown picture as PNG and everything that it depends on as JSON.", lambda: self._act(self.save), icon="save")
        reset = _button("Defaults", "All knobs, image and hole as at the beginning.",
                        lambda: self._act(lambda: self.set_recipe(recipes.default_recipe(self.session))))
        rows = []
        for name, knob in self.knobs.items():
            rows += [knob] + ([lambda_marks(knob)] if name == "lam" else [])
        return widgets.VBox([*rows, widgets.HBox([save, self.loader, reset], layout=widgets.Layout(**ROW)), self.curves],
                            layout=widgets.Layout(width="340px", flex="0 0 auto"))

    # --- what the reader does

    def _on(self, widget, name, action):
        """Do `action`, which is about the image, the hole or a knob, when the reader changes a control."""
        widget.observe(lambda change: self._act(action, about_state=True), names=name)

    def _act(self, action, about_state=False):
        """Do what the reader asked for; an error becomes a sentence in the page.

        `about_state`: it is about the present image, hole or knobs, so what runs for older ones ends. Any other error (a file that
        is no picture) is a notice, and what runs goes on.
        """
        if self.held:   # the page itself set a control
            return
        self._notify("")
        try:
            action()
        except Exception as error:  # callbacks of buttons would swallow it
            if not about_state:
                self._notify(_sentence(error))
                return
            with self.lock:
                self.generation += 1
                self.worker.stop()
                self._unlock()
                self._say(_sentence(error))

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

    # --- what the controls say

    def recipe(self):
        """The recipe that the controls describe."""
        hole = self.hole.value if self.hole.value != DRAWN else recipes.hole_text(self.painter.mask)
        return recipes.Recipe(image=self.number.value, picture=self.picture, hole=hole,
                              **{name: knob.value for name, knob in self.knobs.items()})

    def set_recipe(self, recipe, run=True, frame=None):
        """Set every control to `recipe`; one run, not one per control, which ends on `frame`. ValueError leaves the page as it is."""
        recipes.check(recipe, self.session)
        mask, _ = recipes.hole_mask(recipe, self.session), recipes.target(recipe, self.session)
        with self._hold():
            self.picture = recipe.picture
            self.number.max = len(self.session.data["test"]) - 1
            if not recipe.picture:
                self.number.value = recipe.image
            for name, knob in self.knobs.items():
                knob.value = getattr(recipe, name)
            self.hole.value = recipe.hole if recipe.hole in MASKS else DRAWN
            self.painter.set_mask(mask.cpu(), new=True)
            self.painter.tool = "brush"
            self._show_source()
        if run:
            self.ask(frame)

    def _show_source(self):
        """Show the present image and its class; a filter that it does not pass is lifted."""
        test = self.session.data["test"]
        self.painter.set_image(recipes.target(self.recipe(), self.session).cpu())
        self.own = self.picture or self.own
        name = OWN if self.picture else CLASSES[int(test.labels[self.number.value])]
        with self._hold():
            if self.own and OWN not in self.label.options:
                self.label.options = [*self.label.options, OWN]
            if self.picture or self.label.value not in (ANY, name):
                self.label.value = OWN if self.picture else ANY
            self.kind.value = f"<b>{name}</b>"

    def _show_test_image(self, number):
        self.picture = ""
        with self._hold():
            self.number.value = number
        self._show_source()
        self.ask()

    def _among(self):
        """Numbers of the test images of the chosen class (of all, where none is chosen)."""
        labels = self.session.data["test"].labels
        chosen = self.label.value
        return (labels == CLASSES.index(chosen)).nonzero()[:, 0].tolist() if chosen in CLASSES else range(len(labels))

    def _choose_class(self):
        if self.label.value == OWN:
            self.picture = self.own
            self._show_source()
            self.ask()
        else:
            among = self._among()
            self._show_test_image(self.number.value if self.number.value in among else among[0])

    def _choose_random(self):
        among = self._among()
        self._show_test_image(random.choice([i for i in among if i != self.number.value] or among))

    def _choose_number(self):
        self._show_test_image(self.number.value)

    def _choose_hole(self):
        if self.hole.value == DRAWN:
            return
        with self._hold():
            self.painter.set_mask(named_mask(self.hole.value, self.session.preset.size, generator(self.session.seed, self.hole.value)))
        self.ask()

    def _take_drawing(self):
        with self._hold():
            self.hole.value = DRAWN
        self.ask()

    def take_picture(self, name, content):
        """Use an own picture (bytes of a PNG or JPEG) instead of a test image; ValueError in one sentence if it is none."""
        p = self.session.preset
        x, note = read_image(content, name, p.size, p.channels)
        self.picture = recipes.picture_text(x)
        self._show_source()
        self.ask()
        self._notify(note)

    def take_recipe(self, content):
        """Set all controls as a saved recipe (bytes of its JSON) says, run it, and show the saved frame."""
        recipe, frame, note = recipes.parse(content, self.session)
        self.set_recipe(recipe, frame=frame)
        self._notify(note)

    # --- asking the worker

    def ask(self, frame=None):
        """Cancel what runs and compute what the open tab shows, with the newest values. `frame`: where a run ends (None: the last)."""
        if not self.painter.image:   # the data were missing when the page was made
            self.set_recipe(self.recipe(), run=False)
        with self.lock:   # one section: of two threads that ask at once, the later number must belong to the later values
            page, recipe, asked = list(TABS)[self.tabs.selected_index or 0], self.recipe(), time.perf_counter()
            self.generation += 1
            mine = self.generation
            self.player.begin()
            if self.compared.get(page, recipe) != recipe:   # nothing of another hole beside what is said of this one
                self.screens[page].view = EMPTY
            self._say("Computing ...")
            self.worker.submit(lambda cancel: self._work(page, recipe, mine, cancel, asked, frame))

    def stop(self):
        """Stop what runs; the frames computed so far can be replayed."""
        with self.lock:
            found = self.worker.stop()
            self._unlock()
            self._say(STOPPED if found else "Nothing is running.")

    def _work(self, page, recipe, mine, cancel, asked, frame):
        self.runs_started += 1
        try:
            done = self._inpaint(recipe, mine, cancel, asked, frame) if page == "inpaint" else self._side_by_side(page, recipe, mine, cancel, asked)
            text = done or STOPPED
        except Exception as error:  # a traceback in a thread would be lost: the reader must see what was wrong
            text = _sentence(error)
            with self.lock:
                if mine == self.generation and not (self.run and self.run.recipe == recipe):   # no picture of another hole beside the sentence
                    self.screens[page].view, self.curves.view = EMPTY, EMPTY
        with self.lock:
            if mine == self.generation:
                self._unlock()
                self._say(text)

    def _inpaint(self, recipe, mine, cancel, asked, frame):
        run, shown, self.first_frame = None, 0.0, None
        for run in self.engine.stream(recipe, cancel):
            now = time.perf_counter()
            if now - shown >= INTERVAL:
                self._show_run(run, mine, len(run.frames) - 1, streaming=True)
                shown = now
                self.first_frame = self.first_frame or time.perf_counter() - asked
        if run is None:
            return None
        last = len(run.frames) - 1
        self._show_run(run, mine, last if frame is None or run.refined is None else min(frame, last))
        if run.refined is None:
            return None
        kept = f", step {run.frames[-1].kept} kept" if recipe.steps else ""
        return f"Done in {run.frames[-1].seconds:.1f} s: {run.searched - 1} search iterations, {recipe.steps} refinement steps{kept}."

    def _show_run(self, run, mine, index, streaming=False):
        view = views.run_view(run, index)
        with self.lock:
            if mine != self.generation:
                return
            self.run, self.index = run, index
            self._put(view)
            if streaming:
                self._say(run.progress)
                self.player.show(index, run.recipe.iterations + run.recipe.steps + 1, enabled=False)

    def _unlock(self):
        """Let the reader step through the frames that there are: however a run ends, the play bar is usable afterwards."""
        if self.run is not None:
            most = len(self.run.frames) - 1
            self.player.show(min(self.index, most), most, enabled=True)

    def _step_to(self, run, index):
        with self.lock:
            if self.player.accepts(run, index):
                self.index = index
                self._put(views.run_view(self.run, index))

    def _put(self, view):
        self.screens["inpaint"].view = {**view, "charts": ""}
        self.curves.view = {**view, "pictures": []}

    def _side_by_side(self, page, recipe, mine, cancel, asked):
        told = 0.0

        def tell(text):
            nonlocal told
            if time.perf_counter() - told >= INTERVAL:
                with self.lock:
                    if mine == self.generation:
                        self._say(text)
                told = time.perf_counter()

        compute, view = {"compare": (self.engine.compare, views.compare_view), "diversity": (self.engine.diversity, views.diversity_view),
                         "look": (self.engine.gradients, views.gradient_view)}[page]
        result = compute(recipe, *[COMPLETIONS] * (page == "diversity"), cancel, tell)
        if result is None:
            return None
        shown = view(*result)
        with self.lock:
            if mine == self.generation:
                self.screens[page].view, self.compared[page] = shown, recipe
        return f"Done in {time.perf_counter() - asked:.1f} s."

    # --- saying and saving

    def _say(self, text):
        """Where the work stands."""
        self.status.value = f'<div role="status" style="font-size:15px;line-height:1.3">{html.escape(text)}</div>'

    def _notify(self, text, links=""):
        """Something that stays in sight until the reader does the next thing."""
        self.notice.value = f'<div role="alert" class="cgi-notice">{html.escape(text)}{links}</div>' if text else ""
        self.notice.layout.display = None if text else "none"

    def save(self):
        """Write the shown picture (PNG) and its recipe (JSON) into the store's folder `lab`; links to both appear."""
        with self.lock:
            run, index, present = self.run, self.index, self.recipe()
        if run is None or run.refined is None:
            raise ValueError("There is no finished run to save yet: press Run and wait for it.")
        if run.recipe != present:
            raise ValueError("The picture shown is not the one of the present image, hole and knobs: press Run, wait for it, then save.")
        text, address = recipes.dump(run.recipe, self.session, index), views.url(run.frames[index].image)
        name = "live-" + hashlib.sha256(text.encode()).hexdigest()[:8]
        folder = self.session.store.own / "lab"
        png = base64.b64decode(address.partition(",")[2])
        atomic_write(folder / f"{name}.png", lambda p: p.write_bytes(png))
        atomic_write(folder / f"{name}.json", lambda p: p.write_text(text))
        self.saved = folder / f"{name}.json"
        json_address = "data:application/json;base64," + base64.b64encode(text.encode()).decode()
        self._notify(f"Saved in {folder}: ", f'<a download="{name}.png" href="{address}">{name}.png</a> and '
                                             f'<a download="{name}.json" href="{json_address}">{name}.json</a>')


def _button(text, hint, action, **options):
    button = widgets.Button(description=text, tooltip=hint, layout=widgets.Layout(width="auto", flex="0 0 auto"), **options)
    button.on_click(lambda _: action())
    return button


def _parts(widget, seen):
    """All widgets that a widget consists of: children, layouts, styles."""
    for name in widget.keys:
        value = getattr(widget, name)
        for part in value if isinstance(value, (list, tuple)) else [value]:
            if isinstance(part, widgets.Widget) and part not in seen:
                seen.add(part)
                _parts(part, seen)
    return seen


def _sentence(error):
    """An error for the page: our own say everything in their text; others are named."""
    known = isinstance(error, (ValueError, RuntimeError, FileNotFoundError)) and str(error)
    return str(error) if known else f"{type(error).__name__}: {error}"
