"""Every figure of the suite: functions of CPU tensors, numpy arrays or tables that return a `Figure`.

Nothing here touches pyplot, which is not thread-safe: a notebook displays the returned figure, a widget renders it to
PNG. Images are (N, C, H, W) in [-1, 1], C = 1 (grey, drawn from -1 to 1) or 3 (colour); masks are 1 = known.
"""

import textwrap

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, Polygon, Rectangle

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


# Shared pieces


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


# Figures 1 and 2: the two schemes, drawn in inches


def _diagram(width, height, title):
    fig = _figure(width, height, title)
    ax = fig.add_subplot()
    ax.set(xlim=(0, width), ylim=(0, height - 0.4), aspect="equal")
    ax.axis("off")
    return fig, ax


def _box(ax, x, y, text, width=1.3, height=0.9, colour="#dbe7f4", **style):
    """Rounded box centred at (x, y)."""
    ax.add_patch(
        FancyBboxPatch(
            (x - width / 2, y - height / 2),
            width,
            height,
            boxstyle="round,pad=0,rounding_size=0.08",
            facecolor=colour,
            **{"edgecolor": "0.25", "linewidth": 1.1, "zorder": 2, **style},
        )
    )
    ax.text(x, y, text, ha="center", va="center", fontsize=10, zorder=3, linespacing=1.35)


def _area(ax, left, bottom, width, height, name):
    """Pale background for the parts that belong together, named in its upper left corner."""
    ax.add_patch(
        FancyBboxPatch(
            (left, bottom),
            width,
            height,
            boxstyle="round,pad=0,rounding_size=0.12",
            facecolor="0.96",
            edgecolor="none",
            zorder=0,
        )
    )
    ax.text(left + 0.12, bottom + height - 0.1, name, va="top", fontsize=10.5, weight="bold", color="0.25")


def _arrow(ax, *points, text=None, at=None, colour="0.25", dashed=False):
    """Arrow through the points; `text` is centred at `at`."""
    line = dict(color=colour, lw=1.6, ls="--" if dashed else "-", zorder=1)
    ax.plot(*zip(*points[:-1]), **line)
    ax.annotate(
        "",
        points[-1],
        points[-2],
        zorder=1,
        arrowprops=dict(arrowstyle="-|>", mutation_scale=14, shrinkA=0, shrinkB=0, color=colour, lw=1.6, ls=line["ls"]),
    )
    if text:
        ax.text(*at, text, ha="center", va="center", fontsize=10, color=colour, linespacing=1.3)


SHIRT = np.array(
    [
        (35, 90),
        (43, 84),
        (57, 84),
        (65, 90),
        (92, 72),
        (82, 54),
        (72, 61),
        (72, 10),
        (28, 10),
        (28, 61),
        (18, 54),
        (8, 72),
    ]
)


def _picture(ax, x, y, label, shirt="0.85", inner=None, size=1.0, above=False):
    """Pictogram of an image: a shirt on black; `inner` fills the centre hole with HOLE or a shirt of another colour."""
    corner = np.array([x - size / 2, y - size / 2])
    ax.add_patch(Rectangle(corner, size, size, facecolor="0.1", edgecolor="0.25", zorder=2))
    ax.add_patch(Polygon(corner + SHIRT / 100 * size, facecolor=shirt, zorder=2))
    if inner:
        ax.add_patch(
            hole := Rectangle(
                corner + size / 4, size / 2, size / 2, facecolor=HOLE if inner == HOLE else "0.1", zorder=3
            )
        )
        ax.add_patch(part := Polygon(corner + SHIRT / 100 * size, facecolor=inner, zorder=4))
        part.set_clip_path(hole)
    ax.text(
        x,
        y + (0.5 * size + 0.07) * (1 if above else -1),
        label,
        ha="center",
        va="bottom" if above else "top",
        fontsize=10,
    )


