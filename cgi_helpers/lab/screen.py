"""A widget that shows pictures and curves: the browser only replaces what changed, so a stream of frames does not flicker."""

from pathlib import Path

import anywidget
import traitlets

HERE = Path(__file__).parent


class Screen(anywidget.AnyWidget):
    """`view`: a dict as `views` makes it; `columns`: pictures per row; `side`: CSS pixels of a picture."""
    _esm = (HERE / "screen.js").read_text("utf-8")
    _css = (HERE / "screen.css").read_text("utf-8")
    view = traitlets.Dict({"pictures": [], "charts": "", "heat": ""}).tag(sync=True)
    columns = traitlets.Int(4).tag(sync=True)
    side = traitlets.Int(170).tag(sync=True)
    empty = traitlets.Unicode("Nothing to see yet.").tag(sync=True)
