"""What the page needs of the browser beside ipywidgets:
pictures that stream, a play bar, a button that reads a file."""

from pathlib import Path

import anywidget
import traitlets

MOST = 100_000_000  # bytes of a file


def source(name):
    """Text of a file beside this one; a path would make anywidget watch it and never let go of the widget."""
    return (Path(__file__).parent / name).read_text("utf-8")


class Screen(anywidget.AnyWidget):
    """Pictures and curves; the browser only replaces what changed, so a stream of frames does not flicker.

    `view`: a dict as `views` makes it; `columns`: pictures per row; `side`: CSS pixels of a picture.
    """

    _esm, _css = source("screen.js"), source("lab.css")
    view = traitlets.Dict({"pictures": [], "charts": "", "heat": ""}).tag(sync=True)
    columns = traitlets.Int(4).tag(sync=True)
    side = traitlets.Int(170).tag(sync=True)
    empty = traitlets.Unicode("Nothing to see yet.").tag(sync=True)


class Player(anywidget.AnyWidget):
    """Calls `stepped(run, index)` when the reader goes to a frame. `begin` starts another run, which ends the playing
    of the older one; what the browser still asks of that is not to be shown: `accepts` knows."""

    _esm, _css = source("player.js"), source("lab.css")
    run = traitlets.Int(0).tag(sync=True)
    frame = traitlets.Int(0).tag(sync=True)  # the frame to show; where the reader went is `asked`
    most = traitlets.Int(0).tag(sync=True)
    enabled = traitlets.Bool(False).tag(sync=True)
    interval = traitlets.Int(90).tag(sync=True)  # milliseconds between frames
    asked = traitlets.List([0, 0]).tag(sync=True)  # [run, index]

    def __init__(self, stepped, **options):
        super().__init__(**options)
        self.observe(lambda change: stepped(*change.new), names="asked")

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


class FilePicker(anywidget.AnyWidget):
    """Calls `taken(name, content)` with every chosen file, `refused(sentence)` with what the browser refused.

    Files come in pieces: Jupyter's web socket drops messages above 10 MB.
    """

    _esm = source("picker.js")
    label = traitlets.Unicode("Upload").tag(sync=True)
    accept = traitlets.Unicode("").tag(sync=True)
    hint = traitlets.Unicode("").tag(sync=True)
    most = traitlets.Int(MOST).tag(sync=True)

    def __init__(self, taken, refused, **options):
        self.taken, self.refused, self.parts, self.number = taken, refused, {}, None
        super().__init__(**options)
        self.on_msg(self._receive)

    def _receive(self, widget, message, buffers):
        """{"number": of this upload, "part", "parts", "name"} with one buffer, or {"refused": sentence}."""
        if "refused" in message:
            self.refused(str(message["refused"]))
            return
        if message["number"] != self.number:  # a newer file replaces one that is still on its way
            self.number, self.parts = message["number"], {}
        self.parts[message["part"]] = bytes(buffers[0])
        if len(self.parts) == message["parts"]:
            content = b"".join(self.parts[part] for part in sorted(self.parts))
            self.parts, self.number = {}, None
            self.taken(str(message["name"]), content)
