"""A button that reads one file of the browser's machine, in pieces: Jupyter's web socket drops messages above 10 MB."""

from pathlib import Path

import anywidget
import traitlets

HERE = Path(__file__).parent
MOST = 100_000_000   # bytes of a file


class FilePicker(anywidget.AnyWidget):
    """Calls `taken(name, content)` with every chosen file, `refused(sentence)` with what the browser refused."""
    _esm = (HERE / "picker.js").read_text("utf-8")
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
        if message["number"] != self.number:   # a newer file replaces one that is still on its way
            self.number, self.parts = message["number"], {}
        self.parts[message["part"]] = bytes(buffers[0])
        if len(self.parts) == message["parts"]:
            content = b"".join(self.parts[part] for part in sorted(self.parts))
            self.parts, self.number = {}, None
            self.taken(str(message["name"]), content)
