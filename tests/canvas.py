"""What every figure must keep, drawn by Agg as it is saved."""

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text


def check_canvas(fig):
    """Assert that nothing leaves the canvas, that there is a title, and that no text is smaller than 9 points."""
    canvas = FigureCanvasAgg(fig)
    canvas.draw()
    width, height = fig.get_size_inches()
    box = fig.get_tightbbox(canvas.get_renderer())
    assert box.x0 >= -0.01 and box.y0 >= -0.01 and box.x1 <= width + 0.01 and box.y1 <= height + 0.01, box.extents
    assert fig.get_suptitle() and min(t.get_fontsize() for t in fig.findobj(Text) if t.get_text().strip()) >= 9
