"""Grids and rows of images, masks, the weight map, the progress of a search."""

import numpy as np

from .style import BLUE, HOLE, ORANGE, ROWS, _array, _figure, _paint_hole, _panels, _show, _tick_names, _tile


def image_grid(images, columns=8, title=None, labels=None):
    """Figures 7-10 and galleries: images (N, C, H, W) in rows of `columns`; `labels` are N short texts under them."""
    n, _, h, w = images.shape
    columns = min(columns, n)
    size = min(1.05, 10.6 / columns)  # inches per tile
    below = int(np.ceil(0.25 / size * w)) if labels is not None else 0
    canvas, corners = _tile(images, columns, below=below)
    fig = _figure(max(canvas.shape[1] / w * size, 4) + 0.2, canvas.shape[0] / w * size + (0.5 if title else 0.1), title)
    ax = fig.add_subplot()
    _show(ax, canvas)
    for (x, y), text in zip(corners, labels if labels is not None else ()):
        ax.text(x + w / 2, y + h + below / 2, text, ha="center", va="center", fontsize=9)
    return fig


def rows(
    masked,
    before,
    after,
    original,
    columns=None,
    groups=None,
    vmax=None,
    labels=ROWS,
    mask=None,
    column_title=None,
    title="What refinement changes, and where: the heat map is the difference between the rows around it.",
):
    """Figures 3-6 and 11-18: masked input, before, |after - before|, after, original, one strip of N columns each.

    All four are (N, C, H, W) in [-1, 1]. `columns`: N texts above (shaping epochs in figures 4 and 6), named by
    `column_title`; `groups`: sizes of column groups, as [6, 6]. The heat map is the mean of |after - before| over
    channels, one scale for all (0 to `vmax`, by default the 99.5 % quantile). `mask` (1 or N, 1, H, W): the hole is
    drawn flat and outlined.
    """
    n, _, h, w = after.shape
    change = np.abs(_array(after) - _array(before)).mean(1, keepdims=True)
    vmax = vmax or np.quantile(change, 0.995) or 1e-3
    size = min(1.1, 9.6 / (n + 0.2 * len(groups or ())))  # inches per tile
    bar = min(5, n * size * 1.07)  # inches of colour bar
    fig = _figure(
        max(n * size * 1.07 + 1.1, 6.5),
        5.2 * size * h / w + 1.5 + 0.3 * (columns is not None) + 0.3 * bool(column_title),
        title,
        "compressed",
    )
    axes = fig.subplots(5, 1)
    corners = _tile(after, groups=groups)[1]
    strips = [
        _show(ax, _tile(images, groups=groups)[0], heat=vmax if images is change else None)
        for ax, images in zip(axes, (masked, before, change, after, original))
    ]
    for ax, label in zip(axes, labels):
        ax.set_ylabel(label, rotation=0, ha="right", va="center")
    if mask is not None:
        mask = np.broadcast_to(_array(mask), (n, 1, h, w))
        known = _tile(mask, groups=groups, fill=1)[0][..., 0]
        _paint_hole(axes[0], known)
        edges = np.abs(np.diff(mask)).sum() + np.abs(np.diff(mask, axis=2)).sum()
        if edges < 1.4 * min(mask.sum(), (1 - mask).sum()):  # outlines of scattered pixels would hide the heat
            y, x = (np.arange(-1, k + 1) for k in known.shape)
            axes[2].contour(x, y, np.pad(known, 1, constant_values=1), [0.5], colors=BLUE, linewidths=0.8)
            axes[2].set(xlim=axes[1].get_xlim(), ylim=axes[1].get_ylim())
    if columns is not None:
        _tick_names(axes[0], corners, w, columns, column_title)
    fig.colorbar(
        strips[2],
        ax=axes,
        location="bottom",
        shrink=bar / (n * size * 1.07),
        aspect=bar / 0.14,
        extend="max" if change.max() > vmax else "neither",
        label="|change| (grey range 2)",
    )
    return fig


