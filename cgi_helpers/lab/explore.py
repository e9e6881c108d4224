"""Sliders over a pure function: `explore(draw, step_size=(0.005, 0.1), layer=[0, 1, 2])`."""

import html
import inspect
import io

import ipywidgets as widgets

from .number import Number
from .worker import Worker


def _control(name, choice, default, hint):
    """The widget for one argument: a list becomes a menu, (low, high) a slider with a field."""
    name, label, width = name.replace("_", " "), "130px", "420px"
    if not isinstance(choice, list):
        return Number(default, *choice, name, hint, continuous=False, width=width, label=label)
    return widgets.Dropdown(
        options=choice,
        value=default,
        description=name,
        tooltip=hint,
        style={"description_width": label},
        layout=widgets.Layout(width=width),
    )


class Explorer(widgets.VBox):
    """Controls above one picture. `draw(**values)` returns a Figure;
    it runs on a worker thread, the newest values win."""

    def __init__(self, draw, controls, hints=None, synchronous=None):
        self.draw, self.worker, self.word = draw, Worker(synchronous), ""
        defaults = {n: p.default for n, p in inspect.signature(draw).parameters.items()}
        unknown = [n for n in controls if n not in defaults]
        if unknown:
            raise ValueError(f"draw() has no argument {unknown[0]!r}: its arguments are {', '.join(defaults)}.")
        self.controls = {n: _control(n, c, defaults[n], (hints or {}).get(n, "")) for n, c in controls.items()}
        self.picture = widgets.Image(
            format="png", layout=widgets.Layout(max_width="100%", align_self="flex-start", display="none")
        )
        self.status = widgets.HTML("<i>Move a control to draw.</i>")
        self.frames = 0
        for control in self.controls.values():
            control.observe(lambda change: self.refresh(), names="value")
            control.tell = self._tell
        super().__init__([*self.controls.values(), self.status, self.picture])

    def values(self):
        """What the controls say now."""
        return {n: c.value for n, c in self.controls.items()}

    def refresh(self):
        """Ask for a picture of the present values."""
        values, self.word = self.values(), ""
        self.status.value = "<i>Computing ...</i>"
        self.worker.submit(lambda cancel: self._run(values, cancel))

    def _tell(self, sentence):
        """A word about a typed number, in sight until the next move."""
        self.word = self.status.value = html.escape(sentence)

    def _run(self, values, cancel):
        try:
            figure, buffer = self.draw(**values), io.BytesIO()
            if cancel.is_set():
                return
            figure.savefig(buffer, format="png", dpi=90)
        except Exception as error:  # a traceback in a thread would be lost: the reader must see what was wrong
            if not cancel.is_set():
                self.status.value = f"<b>{type(error).__name__}:</b> {html.escape(str(error))}"
            return
        if not cancel.is_set():
            self.picture.value, self.picture.layout.display = buffer.getvalue(), None
            self.status.value = self.word or "&nbsp;"
            self.frames += 1


def explore(draw, hints=None, synchronous=None, **controls):
    """Widgets over `draw`: its keyword defaults are the controls' defaults; nothing is drawn until one is moved.

    `controls`: name = [choices] or (low, high). `hints`: name -> tooltip. Show `draw()` once as a plain figure first:
    widgets are invisible in a batch run. `synchronous`: see `Worker`.
    """
    return Explorer(draw, controls, hints, synchronous)
