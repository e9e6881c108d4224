"""Curves and distributions: losses, scores along a path, logits, the plane."""

import numpy as np
import pandas as pd
import seaborn as sns

from .style import BLUE, GREEN, ORANGE, PALETTE, RED, _array, _figure, _panels


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
