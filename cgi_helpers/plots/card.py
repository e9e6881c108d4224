"""The report card: one table, perception against distortion, quality against hole size, galleries (`study.judges`)."""

import textwrap

import numpy as np
import pandas as pd

from .style import METRICS, PALETTE, _array, _figure, _paint_hole, _panels, _show, _tick_names, _tile

LABELS = {
    **METRICS,
    "l1": "mean error ↓",
    "l1_hole": "mean error in the hole ↓",
    "seam": "seam (0: as originals)",
    "detectability": "detectability (0.5: none) ↓",
    "detectability_others": "detectability,\nD of the other methods ↓",
    "frechet_distance": "Fréchet distance ↓",
    "frechet_distance_2": "Fréchet distance,\nsecond classifier ↓",
    "kernel_distance": "kernel distance ↓",
    "kernel_distance_2": "kernel distance,\nsecond classifier ↓",
    "label_agreement_2": "label agreement,\nsecond classifier ↑",
    "precision": "precision ↑",
    "recall": "recall ↑",
    "density": "density ↑",
    "coverage": "coverage ↑",
    "seconds": "seconds per image ↓",
}
# family -> (marker, colour, beginnings of its methods' names); told apart without colour
FAMILIES = {
    "semantic": ("s", PALETTE[0], ("semantic",)),
    "collaborative": ("o", PALETTE[1], ("collaborative", "field")),
    "feed-forward": ("^", PALETTE[2], ("unet", "context_encoder", "fourier_conv")),
    "from training images": ("D", PALETTE[4], ("nearest", "ridge", "mean", "patchmatch_training")),
    "from the image alone": ("v", PALETTE[5], ("telea", "navier", "biharmonic", "low_rank", "patchmatch")),
}
OTHER = ("P", "0.3", ())
MARKS = {"best": "★", "not worse": "●", "worse": ""}


def family(method):
    """Name of the family of a method; "other" for methods that no family knows."""
    found = [(len(s), name) for name, (_, _, starts) in FAMILIES.items() for s in starts if method.startswith(s)]
    return max(found)[1] if found else "other"


def style(method):
    """(marker, colour) of a method."""
    return FAMILIES.get(family(method), OTHER)[:2]


def half(value):
    """Half the width of a value's interval."""
    return (value["ci95"][1] - value["ci95"][0]) / 2


def _digits(value, digits=3, like=None):
    """The number with about `digits` digits, or with as many decimals as `like` needs for that."""
    size = abs(value if like is None else like) or abs(value) or 1
    return f"{value:.{int(np.clip(digits - 1 - np.floor(np.log10(size)), 0, 3))}f}"


def frame(table, metrics, methods=None):
    """The table as texts: a row per method, "mean ± half interval" per metric; ★ best, ● not worse than the best."""
    methods = list(methods or table["methods"])

    def text(method, metric):
        v = table["methods"][method].get(metric)
        if v is None:
            return "–"
        mark = MARKS[table["leaders"].get(metric, {}).get(method, "worse")]
        return f"{_digits(v['mean'], 2, half(v))} ± {_digits(half(v), 2)} {mark}".rstrip()

    return pd.DataFrame({m: [text(name, m) for name in methods] for m in metrics}, methods)


def card(texts, title="★ best, ● not worse than the best by the 95 % interval of their difference."):
    """`frame` drawn as a figure; cells with a mark are bold."""
    wide = [
        0.3 + 0.08 * texts.index.str.len().max(),
        *(max(1.1, 0.35 + 0.095 * texts[m].str.len().max()) for m in texts),
    ]
    fig = _figure(sum(wide), 0.27 * len(texts) + 1.1, title)
    ax = fig.add_subplot()
    ax.axis("off")
    together = [LABELS.get(m, m).replace(" ↓", "\u00a0↓").replace(" ↑", "\u00a0↑") for m in texts.columns]
    names = ["\n".join(textwrap.wrap(name, 14)) for name in together]
    tall = 1 + max(name.count("\n") for name in names)
    drawn = ax.table(
        [[name, *row] for name, row in zip(texts.index, texts.to_numpy())],
        colLabels=["", *names],
        cellLoc="center",
        bbox=[0, 0, 1, 1],
        colWidths=[w / sum(wide) for w in wide],
        edges="horizontal",
    )
    drawn.auto_set_font_size(False)
    drawn.set_fontsize(8 if sum(wide) <= fig.get_figwidth() else 6.8)  # a figure is at most 11 inches wide
    for (row, column), cell in drawn.get_celld().items():
        cell.set_edgecolor("0.8")
        cell.set_height(tall if row == 0 else 1)
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