def scheme_inpainting():
    """Figure 1: semantic inpainting (search for z-hat through G and D, then overlay); our own drawing."""
    fig, ax = _diagram(
        11,
        4.7,
        "Semantic inpainting: search for the z whose image fits the known pixels and looks real to D, "
        "then fill only the hole.",
    )
    _area(ax, 0.05, 0.05, 7.3, 4.1, "1  search")
    _area(ax, 7.5, 0.05, 3.45, 4.1, "2  overlay")
    _box(ax, 0.6, 3.0, "$z$", 0.7, 0.7, "#fdf0d5")
    _box(ax, 1.95, 3.0, "generator\n$G$ (frozen)", 1.2)
    _picture(ax, 3.45, 3.0, "$G(z)$", BLUE, above=True)
    _box(ax, 5.0, 3.0, "discriminator\n$D$ (frozen)")
    _box(ax, 6.6, 3.0, "prior loss\n$\\mathcal{L}_p = \\log(1-D)$", 1.3, colour="#f6dfd0")
    _picture(ax, 1.95, 1.45, "masked input $y$", inner=HOLE)
    _box(ax, 4.3, 1.45, "weighted context loss\n$\\mathcal{L}_c = \\|W\\odot(G(z)-y)\\|_1$", 2.7, colour="#f6dfd0")
    _box(ax, 6.6, 1.45, "$\\mathcal{L} = \\mathcal{L}_c + \\lambda\\,\\mathcal{L}_p$", 1.3, colour="#f6dfd0")
    for a, b in (
        ((0.95, 3.0), (1.35, 3.0)),
        ((2.55, 3.0), (2.95, 3.0)),
        ((3.95, 3.0), (4.35, 3.0)),
        ((5.65, 3.0), (5.95, 3.0)),
        ((3.45, 2.5), (3.45, 1.9)),
        ((2.45, 1.45), (2.95, 1.45)),
        ((5.65, 1.45), (5.95, 1.45)),
        ((6.6, 2.55), (6.6, 1.9)),
    ):
        _arrow(ax, a, b)
    _arrow(
        ax,
        (6.6, 1.0),
        (6.6, 0.25),
        (0.6, 0.25),
        (0.6, 2.65),
        colour=RED,
        dashed=True,
        text="gradient $\\partial\\mathcal{L}/\\partial z$ moves $z$ only; repeat; the best $z$ is $\\hat{z}$",
        at=(4.5, 0.47),
    )
    _picture(ax, 8.15, 3.0, "$G(\\hat{z})$", BLUE, above=True)
    _picture(ax, 8.15, 1.45, "$y$  (blue: $M=0$)", inner=HOLE)
    _picture(ax, 9.95, 2.22, "$y\\odot M + G(\\hat{z})\\odot(1-M)$", inner=BLUE)
    _arrow(ax, (8.65, 3.0), (9.05, 3.0), (9.05, 2.22), (9.45, 2.22))
    _arrow(ax, (8.65, 1.45), (9.05, 1.45), (9.05, 2.22), (9.45, 2.22))
    return fig


def scheme_collaborative():
    """Figure 2: collaborative sampling, discriminator shaping, and the composition that inpainting adds;
    our own drawing."""
    fig, ax = _diagram(
        11,
        5.6,
        "Collaborative sampling: D's gradient moves the features h inside G, never z; shaping then teaches D "
        "what refined samples look like.",
    )
    _area(ax, 0.05, 2.0, 10.9, 3.1, "1  refinement: repeat K steps")
    _area(ax, 0.05, 0.05, 10.9, 1.8, "2  shaping")
    _box(ax, 0.6, 3.6, "$z$", 0.7, 0.7, "#fdf0d5")
    _box(ax, 1.9, 3.6, "$G$, lower\nlayers $\\leq l$", 1.2)
    _box(ax, 3.4, 3.6, "features\n$h$", 1.0, colour="#fdf0d5", edgecolor=RED, linewidth=2)
    _box(ax, 4.9, 3.6, "$G$, upper\nlayers $> l$", 1.2)
    _picture(ax, 6.4, 3.6, "sample $x$", BLUE, above=True)
    _box(ax, 8.15, 3.6, "inpainting only:\n$y\\odot M + x\\odot(1-M)$", 1.75, colour="white", linestyle="--")
    _picture(ax, 8.15, 2.55, "", inner=HOLE, size=0.75)
    ax.text(8.62, 2.55, "masked\ninput $y$", va="center", fontsize=10)
    _box(ax, 10.15, 3.6, "discriminator\n$D$")
    ax.text(
        0.25, 2.5, "The lower part runs once,\nthe upper part at every step.", va="center", fontsize=10, linespacing=1.3
    )
    for a, b in (
        ((0.95, 3.6), (1.3, 3.6)),
        ((2.5, 3.6), (2.9, 3.6)),
        ((3.9, 3.6), (4.3, 3.6)),
        ((5.5, 3.6), (5.9, 3.6)),
        ((6.9, 3.6), (7.27, 3.6)),
        ((9.03, 3.6), (9.5, 3.6)),
        ((8.15, 2.93), (8.15, 3.15)),
    ):
        _arrow(ax, a, b)
    _arrow(
        ax,
        (10.15, 4.05),
        (10.15, 4.5),
        (3.4, 4.5),
        (3.4, 4.05),
        colour=RED,
        dashed=True,
        at=(6.8, 4.75),
        text="gradient of $\\mathcal{L}_G = \\log(1-D)$ with respect to $h$:   "
        "$h \\leftarrow h - \\mathrm{step}\\cdot\\partial\\mathcal{L}_G/\\partial h$",
    )
    ax.text(
        0.25,
        0.9,
        "$G$ is not changed. For inpainting,\n$D$ sees composites here as well.",
        va="center",
        fontsize=10,
        linespacing=1.3,
    )
    _box(ax, 5.68, 0.97, "", 2.9, 1.56, colour="white", linewidth=0.8, zorder=0.5)
    _picture(ax, 4.95, 1.14, "real images")
    _picture(ax, 6.4, 1.14, "refined samples", BLUE)
    _box(ax, 10.15, 0.95, "train $D$:\nreal against\nrefined", colour="#f6dfd0")
    _arrow(ax, (6.4, 3.1), (6.4, 1.64), text="after\n$K$ steps", at=(6.85, 2.4))
    _arrow(ax, (7.13, 0.95), (9.5, 0.95))
    _arrow(ax, (10.15, 1.4), (10.15, 3.15))
    return fig


