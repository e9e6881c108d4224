"""What all figures share: colours, sizes, tiles of images, names of measures."""

import textwrap

import numpy as np
import seaborn as sns
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure

PALETTE = sns.color_palette("colorblind").as_hex()
BLUE, ORANGE, GREEN, RED = PALETTE[:4]
HOLE = "#56b4e9"  # flat colour of missing pixels: no grey image contains it
HEAT = sns.light_palette("#8c0d15", as_cmap=True)  # as in the report, the redder the larger; lightness falls evenly
METRICS = {
    "frechet_limit": "Fréchet distance,\nextrapolated ↓",
    "psnr": "PSNR (dB) ↑",
    "ssim": "SSIM ↑",
    "psnr_hole": "PSNR in the hole (dB) ↑",
    "ssim_hole": "SSIM in the hole ↑",
    "frechet_distance": "Fréchet distance ↓",
    "inception_score": "Inception score ↑",
    "label_agreement": "label agreement ↑",
}
ROWS = ("masked\ninput", "before", "|change|", "after", "original")


def _figure(width, height, title, layout="constrained"):
    """Empty figure of at most 11 inches;
    the title, wrapped to its width, says what to see (lines beyond the first add height)."""
    lines = textwrap.wrap(title or "", int(min(width, 11) * 12))
    fig = Figure(figsize=(min(width, 11), height + 0.19 * max(0, len(lines) - 1)), layout=layout)
    if lines:
        fig.suptitle("\n".join(lines), x=0.01, ha="left", fontsize=11)
    return fig


def _array(x):
    """Tensor, array or list -> float numpy array."""
    return np.asarray(x.detach().cpu().float() if hasattr(x, "detach") else x, dtype=float)


def _tile(images, columns=None, groups=None, fill=np.nan, below=0):
    """Lay images (N, C, H, W) on one canvas (Y, X, C), row by row; returns it and each tile's (left, top).

    `groups` are sizes of column groups with a wider gap between them; `below` leaves pixels free under every tile.
    """
    a = _array(images).transpose(0, 2, 3, 1)
    n, h, w, c = a.shape
    if c not in (1, 3):
        raise ValueError(f"Images must have 1 or 3 channels to be drawn but have {c}.")
    columns = min(columns or n, n)
    if groups and sum(groups) != columns:
        raise ValueError(f"Column groups {list(groups)} must add up to the {columns} columns shown.")
    gap, splits = max(1, w // 16), np.cumsum(groups)[:-1] if groups else []
    corners = [
        (
            (w + gap) * (i % columns) + 3 * gap * sum(i % columns >= s for s in splits),
            (h + gap + below) * (i // columns),
        )
        for i in range(n)
    ]
    canvas = np.full((corners[-1][1] + h + below, max(x for x, _ in corners) + w, c), fill)
    for (x, y), image in zip(corners, a):
        canvas[y : y + h, x : x + w] = image
    return canvas, corners


def _show(ax, canvas, heat=None):
    """Draw a canvas (Y, X, C) without axes: images from -1 to 1, or with `heat` a heat map from 0 to that value;
    NaN stays empty."""
    ax.set(xticks=[], yticks=[])
    ax.spines[:].set_visible(False)
    if canvas.shape[-1] == 3:
        return ax.imshow(np.dstack([np.clip(np.nan_to_num(canvas + 1) / 2, 0, 1), ~np.isnan(canvas[..., 0])]))
    return ax.imshow(
        canvas[..., 0], **(dict(cmap=HEAT, vmin=0, vmax=heat) if heat else dict(cmap="gray", vmin=-1, vmax=1))
    )


def _paint_hole(ax, known):
    """Cover the pixels where `known` (Y, X) is 0 with the flat colour HOLE."""
    ax.imshow(np.where(known[..., None] < 0.5, to_rgba(HOLE), 0), interpolation="nearest")


def _tick_names(ax, corners, width, names, title=None):
    """Name each tile above the first row of a canvas."""
    ax.set_xticks([x + (width - 1) / 2 for (x, _), _ in zip(corners, names)], list(names))
    ax.tick_params(top=False, bottom=False, labeltop=True, labelbottom=False)
    if title:
        ax.xaxis.set_label_position("top")
        ax.set_xlabel(title)


def _metric(name, arrow=True):
    text = METRICS.get(name, str(name).replace("_", " "))
    return text if arrow else text.rstrip(" ↑↓")


def _panels(count, width, height, title, columns, layout="constrained", **options):
    """Figure with `count` axes in rows of at most `columns`, and the axes in a list; width and height per axes."""
    columns = min(columns, count)
    fig = _figure(max(width * columns, 5), height * -(-count // columns) + 0.6, title, layout)
    axes = fig.subplots(-(-count // columns), columns, squeeze=False, **options).ravel()
    for ax in axes[count:]:
        ax.remove()
    return fig, list(axes[:count])
