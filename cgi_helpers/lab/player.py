"""The play bar: steps through the frames of a run, and tells which run a wish is about."""

from pathlib import Path

import anywidget
import traitlets

HERE = Path(__file__).parent


class Player(anywidget.AnyWidget):
    """Calls `stepped(run, index)` when the reader goes to a frame. `begin` starts another run, which ends the playing of the older
    one; what the browser still asks of that is not to be shown: `accepts` knows."""
    _esm = (HERE / "player.js").read_text("utf-8")
    _css = (HERE / "painter.css").read_text("utf-8")
    run = traitlets.Int(0).tag(sync=True)
    frame = traitlets.Int(0).tag(sync=True)          # the frame to show; where the reader went is `asked`
    most = traitlets.Int(0).tag(sync=True)
    enabled = traitlets.Bool(False).tag(sync=True)
    interval = traitlets.Int(90).tag(sync=True)      # milliseconds between frames
    asked = traitlets.List([0, 0]).tag(sync=True)    # [run, index]

    def __init__(self, stepped, **options):
        super().__init__(**options)
        self.stepped = stepped
        self.observe(self._asked, names="asked")

    def begin(self):
        """Another run: no frames to go to until `show` enables them."""
        with self.hold_sync():
            self.run, self.enabled = self.run + 1, False

    def show(self, frame, most, enabled):
        """Stand at `frame` of `most` + 1."""
        with self.hold_sync():
            self.most, self.frame, self.enabled = most, frame, enabled

    def accepts(self, run, index):
        """True if the present run is meant and has this frame."""
        return self.enabled and run == self.run and 0 <= index <= self.most

    def _asked(self, change):
        self.stepped(*change.new)
