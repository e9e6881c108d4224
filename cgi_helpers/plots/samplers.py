"""Samplers side by side: is D's output a frequency, and what does each method do to quality, diversity and cost?"""

import numpy as np

from .style import BLUE, METRICS, ORANGE, _panels

LABELS = {
    **METRICS,
    "good": "share of\ngood points ↑",
    "js": "JS divergence of\nthe modes (nats) ↓",
    "energy": "energy\ndistance ↓",
    "calls": "calls of D\nper sample",
    "precision": "precision ↑",
    "recall": "recall ↑",
    "density": "density ↑",
    "coverage": "coverage ↑",
    "gain": "times nearer\nthan plain ↑",
    "frechet_distance": "Fréchet\ndistance ↓",
}
SERIES = (("o", BLUE), ("D", ORANGE), ("^", "0.35"), ("s", "#56b4e9"))  # told apart without colour


def reliability(curves, title="Is D(x) a frequency? On the diagonal it is. Marks grow with the share of images."):
    """Reliability of D, one panel per name -> {"before", "after": see `method.samplers.reliability`}; None or NaN: an
    empty bin."""
    fig, axes = _panels(len(curves), 4.2, 4.4, title, 2, sharex=True, sharey=True)
    for ax, (name, curve) in zip(axes, curves.items()):
        ax.plot([0, 1], [0, 1], color="0.5", lw=1, ls="--", zorder=1)
        for when, (marker, colour), line in zip(("before", "after"), SERIES, (":", "-")):
            x, y, share = (
                np.array([np.nan if v is None else v for v in curve[when][k]], float)
                for k in ("confidence", "frequency", "share")
            )
            ax.plot(x, y, color=colour, ls=line, lw=1.2, zorder=2)
            ax.scatter(
                x,
                y,
                s=15 + 300 * np.nan_to_num(share),
                marker=marker,
                color=colour,
                edgecolor="white",
                linewidth=0.6,
                zorder=3,
            )
        scores = "\n".join(
            f"{when}: Brier {curve[when]['brier']:.3f}, ECE {curve[when]['ece']:.3f}" for when in ("before", "after")
        )
        ax.set(title=name, xlabel=f"D(x)\n{scores}", xlim=(-0.03, 1.03), ylim=(-0.03, 1.03))
        ax.grid(alpha=0.3)
    for ax in axes[::2]:
        ax.set_ylabel("frequency of real images")
    marks = [axes[0].plot([], [], marker + line, color=colour)[0] for (marker, colour), line in zip(SERIES, (":", "-"))]
    fig.legend(marks, ["before calibration", "after"], loc="outside lower center", ncols=2, frameon=False)
    return fig


def dots(tables, columns, floor=None, log=(), title="What each method does to quality, diversity and cost."):
    """A panel per column, a row per method, a mark per table: name -> DataFrame (methods x columns).

    Methods stand in the order in which the tables name them first; what is NaN or missing has no mark. floor
    (optional): column -> value of real images, dashed. log: columns on a logarithmic axis.
    """
    methods = list(dict.fromkeys(m for table in tables.values() for m in table.index))
    fig, axes = _panels(len(columns), 2.2, 0.3 * len(methods) + 1.1, title, len(columns), sharey=True)
    for ax, column in zip(axes, columns):
        for k, (table, (marker, colour)) in enumerate(zip(tables.values(), SERIES)):
            values = table[column].astype(float).reindex(methods).to_numpy()
            shift = 0.16 * (k - (len(tables) - 1) / 2)  # marks of one method lie above one another
            ax.plot(values, np.arange(len(methods)) + shift, marker, color=colour, ms=7, mec="white", mew=0.6, zorder=3)
        if floor and column in floor:
            ax.axvline(floor[column], color="0.4", ls="--", lw=1, zorder=1)
        if column in log:
            ax.set_xscale("symlog", linthresh=1)
        ax.set(xlabel=LABELS.get(column, column), ylim=(len(methods) - 0.5, -0.5))
        ax.margins(x=0.12)
        ax.grid(alpha=0.3)
    axes[0].set_yticks(range(len(methods)), methods)
    if len(tables) > 1:
        marks = [axes[0].plot([], [], marker, color=colour, ms=7)[0] for marker, colour in SERIES[: len(tables)]]
        fig.legend(marks, list(tables), loc="outside lower center", ncols=len(tables), frameon=False)
    return fig


def gains(tables, title):
    """A row of panels per mixture, a panel per column: a row per method, its mean gain over `plain`, its interval over
    seeds and each seed's own gain; from `study.sampled.plane`. A filled mark: the interval leaves 0 out."""
    columns = list(next(iter(tables.values())))
    methods = list(dict.fromkeys(m for row in tables.values() for table in row.values() for m in table.index))
    count, height = len(tables) * len(columns), 0.27 * len(methods) + 0.9
    fig, axes = _panels(count, 3.0, height, title, len(columns), sharey=True)
    for ax, (mixture, column) in zip(axes, ((mixture, column) for mixture in tables for column in columns)):
        table = tables[mixture][column]
        ax.axvline(0, color="0.4", ls="--", lw=1, zorder=1)
        for name, row in table.iterrows():
            at, sure = methods.index(name), row.low > 0 or row.high < 0
            ax.plot([row.low, row.high], [at, at], color=BLUE, lw=1.6, zorder=2)
            ax.plot(row["values"], [at] * len(row["values"]), "|", color="0.3", ms=7, zorder=3)
            ax.plot(row["mean"], at, "o", color=BLUE, mfc=BLUE if sure else "white", ms=6, zorder=4)
        reach = [v for values in table["values"] for v in values]
        wide = max(reach) - min(reach) or 1.0
        ax.set(title=mixture, xlim=(min(0, *reach) - 0.6 * wide, max(0, *reach) + 0.6 * wide))
        ax.set(xlabel=LABELS.get(column, column), ylim=(len(methods) - 0.5, -0.5))
        ax.set_yticks(range(len(methods)), methods)
        ax.grid(alpha=0.3)
    return fig
