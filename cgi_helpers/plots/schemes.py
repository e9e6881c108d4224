"""Figures 1 and 2 of the report: the two schemes, drawn in inches."""

import numpy as np
from matplotlib.patches import FancyBboxPatch, Polygon, Rectangle

from .style import BLUE, HOLE, RED, _figure


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
