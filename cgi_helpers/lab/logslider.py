"""A slider over decades that never alters the value it is given.

ipywidgets' own FloatLogSlider snaps to its steps in the browser and sends the snapped number back: a default of 0.006 became
0.0063 as soon as it was shown.
"""

import contextlib
import math

import ipywidgets as widgets
import traitlets

PER_DECADE = 10


class LogSlider(widgets.HBox):
    """Positive numbers from `low` to `high`, ten notches per decade plus the present value; any other number can be typed."""
    value = traitlets.Float()

    def __init__(self, value, low, high, description="", tooltip="", width="360px", label="128px"):
        first, last = (round(PER_DECADE * math.log10(v)) for v in (low, high))
        self.low, self.high, self.quiet = low, high, False
        self.notches = [float(f"{10 ** (i / PER_DECADE):.2g}") for i in range(first, last + 1)]
        self.slider = widgets.SelectionSlider(options=self._options(value), value=value, description=description, tooltip=tooltip,
                                              readout=False, style={"description_width": label},
                                              layout=widgets.Layout(flex="1 1 auto", width="auto"))
        self.number = widgets.BoundedFloatText(value=value, min=low, max=high, step=None, tooltip=tooltip,
                                               layout=widgets.Layout(width="84px", flex="0 0 auto"))
        super().__init__([self.slider, self.number], layout=widgets.Layout(width=width), value=value)
        self.slider.observe(self._moved, names="value")
        self.number.observe(self._moved, names="value")

    def _options(self, value):
        return [(f"{v:.3g}", v) for v in sorted({*self.notches, value})]

    @contextlib.contextmanager
    def _still(self):
        before, self.quiet = self.quiet, True
        try:
            yield
        finally:
            self.quiet = before

    def _moved(self, change):
        if not self.quiet:
            self.value = change.new

    @traitlets.validate("value")
    def _within(self, proposal):
        return min(max(proposal.value, self.low), self.high)

    @traitlets.observe("value")
    def _show(self, change):
        with self._still():
            if change.new not in [v for _, v in self.slider.options]:
                self.slider.options = self._options(change.new)
            self.slider.value = self.number.value = change.new
