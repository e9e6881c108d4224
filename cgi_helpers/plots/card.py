"""The report card: one table, perception against distortion, quality against hole size, galleries. See `study.judges`."""

import numpy as np
import pandas as pd

from . import METRICS, PALETTE, _array, _figure, _paint_hole, _panels, _show, _tick_names, _tile

LABELS = {**METRICS, "l1": "mean error ↓", "l1_hole": "mean error in the hole ↓", "seam": "seam (0: as originals)",
          "detectability": "detectability (0.5: none) ↓", "frechet_distance": "Fréchet distance ↓",
          "frechet_distance_2": "Fréchet distance,\nsecond classifier ↓", "kernel_distance": "kernel distance ↓",
          "kernel_distance_2": "kernel distance,\nsecond classifier ↓", "label_agreement_2": "label agreement,\nsecond classifier ↑",
          "precision": "precision ↑", "recall": "recall ↑", "density": "density ↑", "coverage": "coverage ↑",
          "seconds": "seconds per image ↓"}
# family -> (marker, colour, beginnings of its methods' names); told apart without colour
FAMILIES = {"semantic": ("s", PALETTE[0], ("semantic",)),
            "collaborative": ("o", PALETTE[1], ("collaborative", "field")),
            "feed-forward": ("^", PALETTE[2], ("unet", "context_encoder", "fourier_conv")),
            "from training images": ("D", PALETTE[4], ("nearest", "ridge", "mean", "patchmatch_training")),
            "from the image alone": ("v", PALETTE[5], ("telea", "navier_stokes", "biharmonic", "low_rank", "patchmatch"))}
MARKS = {"best": "★", "not worse": "●", "worse": ""}


def family(method):
    """Name of the family of a method; "other" for methods that no family knows."""
    found = [(len(start), name) for name, (_, _, starts) in FAMILIES.items() for start in starts if method.startswith(start)]
    return max(found)[1] if found else "other"


def style(method):
    """(marker, colour) of a method."""
    return FAMILIES.get(family(method), ("P", "0.3", ()))[:2]


def _digits(value):
    """The number in about three digits."""
    return f"{value:.{max(0, min(3, 2 - int(np.floor(np.log10(max(abs(value), 1e-3))))))}f}"


def frame(table, metrics, methods=None):
    """The table as texts: a row per method, "mean ± half interval" per metric, ★ the best, ● not worse than the best."""
    methods = list(methods or table["methods"])

    def text(method, metric):
        v = table["methods"][method].get(metric)
        if v is None:
            return "–"
        mark = MARKS[table["leaders"].get(metric, {}).get(method, "worse")]
        return f"{_digits(v['mean'])} ± {_digits((v['ci95'][1] - v['ci95'][0]) / 2)} {mark}".rstrip()
    return pd.DataFrame({m: [text(name, m) for name in methods] for m in metrics}, methods)


def card(texts, title="★ best, ● not worse than the best by the 95 % interval of their difference."):
    """`frame` drawn as a figure: cells with a mark are shaded."""
    widths = [2.1] + [1.45] * len(texts.columns)
    fig = _figure(sum(widths) * 0.9, 0.27 * len(texts) + 1.0, title)
    ax = fig.add_subplot()
    ax.axis("off")
    names = [LABELS.get(m, m).replace(" (", "\n(").replace(" ↓", "\u00a0↓").replace(" ↑", "\u00a0↑") for m in texts.columns]
    drawn = ax.table([[name, *row] for name, row in zip(texts.index, texts.to_numpy())], colLabels=["", *names], loc="center",
                     cellLoc="center", bbox=[0, 0, 1, 1], colWidths=[w / sum(widths) for w in widths], edges="horizontal")
    drawn.auto_set_font_size(False)
    drawn.set_fontsize(9)
    for (row, column), cell in drawn.get_celld().items():
        cell.set_edgecolor("0.8")
        cell.set_height(2.2 if row == 0 else 1)
        if column == 0:
            cell.get_text().set_horizontalalignment("left")
        if cell.get_text().get_text().endswith(("★", "●")):
            cell.set_text_props(weight="bold")
    return fig


def _spread(places, gap):
    """The places, moved apart to at least `gap`, in their order, within 0 to 1 as far as they fit."""
    order, out = np.argsort(places), np.array(places, float)
    for a, b in zip(order, order[1:]):
        out[b] = max(out[b], out[a] + gap)
    for a, b in zip(order[::-1], order[-2::-1]):
        out[order[-1]] = min(out[order[-1]], 1)
        out[b] = min(out[b], out[a] - gap)
    return out


