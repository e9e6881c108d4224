"""Draw a hole on an enlarged image: mouse, pen or touch, or a rectangle by numbers."""

import anywidget
import torch
import traitlets

from ..plots import HOLE
from .browser import source
from .recipe import to_bytes
from .views import url

HISTORY = 30  # holes that Undo can bring back


class Painter(anywidget.AnyWidget):
    """The image and its hole. `hole`: size * size characters row by row, '1' = missing;
    the browser sends one per stroke.

    A hole that is not such a text is refused with a sentence in `message`.
    Calls from Python and strokes share one history.
    """

    _esm, _css = source("painter.js"), source("lab.css")
    image = traitlets.Unicode("").tag(sync=True)  # PNG data URL
    hole = traitlets.Unicode("").tag(sync=True)
    size = traitlets.Int(64).tag(sync=True)  # pixels per side
    brush = traitlets.Int(8).tag(sync=True)  # diameter, pixels of the image
    tool = traitlets.Enum(("brush", "erase"), "brush").tag(sync=True)
    shown = traitlets.Int(320).tag(sync=True)  # CSS pixels per side
    colour = traitlets.Unicode(HOLE).tag(sync=True)
    message = traitlets.Unicode("").tag(sync=True)

    def __init__(self, size=64, **options):
        self.past, self.good = [], "0" * size * size  # while a message is applied, the trait already holds the new text
        super().__init__(size=size, hole="0" * size * size, **options)
        self.observe(self._remember, names="hole")
        self.on_msg(self._receive)

    @traitlets.validate("hole")
    def _check_hole(self, proposal):
        if len(proposal.value) != self.size**2 or set(proposal.value) - {"0", "1"}:
            self.message = "The browser sent a drawing that does not fit this image: draw again."
            return self.good
        self.message, self.good = "", proposal.value
        return proposal.value

    def _remember(self, change):
        self.past = [*self.past, change.old][-HISTORY:]

    def _receive(self, widget, message, buffers):
        """{"do": "undo" | "clear"} or {"do": "rectangle", "box": [left, top, width, height]} from the buttons."""
        try:
            if message["do"] == "rectangle":
                self.add_rectangle(*message["box"])
            elif message["do"] in ("undo", "clear"):
                getattr(self, message["do"])()
        except ValueError as error:
            self.message = str(error)

    @property
    def mask(self):
        """(1, 1, size, size) float tensor, 1 = known, 0 = hole; may be all ones."""
        missing = torch.frombuffer(bytearray(self.hole.encode()), dtype=torch.uint8) == ord("1")
        return (~missing).float().view(1, 1, self.size, self.size)

    def set_mask(self, mask, new=False):
        """Show a mask (1, 1, size, size), 1 = known; ValueError for another shape.
        `new`: nothing before it can be undone."""
        if tuple(mask.shape) != (1, 1, self.size, self.size):
            raise ValueError(
                f"The painter shows masks of shape (1, 1, {self.size}, {self.size}), not {tuple(mask.shape)}."
            )
        self.hole = "".join("01"[int(v)] for v in (mask.flatten() == 0).tolist())
        if new:
            self.past = []

    def set_image(self, x):
        """Show an image (1, C, size, size) in [-1, 1], C = 1 or 3; ValueError for another shape."""
        if x.ndim != 4 or x.shape[0] != 1 or x.shape[1] not in (1, 3) or tuple(x.shape[2:]) != (self.size, self.size):
            raise ValueError(
                f"The painter shows images of shape (1, 1 or 3, {self.size}, {self.size}), not {tuple(x.shape)}."
            )
        self.image = url(to_bytes(x[0]))

    def add_rectangle(self, left, top, width, height):
        """Add a rectangle (pixels of the image, clipped to it) to the hole; ValueError if nothing of it is inside."""
        try:
            left, top, width, height = (int(v) for v in (left, top, width, height))
        except (TypeError, ValueError):
            raise ValueError("A rectangle needs four whole numbers: left, top, width and height.") from None
        columns, rows = (
            range(max(left, 0), min(left + width, self.size)),
            range(max(top, 0), min(top + height, self.size)),
        )
        if not (columns and rows):
            raise ValueError(
                f"This rectangle has no pixel inside the image: left and top go from 0 to {self.size - 1}, "
                "width and height from 1."
            )
        mask = self.mask
        if not mask[..., rows.start : rows.stop, columns.start : columns.stop].any():
            raise ValueError("This rectangle is part of the hole already: clear the hole first or give other numbers.")
        mask[..., rows.start : rows.stop, columns.start : columns.stop] = 0
        self.message = ""
        self.set_mask(mask)

    def clear(self):
        """No hole; the next stroke draws."""
        self.tool = "brush"
        self.hole = "0" * self.size**2

    def undo(self):
        """The hole before the last change; ValueError if there is none to bring back."""
        if not self.past:
            raise ValueError("There is nothing to undo.")
        past = self.past
        self.hole = past[-1]
        self.past = past[:-1]
