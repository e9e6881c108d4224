"""Figures of the evaluation's tables: stages, paired gains, distributions of gains."""

import seaborn as sns

from .style import HOLE, PALETTE, _metric, _panels


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