def masks(named):
    """Masks side by side: name -> (1, 1, H, W), 1 = known; each with its share of missing pixels."""
    fig, axes = _panels(len(named), 1.8, 2.1, "Masks: blue pixels are missing.", columns=6)
    for ax, (name, mask) in zip(axes, named.items()):
        known = _array(mask)[0, 0]
        _show(ax, np.full((*known.shape, 1), 0.7))
        _paint_hole(ax, known)
        ax.set_title(f"{name}\n{(known < 0.5).mean():.0%} missing", fontsize=10)
    return fig


def weight(mask, weight):
    """Mask (1, 1, H, W), importance weight W of the same shape, and W along the middle row."""
    known, w = _array(mask)[0, 0], _array(weight)[0, 0]
    middle, hole = known.shape[0] // 2, known[known.shape[0] // 2] < 0.5
    fig, (left, centre, right) = _panels(
        3, 3.5, 3.0, "The context loss counts known pixels by their weight W: only a ring around the hole matters.", 3
    )
    _show(left, np.full((*known.shape, 1), 0.7))
    _paint_hole(left, known)
    fig.colorbar(_show(centre, w[..., None], heat=w.max()), ax=centre, shrink=0.8, label="W")
    centre.axhline(middle, color="black", lw=1, ls="--")
    right.step(np.arange(len(hole)), w[middle], where="mid", color=BLUE, lw=1.8, label="W")
    right.fill_between(
        np.arange(len(hole) + 1) - 0.5,
        1,
        where=np.append(hole, False) | np.insert(hole, 0, False),
        color=HOLE,
        alpha=0.35,
        lw=0,
        transform=right.get_xaxis_transform(),
        label="hole",
    )
    right.set(xlabel="column", ylabel="W", ylim=(0, None))
    right.legend(loc="center")
    for ax, title in ((left, "mask (blue: missing)"), (centre, "weight W"), (right, f"W along row {middle} (dashed)")):
        ax.set_title(title, fontsize=10)
    return fig


def search_progress(frames, iterations, context, prior):
    """The latent search watched: images after given iterations over the two loss curves.

    frames: (T, C, H, W) or (T, 1, C, H, W); iterations: T numbers; context, prior: 1-D losses of every iteration.
    """
    canvas, corners = _tile(frames := frames.reshape(-1, *frames.shape[-3:]))
    height = min(10.3 * canvas.shape[0] / canvas.shape[1], 2)  # inches
    fig = _figure(
        10.5, height + 4, "The search: the image settles while the context loss falls. Dotted: the images above."
    )
    top, bottom = fig.subfigures(2, 1, height_ratios=(height + 0.6, 3))
    _show(ax := top.add_subplot(), canvas)
    _tick_names(ax, corners, frames.shape[-1], iterations, "iteration")
    for ax, values, name, colour in zip(
        bottom.subplots(1, 2), (context, prior), ("context loss", "prior loss"), (BLUE, ORANGE)
    ):
        values = _array(values)
        ax.plot(np.arange(1, len(values) + 1), values, color=colour, lw=1.3)
        for i in iterations:
            ax.axvline(i, color="0.6", lw=0.8, ls=":", zorder=0)
        ax.set(xlabel="iteration", ylabel=name, yscale="log" if (values > 0).all() else "linear")
        ax.grid(alpha=0.3)
    return fig


def disagreements(
    original,
    first,
    second,
    captions,
    names=("original", "semantic", "collaborative"),
    title="PSNR and recognisability disagree: the closer image is not always the better garment.",
):
    """Section VI's warning: N cases in columns; rows original, first, second, (N, C, H, W) each.

    captions: N triples of short texts (may contain newlines) drawn under the three images.
    """
    n, _, h, w = original.shape
    size = min(1.4, 9 / n)
    fig = _figure(max((size + 0.1) * n + 1.2, 6), 3 * (size * h / w + 0.45) + 0.45, title, "compressed")
    for k, (row, images, name) in enumerate(zip(fig.subplots(3, n, squeeze=False), (original, first, second), names)):
        row[0].set_ylabel(name, rotation=0, ha="right", va="center")
        for ax, image, texts in zip(row, images, captions):
            _show(ax, _tile(image[None])[0])
            ax.set_xlabel(texts[k], fontsize=9)
    return fig
