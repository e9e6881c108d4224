"""The live lab: choose or draw a hole, turn a knob, watch search and refinement fill it.

Callbacks only read the controls and ask the worker; the worker's thread computes and shows. Everything shown passes one
lock with the number of the newest request, so that nothing old appears after something new.
"""

import base64
import contextlib
import functools
import hashlib
import html
import random
import threading
import time
import weakref

import ipywidgets as widgets

from ..method.masks import MASKS, named_mask
from ..method.runtime import generator
from ..pipeline.artifacts import Store, atomic_write
from ..pipeline.presets import PRESETS
from ..pipeline.session import start as open_session
from . import recipe as recipes
from . import views
from .browser import FilePicker, Player, Screen
from .engine import Engine
from .knobs import lambda_marks, make_knobs
from .number import Number
from .painter import Painter
from .upload import TAKEN, read_image
from .worker import Worker

INTERVAL = 0.07  # seconds between frames shown: 14 a second
COMPLETIONS = 8  # of the diversity screen
ANY, OWN, DRAWN = "any class", "your picture", "drawn"
STOPPED = "Stopped; press Run to compute with the present knobs."
TABS = {
    "inpaint": ("Inpaint", ""),
    "compare": ("Compare", "The same hole and the same search result, refined with every stored discriminator."),
    "diversity": (
        "Diversity",
        f"{COMPLETIONS} completions of the same hole, each searched and refined from its own random z.",
    ),
    "look": (
        "Look into D",
        "Where each discriminator's gradient asks for change (darkest: most, each map by its own scale).",
    ),
}
EMPTY = {"pictures": [], "charts": "", "heat": ""}
OPEN = weakref.WeakValueDictionary()  # id of a session -> its page


def available_presets(seed=0):
    """Names of the presets with a trained generator, shipped or own, in the order of the table."""
    return [name for name in PRESETS if Store(name, seed).find("generator")]