# Images


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


# Curves and distributions


def losses(history, sample_steps=None):
    """Training of the GAN. history: 1-D d_loss, g_loss, real, fake (mean D(x)) per iteration;
    `sample_steps`: iterations to mark."""
    fig = _figure(
        10.5,
        3.8,
        "Training: raw values (light) and their running mean. At equilibrium D(x) = 1/2 on both kinds of image.",
    )
    left, right = fig.subplots(1, 2)
    for ax, key, name, colour in (
        (left, "d_loss", "discriminator", BLUE),
        (left, "g_loss", "generator", ORANGE),
        (right, "real", "real images", GREEN),
        (right, "fake", "generated images", RED),
    ):
        values = pd.Series(_array(history[key]), index=np.arange(1, len(history[key]) + 1))
        ax.plot(values, color=colour, lw=0.5, alpha=0.3, rasterized=True)
        ax.plot(
            values.rolling(max(1, len(values) // 100), center=True, min_periods=1).mean(),
            color=colour,
            lw=1.8,
            label=name,
        )
    right.axhline(0.5, color="0.4", lw=1, ls="--")
    for ax in (left, right):
        for k, step in enumerate(sample_steps or ()):
            ax.axvline(step, color="0.5", lw=1, ls=":", zorder=0, label=None if k else "sample grids")
        ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=3, frameon=False)
        ax.set_xlabel("iteration")
        ax.grid(alpha=0.3)
    left.set(ylabel="loss", ylim=(0, None))
    right.set(ylabel="mean D(x)", ylim=(0, 1))
    return fig


def score_path(scores, threshold=None, label="D(x)"):
    """D's score along refinement: scores (steps + 1, N), thin line per image, bold mean;
    `threshold`: median over real images."""
    s = _array(scores)
    fig = _figure(7, 4, "D's score along the refinement: each thin line is one image.")
    ax = fig.add_subplot()
    ax.plot(s, color=BLUE, lw=0.7, alpha=0.35)
    ax.plot(s.mean(1), color=RED, lw=2.8, label=f"mean of {s.shape[1]} images")
    if threshold is not None:
        ax.axhline(float(threshold), color="black", ls="--", lw=1.5, label="median over real images")
    ax.set(xlabel="refinement step", ylabel=label, xlim=(0, max(1, len(s) - 1)))
    ax.grid(alpha=0.3)
    ax.legend()
    return fig


def plane(
    panels, extent, centers=None, title="A mixture in the plane: refinement moves samples to where D finds real ones."
):
    """Samples over D's landscape in 2-D, one panel per dict {"points" (N, 2), "title", "score", "moves"}.

    score (optional): D values (Y, X), row 0 at the lowest y; moves (optional): (N, 2) starts of arrows to the points;
    extent: (left, right, bottom, top); centers (optional): (K, 2) modes of the real mixture, marked +. One scale for
    all scores.
    """
    fig, axes = _panels(
        len(panels), 3.4, 3.1, title, 2 if len(panels) == 4 else 3, "compressed", sharex=True, sharey=True
    )
    scores = [_array(p["score"]) for p in panels if p.get("score") is not None]
    for ax, panel in zip(axes, panels):
        points, dark = _array(panel["points"]), panel.get("score") is not None
        if dark:
            landscape = ax.imshow(
                _array(panel["score"]),
                origin="lower",
                extent=extent,
                cmap="cividis",
                interpolation="bilinear",
                vmin=min(s.min() for s in scores),
                vmax=max(s.max() for s in scores),
            )
        if panel.get("moves") is not None:
            start = _array(panel["moves"])
            ax.quiver(
                *start.T,
                *(points - start).T,
                angles="xy",
                scale_units="xy",
                scale=1,
                width=0.005,
                headwidth=4,
                color="white" if dark else "0.5",
                zorder=2,
            )
        ax.scatter(*points.T, s=9, color=RED, edgecolor="white", linewidth=0.3, zorder=3)
        if centers is not None:
            ax.scatter(*_array(centers).T, marker="+", s=90, color="black", linewidth=1.6, zorder=4)
        ax.set(title=panel["title"], xlim=extent[:2], ylim=extent[2:], aspect="equal")
        ax.locator_params(nbins=4, prune="both")
    if scores:
        fig.colorbar(landscape, ax=axes, shrink=0.8, aspect=30, label="D(x)")
    return fig


def change_by_region(table):
    """|change| inside the hole against outside: long table `method`, `region`, `change` (per image);
    bars with 95 % intervals."""
    fig = _figure(
        max(2.2 * table["method"].nunique(), 7),
        4,
        "Where refinement changes the image: mean |change| with 95 % intervals.",
    )
    ax = fig.add_subplot()
    sns.barplot(
        table,
        x="method",
        y="change",
        hue="region",
        palette=PALETTE[: table["region"].nunique()],
        errorbar=("ci", 95),
        n_boot=500,
        seed=0,
        err_kws={"color": "black", "linewidth": 1.3},
        capsize=0.12,
        ax=ax,
    )
    for bar in (bar for bars in ax.containers for bar in bars):
        left, right = bar.get_x(), bar.get_x() + bar.get_width()
        whiskers = [np.nanmax(line.get_ydata()) for line in ax.lines if left < np.nanmean(line.get_xdata()) < right]
        ax.annotate(
            f"{bar.get_height():.3f}",
            ((left + right) / 2, max([bar.get_height(), *whiskers])),
            (0, 3),
            textcoords="offset points",
            ha="center",
            va="bottom",
            fontsize=9,
        )
    ax.margins(y=0.15)
    ax.set(xlabel="", ylabel="|change| (grey range 2)")
    ax.legend(title="")
    return fig


def logit_histogram(series, title="What D thinks of each kind of image; dashed: medians."):
    """Overlaid histograms with shared bins: name -> 1-D logits."""
    values = {name: _array(v).ravel() for name, v in series.items()}
    bins = np.histogram_bin_edges(np.concatenate(list(values.values())), 40)
    fig = _figure(7.5, 4, title)
    ax = fig.add_subplot()
    for (name, v), colour in zip(values.items(), PALETTE):
        ax.hist(v, bins, density=True, histtype="stepfilled", alpha=0.15, color=colour)
        ax.hist(v, bins, density=True, histtype="step", lw=1.8, color=colour, label=name)
        ax.axvline(np.median(v), color=colour, ls="--", lw=1.4)
    ax.set(xlabel="logit of D(x)   (0: undecided, larger: more real)", ylabel="density")
    ax.legend()
    return fig


# Evaluation tables


def metric_by_stage(table, metrics=None):
    """Metrics along shaping: long table `row`, `stage` (epochs), `metric`, `mean`, `lo`, `hi`, one panel per metric.

    Rows whose stage is NaN (no refinement) become horizontal black lines; bands are the intervals lo to hi.
    """
    metrics = list(metrics or table["metric"].unique())
    names, lines = list(table["row"].unique()), list(table.loc[table["stage"].isna(), "row"].unique())
    columns = {1: 1, 2: 2, 4: 2}.get(len(metrics), 3 if len(metrics) < 7 else 4)
    fig, axes = _panels(
        len(metrics),
        min(10.8 / columns, 5.4),
        2.8,
        "Metrics along discriminator shaping, with 95 % intervals over images; black: without refinement.",
        columns,
    )
    for ax, metric in zip(axes, metrics):
        for name, part in table[table["metric"] == metric].groupby("row", sort=False):
            for _, r in part[part["stage"].isna()].iterrows():
                ax.axhline(r["mean"], color="black", ls=("--", ":", "-.")[lines.index(name) % 3], lw=1.5, label=name)
                ax.axhspan(r["lo"], r["hi"], color="black", alpha=0.07, lw=0)
            if len(part := part.dropna(subset="stage").sort_values("stage")):
                k = names.index(name)
                ax.plot(
                    part["stage"],
                    part["mean"],
                    color=PALETTE[k % 10],
                    marker="osD^vPX*"[k % 8],
                    ms=5,
                    lw=1.8,
                    label=name,
                )
                ax.fill_between(part["stage"], part["lo"], part["hi"], color=PALETTE[k % 10], alpha=0.2, lw=0)
        ax.set_title(_metric(metric), fontsize=10)
        ax.set_xlabel("shaping epochs")
        ax.grid(alpha=0.3)
    handles = {label: h for ax in axes for h, label in zip(*ax.get_legend_handles_labels())}
    fig.legend(
        handles.values(),
        handles.keys(),
        loc="outside lower center",
        ncols=min(int(fig.get_figwidth() / 2.7), len(handles)),
        frameon=False,
    )
    return fig


def paired_gains(table):
    """Forest plot: columns `metric`, `start`, `mean`, `lo`, `hi`; positive = collaborative better.

    Filled = interval excludes 0 or, with a column `p` (adjusted for the number of tests), p below 0.05.
    """
    metrics, starts = list(table["metric"].unique()), list(table["start"].unique())
    fig, axes = _panels(
        len(metrics),
        2.7,
        0.9 + 0.42 * len(starts),
        "Paired gain of collaborative over semantic "
        "inpainting with 95 % intervals: right of 0 is better, hollow is undecided"
        + (" (all tests taken together)." if "p" in table else "."),
        4,
        sharey=True,
    )
    for ax, metric in zip(axes, metrics):
        for _, r in table[table["metric"] == metric].iterrows():
            k, decided = starts.index(r["start"]), r["p"] < 0.05 if "p" in r else r["lo"] * r["hi"] > 0
            ax.plot([r["lo"], r["hi"]], [k, k], color=PALETTE[k % 10], lw=2)
            ax.plot(
                r["mean"],
                k,
                "o",
                ms=8,
                color=PALETTE[k % 10],
                mew=2,
                mfc=PALETTE[k % 10] if decided else "white",
            )
        ax.axvline(0, color="black", lw=1)
        ax.margins(x=0.12)
        ax.set_title(_metric(metric, arrow=False), fontsize=10)
        ax.set(yticks=range(len(starts)), yticklabels=starts, ylim=(len(starts) - 0.5, -0.5))
        ax.locator_params(axis="x", nbins=4)
        ax.grid(axis="x", alpha=0.3)
    return fig


def gain_distribution(table, metric):
    """Per-image gains by class: columns `row` (who gains, over what: the title of its panel), `class_name`, `gain`;
    violins with quartiles, and the share of images that gain."""
    order = table.groupby("class_name")["gain"].median().sort_values(ascending=False).index
    rows = list(table["row"].unique())
    fig, axes = _panels(
        len(rows),
        10.6 / max(2, len(rows)),
        0.42 * len(order) + 1.2,
        f"Gain in {_metric(metric, arrow=False)} of every image, by class; lines: quartiles; "
        "right: share of images that gain.",
        len(rows),
        sharex=True,
        sharey=True,
    )
    for ax, row in zip(axes, rows):
        part = table[table["row"] == row]
        sns.violinplot(
            part,
            x="gain",
            y="class_name",
            order=order,
            orient="h",
            color=HOLE,
            inner="quartile",
            density_norm="width",
            cut=0,
            linewidth=1,
            ax=ax,
        )
        ax.axvline(0, color="black", lw=1)
        for i, name in enumerate(order):
            ax.text(
                1.01,
                i,
                f"{(part.loc[part['class_name'] == name, 'gain'] > 0).mean():.0%}",
                va="center",
                transform=ax.get_yaxis_transform(),
            )
        middle, share = part["gain"].median(), (part["gain"] > 0).mean()
        ax.set_title(f"{row}\nmedian {middle:+.2f}, {share:.0%} of the images gain", fontsize=10)
        ax.set(xlabel=f"gain in {_metric(metric, arrow=False)}", ylabel="")
        ax.grid(axis="x", alpha=0.3)
    return fig
