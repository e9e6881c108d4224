"""A slider and a field for one number; it never becomes another number without a word."""

import contextlib
import math

import ipywidgets as widgets
import traitlets


def notches(value, low, high):
    """Where a slider stops: at every whole number, ten times per decade of a wide range, else 51 times."""
    if isinstance(value, int):
        return range(low, high + 1)
    if low > 0 and high / low >= 50:
        first, last = (round(10 * math.log10(v)) for v in (low, high))
        return [float(f"{10 ** (i / 10):.2g}") for i in range(first, last + 1)]
    return [float(f"{low + (high - low) * i / 50:.3g}") for i in range(51)]


class Number(widgets.HBox):
    """A number from `low` to `high`, with `zero` also 0:
    a slider over `notches` and the present value, any other can be typed.

    ipywidgets' own controls alter what they are given, silently and in the browser: a logarithmic slider snaps 0.006 to
    0.0063 when it is shown, readouts and bounded fields clamp. Here a number beyond the range becomes the nearest one
    inside, and `tell` (a function, to be set) gets a sentence. `slider=False`: the field alone.
    """

    value = traitlets.Any()

    def __init__(
        self, value, low, high, name, hint, zero=False, slider=True, continuous=True, width="360px", label="128px"
    ):
        self.low, self.high, self.zero, self.name, self.hint = low, high, zero, name, hint
        self.quiet, self.tell = False, lambda sentence: None
        self.notches = [*[0.0] * zero, *notches(value, low, high)] if slider else []
        # without a width a field is 20 letters wide
        layout = {"flex": "1 1 auto", "width": "auto", "min_width": "0"}
        first = dict(description=name, style={"description_width": label}, layout=layout)
        options = dict(options=self._options(value), readout=False, continuous_update=continuous)
        self.slider = widgets.SelectionSlider(value=value, tooltip=hint, **options, **first) if slider else None
        kind = widgets.IntText if isinstance(value, int) else widgets.FloatText
        self.field = kind(value, tooltip=hint, **{"layout": {"flex": "0 0 auto", "width": "84px"}} if slider else first)
        self.parts = [part for part in (self.slider, self.field) if part]
        super().__init__(self.parts, layout=widgets.Layout(width=width), value=value)
        self.add_class("cgi-number")
        for part in self.parts:
            part.observe(self._chosen, names="value")

    def _options(self, value):
        return [(f"{v:.4g}", v) for v in sorted({*self.notches, value})]

    @contextlib.contextmanager
    def _still(self):
        before, self.quiet = self.quiet, True
        try:
            yield
        finally:
            self.quiet = before

    def _chosen(self, change):
        """The reader moved the slider or typed a number."""
        if self.quiet:
            return
        self.value = change.new
        if self.value != change.new:
            with self._still():
                self.field.value = self.value
            self.tell(
                f"{self.name} goes from {self.low:.10g} to {self.high:.10g}{' or is 0' * self.zero}, "
                f"so {change.new:.10g} became {self.value:.10g}."
            )

    @traitlets.validate("value")
    def _within(self, proposal):
        keep = self.zero and proposal.value == 0
        return proposal.value if keep else min(max(proposal.value, self.low), self.high)

    @traitlets.observe("value")
    def _show(self, change):
        with self._still():
            if self.slider and change.new not in [v for _, v in self.slider.options]:
                self.slider.options = self._options(change.new)
            for part in self.parts:
                part.value = change.new