TRADE = "Perception against distortion: up is closer to the original, left to real images; bars: 95 % intervals."


def plane(table, x="frechet_distance", y="psnr", methods=None, title=TRADE):
    """Every method as a point with its intervals, named at the right; dashed: what originals reach among themselves."""
    methods = [m for m in methods or table["methods"] if {x, y} <= table["methods"][m].keys()]
    points = {m: [table["methods"][m][k] for k in (x, y)] for m in methods}
    fig = _figure(9.5, max(4.4, 0.2 * len(methods) + 1.4), title)
    ax = fig.add_subplot()
    for m, (a, b) in points.items():
        marker, colour = style(m)
        ax.errorbar(
            a["mean"],
            b["mean"],
            [[half(b)]] * 2,
            [[half(a)]] * 2,
            fmt=marker,
            color=colour,
            ms=7,
            mec="white",
            mew=0.6,
            elinewidth=0.8,
            zorder=3,
        )
    size = np.sort([abs(a["mean"]) for a, _ in points.values()])
    if linear := size[-1] > 10 * np.median(size) and max(np.median(size), 1e-9):
        ax.set_xscale("symlog", linthresh=linear)
    if x in table.get("floor", {}):
        ax.axvline(table["floor"][x]["mean"], color="0.4", ls="--", lw=1, label="originals")
    ax.margins(0.06)
    if linear:  # powers of ten inside the linear part would lie on each other
        ax.set_xticks([tick for tick in ax.get_xticks() if not tick or abs(tick) >= linear], minor=False)
    at = ax.transData.transform([(a["mean"], b["mean"]) for a, b in points.values()])
    heights = ax.transAxes.inverted().transform(at)[:, 1]
    for (m, (a, b)), place in zip(points.items(), _spread(heights, 0.2 / (fig.get_figheight() - 1.4))):
        ax.annotate(
            m,
            (a["mean"], b["mean"]),
            (1.06, place),
            textcoords=ax.transAxes,
            va="center",
            fontsize=9,
            arrowprops={
                "arrowstyle": "-",
                "color": style(m)[1],
                "lw": 0.6,
                "alpha": 0.7,
                "shrinkA": 0,
                "relpos": (0, 0.5),
            },
        )
    for name in dict.fromkeys(map(family, methods)):
        marker, colour = FAMILIES.get(name, OTHER)[:2]
        ax.plot([], [], marker, color=colour, ms=7, label=name)
    fig.legend(loc="outside lower center", ncols=6, frameon=False, fontsize=9, handletextpad=0.2, columnspacing=1.2)
    ax.set(xlabel=LABELS.get(x, x).replace("\n", " "), ylabel=LABELS.get(y, y).replace("\n", " "))
    ax.grid(alpha=0.3)
    return fig


def hole_sizes(table, metrics, title="Quality against the size of the hole, with 95 % intervals over images."):
    """Long table `method`, `share` (of missing pixels), `metric`, `mean`, `lo`, `hi`: one panel per metric."""
    fig, axes = _panels(len(metrics), 3.6, 3.2, title, 3)
    for ax, metric in zip(axes, metrics):
        of = table[table["metric"] == metric]
        for k, (method, part) in enumerate(of.groupby("method", sort=False)):
            part, (marker, colour) = part.sort_values("share"), style(method)
            ax.plot(
                100 * part["share"],
                part["mean"],
                marker=marker,
                color=colour,
                ms=5,
                lw=1.5,
                ls=("-", "--", ":", "-.")[k % 4],
                label=method,
            )
            ax.fill_between(100 * part["share"], part["lo"], part["hi"], color=colour, alpha=0.2, lw=0)
        ax.set(xlabel="missing pixels (%)", title=LABELS.get(metric, metric))
        ax.grid(alpha=0.3)
    handles = {label: h for ax in axes for h, label in zip(*ax.get_legend_handles_labels())}
    columns = max(1, int(fig.get_figwidth() / 2.7))
    fig.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=columns, frameon=False)
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
