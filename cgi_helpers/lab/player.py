"""The play bar: steps through the frames of a run, and never shows a frame of an older one."""

from pathlib import Path

import anywidget
import traitlets

HERE = Path(__file__).parent


class Player(anywidget.AnyWidget):
    """Calls `stepped(index)` when the reader goes to a frame of the present run. `begin` starts another run: whatever the browser
    still asks of the older one is ignored, and its playing ends."""
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

    def _asked(self, change):
        run, index = change.new
        if self.enabled and run == self.run and 0 <= index <= self.most:
            self.stepped(index)