def plane(table, x="frechet_distance", y="psnr", methods=None,
          title="Perception against distortion: up is closer to the original, left is closer to real images; bars: 95 % intervals."):
    """Every method as a point with its intervals, named at the right; the dashed line is what originals reach among themselves."""
    methods = [m for m in methods or table["methods"] if {x, y} <= table["methods"][m].keys()]
    points = {m: [table["methods"][m][k] for k in (x, y)] for m in methods}
    fig = _figure(9.5, max(4.4, 0.21 * len(methods) + 1.2), title)
    ax = fig.add_subplot()
    for m, (a, b) in points.items():
        marker, colour = style(m)
        ax.errorbar(a["mean"], b["mean"], xerr=(a["ci95"][1] - a["ci95"][0]) / 2, yerr=(b["ci95"][1] - b["ci95"][0]) / 2,
                    fmt=marker, color=colour, ms=7, mec="white", mew=0.6, elinewidth=1, zorder=3)
    values = np.array([a["mean"] for a, _ in points.values()])
    if values.max() > 10 * abs(np.median(values)):
        ax.set_xscale("symlog", linthresh=max(abs(np.median(values)) / 3, 1e-9))
    if x in table.get("floor", {}):
        ax.axvline(table["floor"][x]["mean"], color="0.4", ls="--", lw=1, label="originals")
    ax.margins(0.06)
    fig.canvas.draw_idle()
    heights = ax.transAxes.inverted().transform(ax.transData.transform([(a["mean"], b["mean"]) for a, b in points.values()]))[:, 1]
    for (m, (a, b)), place in zip(points.items(), _spread(heights, 0.21 / (fig.get_figheight() - 1.1))):
        ax.annotate(m, (a["mean"], b["mean"]), (1.06, place), textcoords=ax.transAxes, va="center", fontsize=9,
                    arrowprops={"arrowstyle": "-", "color": style(m)[1], "lw": 0.5, "alpha": 0.6})
    for name in dict.fromkeys(map(family, methods)):
        marker, colour = FAMILIES.get(name, ("P", "0.3"))[:2]
        ax.plot([], [], marker, color=colour, ms=7, label=name)
    fig.legend(loc="outside lower center", ncols=4, frameon=False)
    ax.set(xlabel=LABELS.get(x, x).replace("\n", " "), ylabel=LABELS.get(y, y).replace("\n", " "))
    ax.grid(alpha=0.3)
    return fig


def hole_sizes(table, metrics, title="Quality against the size of the hole, with 95 % intervals over images."):
    """Long table `method`, `share` (of missing pixels), `metric`, `mean`, `lo`, `hi`: one panel per metric."""
    fig, axes = _panels(len(metrics), 3.6, 3.2, title, 3)
    for ax, metric in zip(axes, metrics):
        for method, part in table[table["metric"] == metric].groupby("method", sort=False):
            part, (marker, colour) = part.sort_values("share"), style(method)
            ax.plot(100 * part["share"], part["mean"], marker=marker, color=colour, ms=5, lw=1.5, label=method)
            ax.fill_between(100 * part["share"], part["lo"], part["hi"], color=colour, alpha=0.2, lw=0)
        ax.set(xlabel="missing pixels (%)", title=LABELS.get(metric, metric))
        ax.grid(alpha=0.3)
    handles = {label: h for ax in axes for h, label in zip(*ax.get_legend_handles_labels())}
    fig.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=4, frameon=False)
    return fig


def gallery(named, columns, mask=None, title="Chosen by rule, not by taste."):
    """Completions of the same images: name -> (n, C, H, W), a row each; `columns` names the images.

    mask (1 or n, 1, H, W): the first row is the input, its hole painted.
    """
    n, _, h, w = next(iter(named.values())).shape
    side = min(0.95, 8.6 / n)
    fig = _figure(max(n * side + 2, 6), len(named) * side * h / w + 0.6, title, "compressed")
    for k, (ax, (name, images)) in enumerate(zip(fig.subplots(len(named), 1, squeeze=False)[:, 0], named.items())):
        canvas, corners = _tile(images)
        _show(ax, canvas)
        ax.set_ylabel(name, rotation=0, ha="right", va="center", fontsize=9)
        if k == 0:
            _tick_names(ax, corners, w, columns)
            if mask is not None:
                _paint_hole(ax, _tile(np.broadcast_to(_array(mask), (n, 1, h, w)), fill=1)[0][..., 0])
    return fig


def classes(values, label, title="Where each method fails, by class."):
    """Heat map of a table: rows are methods, columns are classes, numbers in the cells; one sequential scale."""
    fig = _figure(0.75 * len(values.columns) + 2.4, 0.3 * len(values) + 1.4, title)
    ax = fig.add_subplot()
    numbers = values.to_numpy(float)
    shown = ax.imshow(numbers, cmap="cividis", aspect="auto")
    middle = (np.nanmin(numbers) + np.nanmax(numbers)) / 2
    for (i, j), v in np.ndenumerate(numbers):
        ax.text(j, i, _digits(v), ha="center", va="center", fontsize=9, color="black" if v > middle else "white")
    ax.set_xticks(range(len(values.columns)), values.columns, rotation=35, ha="right")
    ax.set_yticks(range(len(values)), values.index)
    fig.colorbar(shown, ax=ax, label=label)
    return fig