class LiveLab(widgets.VBox):
    """The whole page. `synchronous`: compute inside callbacks, without a thread (see `Worker`).

    `recipe`: what it starts with, by default `recipe.default_recipe`; `start`: run it at once.
    A session has one page: a newer one closes the older.
    """

    def __init__(self, session, recipe=None, synchronous=None, start=True):
        older = OPEN.pop(id(session), None)
        if older is not None:
            older.close()
        self.worker, self.lock, self.generation, self.quiet = (
            Worker(synchronous),
            threading.RLock(),
            0,
            threading.local(),
        )
        self.first_frame, self.runs_started = None, 0  # seconds from the last request to its first frame; a count
        super().__init__(layout=widgets.Layout(max_width="1160px"))
        self.add_class("cgi-lab")
        OPEN[id(session)], self.first = self, session
        self._enter(session, recipe, start)

    def _enter(self, session, recipe=None, run=True):
        """Show a session: the page's first one, or that of another preset."""
        recipe, old = recipe or recipes.default_recipe(session), self.children
        self.session, self.engine = session, Engine(session)
        self.run, self.index, self.compared = None, 0, {}  # what is shown: a run and its frame; screen -> its recipe
        # own picture shown; the last there was; path of the last JSON
        self.picture, self.own, self.saved = "", "", None
        self.children = self._build(recipe)
        _close(old)
        self._act(lambda: self.set_recipe(recipe, run=run), about_state=True)

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
        _close([*self.children, self.layout])
        super().close()

    # --- building

    def _build(self, recipe):
        self.screens = {
            "inpaint": Screen(columns=2, side=190),
            "compare": Screen(columns=5, side=190),
            "diversity": Screen(columns=5, side=190),
            "look": Screen(columns=7, side=132),
        }
        self.curves = Screen(empty="")
        self.knobs = make_knobs(self.session, recipe)
        for knob in self.knobs.values():
            self._on(knob, "value", self.ask)
            knob.tell = self._notify
        inpaint = _row(self._source(recipe), self._middle(), self._right(), grid_gap="12px", align_items=None)
        others = [
            widgets.VBox([widgets.HTML(f"<p style='font-size:15px;margin:0'>{text}</p>"), self.screens[name]])
            for name, (_, text) in list(TABS.items())[1:]
        ]
        self.tabs = widgets.Tab([inpaint, *others], titles=[title for title, _ in TABS.values()])
        self._on(self.tabs, "selected_index", lambda: self.ask(self.index if self._finished() else None))
        self.start = _button(
            "Run",
            "Search, then refine, with the present knobs.",
            lambda: self._act(self.ask, about_state=True),
            button_style="primary",
            icon="play",
        )
        self.halt = _button(
            "Stop", "Stop within one iteration; what was computed stays.", lambda: self._act(self.stop), icon="stop"
        )
        names = list(dict.fromkeys([self.first.preset.name, *available_presets(self.session.seed)]))
        self.preset = _menu(names, self.session.preset.name, "Which images and networks: a preset with weights.")
        self.preset.layout.display = None if len(self.preset.options) > 1 else "none"
        self._on(self.preset, "value", self._choose_preset)
        self.status = widgets.HTML()
        self.notice = widgets.HTML(layout=widgets.Layout(display="none"))
        return [_row(self.start, self.halt, self.preset, self.status, min_height="32px"), self.notice, self.tabs]

    def _source(self, recipe):
        kind = "small" if self.session.preset.channels > 1 else "grey and small"
        self.label = _menu([ANY], ANY, "Show a test image of this class.")
        self.number = Number(recipe.image, 0, recipe.image, "", "Number of the test image.", slider=False, width="80px")
        self.number.name, self.number.tell = "The number of the test image", self._notify
        self.kind = widgets.HTML(layout=widgets.Layout(flex="0 0 auto"))
        self.upload = FilePicker(
            lambda name, content: self._act(lambda: self.take_picture(name, content)),
            self._notify,
            label="Upload",
            accept=".png,.jpg,.jpeg,.webp,.bmp",
            hint=f"{TAKEN[2:].capitalize()} of any size; it is made {kind}, as the networks see it.",
        )
        self.hole = _menu(
            [*MASKS, DRAWN],
            recipe.hole if recipe.hole in MASKS else DRAWN,
            "A named hole, or draw one on the image below.",
        )
        self.painter = Painter(size=self.session.preset.size, shown=272)
        self._on(self.label, "value", self._choose_class)
        self._on(self.number, "value", lambda: self._show_test_image(self.number.value))
        self._on(self.hole, "value", self._choose_hole)
        self._on(self.painter, "hole", self._take_drawing)
        at_random = _button(
            "Random",
            "Show a random test image of the chosen class.",
            lambda: self._act(self._choose_random, about_state=True),
        )
        image, hole = (widgets.HTML(f"<b>{t}</b>", layout=widgets.Layout(width="50px")) for t in ("image", "hole"))
        return widgets.VBox(
            [
                _row(image, self.label, self.number),
                _row(at_random, self.upload, self.kind),
                _row(hole, self.hole),
                self.painter,
            ],
            layout=widgets.Layout(width="280px", flex="0 0 auto"),
        )

    def _middle(self):
        self.player = Player(lambda run, index: self._act(lambda: self._step_to(run, index)))
        return widgets.VBox(
            [self.screens["inpaint"], self.player], layout=widgets.Layout(width="398px", flex="0 0 auto")
        )

    def _right(self):
        self.loader = FilePicker(
            lambda name, content: self._act(lambda: self.take_recipe(content)),
            self._notify,
            label="Load recipe",
            accept=".json",
            hint="A .json file that this page saved.",
        )
        save = _button(
            "Save",
            "Save the shown picture as PNG and everything that it depends on as JSON.",
            lambda: self._act(self.save),
            icon="save",
        )
        reset = _button(
            "Defaults",
            "All knobs, image and hole as at the beginning.",
            lambda: self._act(lambda: self.set_recipe(recipes.default_recipe(self.session))),
        )
        knobs = [
            part
            for name, knob in self.knobs.items()
            for part in ([knob, lambda_marks(knob)] if name == "lam" else [knob])
        ]
        return widgets.VBox(
            [*knobs, _row(save, self.loader, reset), self.curves], layout=widgets.Layout(width="340px", flex="0 0 auto")
        )

    # --- what the reader does

    def _on(self, widget, name, action):
        """Do `action`, which is about the image, the hole or a knob, when the reader changes a control."""
        widget.observe(lambda change: self._act(action, about_state=True), names=name)

    def _act(self, action, about_state=False):
        """Do what the reader asked for; an error becomes a sentence in the page.

        `about_state`: it is about the present image, hole or knobs, so what runs for older ones ends. Any other error
        (a file that is no picture) is a notice, and what runs goes on.
        """
        if self.held:  # the page itself set a control
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
        """True while this very thread sets controls itself:
        their changes ask for nothing (another thread's still do)."""
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
        return recipes.Recipe(
            image=self.number.value,
            picture=self.picture,
            hole=hole,
            **{name: knob.value for name, knob in self.knobs.items()},
        )

    def set_recipe(self, recipe, run=True, frame=None):
        """Set every control to `recipe`; one run, not one per control, which ends on `frame`.
        ValueError changes nothing."""
        recipes.check(recipe, self.session)
        mask, _ = recipes.hole_mask(recipe, self.session), recipes.target(recipe, self.session)
        with self._hold():
            self.picture = recipe.picture
            self.number.high = len(self.session.data["test"]) - 1
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

    @property
    def classes(self):
        """Names of the test images' classes; none where they have no labels."""
        test = self.session.data["test"]
        return () if test.labels is None or test.turned else test.classes

    def _show_source(self):
        """Show the present image and its class; a filter that it does not pass is lifted."""
        self.painter.set_image(recipes.target(self.recipe(), self.session).cpu())
        self.own = self.picture or self.own
        labels = self.session.data["test"].labels
        name = OWN if self.picture else self.classes[int(labels[self.number.value])] if self.classes else ""
        with self._hold():
            if len(self.label.options) != 1 + len(self.classes) + bool(self.own):
                chosen = self.label.value
                self.label.options = [ANY, *self.classes, *[OWN] * bool(self.own)]
                self.label.value = chosen
            if self.picture or self.label.value not in (ANY, name):
                self.label.value = OWN if self.picture else ANY
            self.kind.value = f"<b>{html.escape(name)}</b>"

    def _show_test_image(self, number):
        self.picture = ""
        with self._hold():
            self.number.value = number
        self._show_source()
        self.ask()

    def _among(self):
        """Numbers of the test images of the chosen class (of all, where none is chosen)."""
        test, chosen = self.session.data["test"], self.label.value
        if chosen not in self.classes:
            return range(len(test))
        return (test.labels == list(self.classes).index(chosen)).nonzero()[:, 0].tolist()

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

    def _choose_hole(self):
        if self.hole.value == DRAWN:
            return
        rng = generator(self.session.seed, self.hole.value)
        with self._hold():
            self.painter.set_mask(named_mask(self.hole.value, self.session.preset.size, rng))
        self.ask()

    def _take_drawing(self):
        with self._hold():
            self.hole.value = DRAWN
        self.ask()

    def _choose_preset(self):
        name, session = self.preset.value, self.first
        if name != session.preset.name:
            session = open_session(name, session.seed, session.device, progress=False)
        with self.lock:
            self.generation += 1
            self.worker.stop()
            self._enter(session)

    def take_picture(self, name, content):
        """Use an own picture (bytes of a file) instead of a test image; ValueError in one sentence if it is none."""
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

    def _finished(self):
        """True if the run shown is finished and is what the controls describe."""
        return self.run is not None and self.run.refined is not None and self.run.recipe == self.recipe()

    def ask(self, frame=None):
        """Cancel what runs and compute what the open tab shows, with the newest values;
        a run ends on `frame` (None: last)."""
        if not self.painter.image:  # the data were missing when the page was made
            self.set_recipe(self.recipe(), run=False)
        # one section: of two threads that ask at once, the later number must belong to the later values
        with self.lock:
            page, recipe, asked = list(TABS)[self.tabs.selected_index or 0], self.recipe(), time.perf_counter()
            self.generation += 1
            mine = self.generation
            self.player.begin()
            if self.compared.get(page, recipe) != recipe:  # nothing of another hole beside what is said of this one
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
            if page == "inpaint":
                text = self._inpaint(recipe, mine, cancel, asked, frame)
            else:
                text = self._side_by_side(page, recipe, mine, cancel, asked)
        except Exception as error:  # a traceback in a thread would be lost: the reader must see what was wrong
            text = _sentence(error)
            with self.lock:  # no picture of another hole beside the sentence
                if mine == self.generation and not (self.run and self.run.recipe == recipe):
                    self.screens[page].view = self.curves.view = EMPTY
        with self.lock:
            if mine == self.generation:
                self._unlock()
                self._say(text or STOPPED)

    def _inpaint(self, recipe, mine, cancel, asked, frame):
        run, shown, self.first_frame = None, 0.0, None
        for run in self.engine.stream(recipe, cancel):
            now = time.perf_counter()
            if run.refined is None and now - shown >= INTERVAL:
                self._show_run(run, mine, len(run.frames) - 1, streaming=True)
                shown = now
                self.first_frame = self.first_frame or time.perf_counter() - asked
        if run is None:
            return None
        last = len(run.frames) - 1
        self._show_run(run, mine, last if frame is None or run.refined is None else min(frame, last))
        self.first_frame = self.first_frame or time.perf_counter() - asked
        if run.refined is None:
            return None
        kept = f", step {run.frames[-1].kept} kept" if recipe.steps else ""
        return (
            f"Done in {run.frames[-1].seconds:.1f} s: {run.searched - 1} search iterations, "
            f"{recipe.steps} refinement steps{kept}."
        )

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
        """Let the reader step through the frames there are: however a run ends, the play bar is usable afterwards."""
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

        engine = self.engine
        compute, view = {
            "compare": (engine.compare, views.compare_view),
            "diversity": (functools.partial(engine.diversity, n=COMPLETIONS), views.diversity_view),
            "look": (engine.gradients, views.gradient_view),
        }[page]
        result = compute(recipe, cancel=cancel, tell=tell)
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
            raise ValueError(
                "The picture shown is not the one of the present image, hole and knobs: press Run, wait, then save."
            )
        text, address = recipes.dump(run.recipe, self.session, index), views.url(run.frames[index].image)
        name, folder = "live-" + hashlib.sha256(text.encode()).hexdigest()[:8], self.session.store.own / "lab"
        contents = {f"{name}.png": base64.b64decode(address.partition(",")[2]), f"{name}.json": text.encode()}
        for file, content in contents.items():
            atomic_write(folder / file, lambda p, content=content: p.write_bytes(content))
        self.saved = folder / f"{name}.json"
        addresses = address, "data:application/json;base64," + base64.b64encode(text.encode()).decode()
        links = [f'<a download="{file}" href="{to}">{file}</a>' for file, to in zip(contents, addresses)]
        self._notify(f"Saved in {folder}: ", " and ".join(links))


def _row(*parts, **layout):
    return widgets.HBox(parts, layout=widgets.Layout(**{"align_items": "center", **layout}))


def _menu(options, value, hint):
    return widgets.Dropdown(options=options, value=value, tooltip=hint, layout=widgets.Layout(width="138px"))


def _button(text, hint, action, **options):
    layout = widgets.Layout(width="auto", flex="0 0 auto")
    button = widgets.Button(description=text, tooltip=hint, layout=layout, **options)
    button.on_click(lambda _: action())
    return button


def _close(parts):
    """Take widgets from the browser with all that they consist of: children, layouts, styles."""
    for part in parts:
        if isinstance(part, widgets.Widget) and part.comm is not None:
            inside = [getattr(part, name) for name in part.keys]
            part.close()
            for value in inside:
                _close(value if isinstance(value, (list, tuple)) else [value])


def _sentence(error):
    """An error for the page: our own say everything in their text; others are named."""
    known = isinstance(error, (ValueError, RuntimeError, FileNotFoundError)) and str(error)
    return str(error) if known else f"{type(error).__name__}: {error}"
