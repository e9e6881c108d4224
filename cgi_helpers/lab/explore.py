"""Sliders over a pure function: `explore(draw, step_size=(0.005, 0.1), layer=[0, 1, 2])`."""

import html
import inspect
import io

import ipywidgets as widgets

from .logslider import LogSlider
from .worker import Worker, synchronous_here


def _control(name, choice, default, hint):
    """The widget for one argument: list -> dropdown, (low, high) of ints -> slider, of floats -> log or linear slider."""
    style = {"description_width": "130px"}
    common = dict(description=name.replace("_", " "), style=style, layout=widgets.Layout(width="420px"),
                  continuous_update=False, tooltip=hint)
    if isinstance(choice, list):
        common.pop("continuous_update")
        return widgets.Dropdown(options=choice, value=default, **common)
    low, high = choice
    if isinstance(default, int):
        return widgets.IntSlider(value=default, min=low, max=high, **common)
    if low > 0 and high / low >= 50:
        return LogSlider(default, low, high, description=common["description"], tooltip=hint, width="420px", label="130px")
    return widgets.FloatSlider(value=default, min=low, max=high, step=(high - low) / 50, readout_format=".3g", **common)


class Explorer(widgets.VBox):
    """Controls above one picture. `draw(**values)` returns a Figure; it runs on a worker thread, the newest values win."""

    def __init__(self, draw, controls, hints=None, synchronous=None):
        if synchronous is None:
            synchronous = synchronous_here()
        self.draw, self.worker = draw, Worker(synchronous)
        defaults = {n: p.default for n, p in inspect.signature(draw).parameters.items()}
        unknown = [n for n in controls if n not in defaults]
        if unknown:
            raise ValueError(f"draw() has no argument {unknown[0]!r}: its arguments are {', '.join(defaults)}.")
        self.controls = {n: _control(n, c, defaults[n], (hints or {}).get(n, "")) for n, c in controls.items()}
        self.picture = widgets.Image(format="png", layout=widgets.Layout(max_width="100%", align_self="flex-start", display="none"))
        self.status = widgets.HTML("<i>Move a control to draw.</i>")
        self.frames = 0
        for control in self.controls.values():
            control.observe(lambda change: self.refresh(), names="value")
        super().__init__([*self.controls.values(), self.status, self.picture])

    def values(self):
        """What the controls say now."""
        return {n: c.value for n, c in self.controls.items()}

    def refresh(self):
        """Ask for a picture of the present values."""
        values = self.values()
        self.status.value = "<i>Computing ...</i>"
        self.worker.submit(lambda cancel: self._run(values, cancel))

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
            self.status.value = "&nbsp;"
            self.frames += 1


def explore(draw, hints=None, synchronous=None, **controls):
    """Widgets over `draw`: its keyword defaults are the controls' defaults; nothing is drawn until one is moved.

    `controls`: name = [choices] or (low, high). `hints`: name -> tooltip. Show `draw()` once as a plain figure first:
    widgets are invisible in a batch run. `synchronous` (by default as `worker.synchronous_here` says): draw inside the callback, without a thread.
    """
    return Explorer(draw, controls, hints, synchronous)
