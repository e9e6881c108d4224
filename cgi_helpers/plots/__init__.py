"""Every figure of the suite: functions of CPU tensors, numpy arrays or tables that return a `Figure`.

Nothing here touches pyplot, which is not thread-safe: a notebook displays the returned figure, a widget renders it to
PNG. Images are (N, C, H, W) in [-1, 1], C = 1 (grey, drawn from -1 to 1) or 3 (colour); masks are 1 = known.
"""

from .curves import change_by_region, logit_histogram, losses, plane, score_path  # noqa: F401
from .images import disagreements, image_grid, masks, rows, search_progress, weight  # noqa: F401
from .schemes import scheme_collaborative, scheme_inpainting  # noqa: F401
from .style import BLUE, GREEN, HEAT, HOLE, METRICS, ORANGE, PALETTE, RED, ROWS  # noqa: F401
from .tables import gain_distribution, metric_by_stage, paired_gains  # noqa: F401
