"""Table and plot of a benchmark's numbers."""

import platform
import textwrap
from pathlib import Path

import torch
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from cgi_helpers.pipeline.artifacts import atomic_write
from cgi_helpers.plots import PALETTE


def machine(device="cpu"):
    """The name of the GPU or the processor."""
    if torch.device(device).type == "cuda":
        return torch.cuda.get_device_name(device)
    info = Path("/proc/cpuinfo")
    names = (
        [line.split(":")[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
        if info.exists()
        else []
    )
    return f"{names[0]}, {len(names)} cores" if names else platform.processor() or platform.machine()


def number(value, digits=1, unit=""):
    """A number for a table; a dash if it was not reached."""
    return "-" if value is None else f"{value:.{digits}f}{unit}"


def table(r, targets):
    """Markdown of all measured rows."""
    peak, precision = r["peak_flops"], r["precision"]
    lines = [
        f"Preset `{r['preset']}`, {r['machine']}, {r['threads']} threads, {precision}, torch {r['versions']['torch']}; "
        f"written by `benchmarks/run.py` in {r['seconds']:.0f} s.",
        "",
        "| ratio to the plain reference | measured | target |",
        "|---|---|---|",
    ]
    lines += [f"| `{k}` | {number(r[k], 2, ' x')} | {v} x |" for k, v in targets.items()]
    e = r["encode"]
    scaled = f" (extrapolated from {e['images']})" if e["extrapolated"] else ""
    lines += [
        f"| `encode_60000_minutes`{scaled}, loss {e['loss_ratio']:.3f} of the reference's "
        f"| {e['minutes_60000']:.1f} | 10 |",
        "",
        "Matrix-product peak: " + ", ".join(f"{k} {v / 1e9:.0f} GFLOP/s" for k, v in peak.items()),
        "",
        f"| {r['images']} images | ms | GFLOP | GFLOP/s | share of its precision's peak | speedup |",
        "|---|---|---|---|---|---|",
    ]
    for name, ways in r["steps"].items():
        for way, v in ways.items():
            top = peak.get("float32" if way.startswith("plain") else precision, peak["float32"])
            rate = v["flop"] / v["seconds"]
            lines.append(
                f"| {name.replace('_', ' ')}, {way} | {1e3 * v['seconds']:.1f} | {v['flop'] / 1e9:.1f} "
                f"| {rate / 1e9:.0f} | {rate / top:.0%} | {v['speedup']:.2f} |"
            )
    t = r["time_to_target"]
    how = " (cost per iteration times iterations)" if t["reference_seconds_extrapolated"] else ""
    lines += [
        "",
        f"Time until the {t['loss']} over {t['images']} test images is {t['goal']:.3f}; "
        f"the reference: {t['reference_seconds']:.0f} s{how}.",
        "",
        f"| start | iterations | s | s with whitening ({t['whitening_seconds']:.2f} s, once per G and mask) "
        "| speedup | PSNR against the reference (dB) | the same on all test images |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, v in t.items():
        if isinstance(v, dict):
            low, high = v["psnr_gain"]["ci95"]
            everywhere = v.get("psnr_gain_all") or ""
            if everywhere:
                everywhere = "{:+.2f} [{:+.2f}, {:+.2f}]".format(everywhere["mean"], *everywhere["ci95"])
            lines.append(
                f"| {name} | {v['iterations']} | {number(v['seconds'], 2)} | {number(v['with_whitening'], 2)} "
                f"| {number(v['speedup'], 0)} | {v['psnr_gain']['mean']:+.2f} [{low:+.2f}, {high:+.2f}] "
                f"| {everywhere} |"
            )
    for what in ("search iteration", "refine step", "train step"):
        lines += ["", f"| {what}, each row on top of the former | ms | gain |", "|---|---|---|"]
        before = None
        for name, s in r[f"ablation_{what.split()[0]}"]:
            lines.append(f"| {name} | {1e3 * s:.1f} | {'' if before is None else f'{before / s:.2f} x'} |")
            before = s
    lines += ["", "| images per batch | ms per image and iteration |", "|---|---|"]
    lines += [f"| {n} | {1e3 * s:.2f} |" for n, s in r["batch_sizes"].items()]
    lines += ["", "| one image | s |", "|---|---|"] + [
        f"| {k.replace('_', ' ')} | {s:.2f} |" for k, s in r["one_image_seconds"].items()
    ]
    return "\n".join(lines) + "\n"


def plot(r, targets):
    """Ratios beside their targets, loss against time, and what each means brings to search, refinement and training."""
    figure = Figure(figsize=(13, 7.5), layout="constrained")
    upper, lower = figure.subfigures(2, 1)
    left, right = upper.subplots(1, 2, width_ratios=(1, 1.6))
    names, values = list(targets), [r[k] or 0 for k in targets]
    left.bar_label(left.barh(names, values, color=PALETTE[0]), [f" {v:.3g}" for v in values])
    left.plot(list(targets.values()), range(len(names)), "k|", markersize=20, label="target")
    left.set(xscale="log", xlim=(1, 4 * max(values + [1])), xlabel="times sooner than the plain reference")
    left.xaxis.set_major_formatter("{x:g}")
    left.invert_yaxis()
    left.legend(loc="lower right")
    t = r["time_to_target"]
    per_iteration = t["reference_seconds"] / r["reference_run"]["iterations"]
    right.plot(
        [max(k, 1) * per_iteration for k, _ in r["curve"]],
        [v for _, v in r["curve"]],
        color="black",
        label="reference, 1,000 iterations",
    )
    reached = [(name, v) for name, v in t.items() if isinstance(v, dict) and v["with_whitening"]]
    for (name, v), marker, colour in zip(reached, "osD^vP", PALETTE):
        right.plot(v["with_whitening"], v["final_loss"], marker, color=colour, markersize=8, label=name)
    right.axhline(t["goal"], color="grey", linewidth=0.8)
    right.set(
        xscale="log",
        yscale="log",
        xlabel="seconds, whitening included",
        ylabel=f"mean context loss, {t['images']} images",
    )
    right.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    for axis in (right.xaxis, right.yaxis):
        axis.set_major_formatter("{x:g}")
        axis.set_minor_formatter("")
    right.legend(fontsize=9, loc="center left", bbox_to_anchor=(1.01, 0.5))
    for axes, what, colour in zip(lower.subplots(1, 3), ("search iteration", "refine step", "train step"), PALETTE[1:]):
        rows, seconds = zip(*r[f"ablation_{what.split()[0]}"])
        axes.bar_label(
            axes.barh([textwrap.fill(row, 28) for row in rows], [1e3 * s for s in seconds], color=colour), fmt=" %.0f"
        )
        axes.set(xlabel=f"ms per {what}, {r['images']} images", xlim=(0, 1.15e3 * max(seconds)))
        axes.tick_params("y", labelsize=8)
        axes.invert_yaxis()
    return figure


def write(r, targets, path):
    """<path>.md and <path>.png, beside the JSON."""
    atomic_write(path.with_name(path.name + ".md"), lambda p: p.write_text(table(r, targets)))
    atomic_write(path.with_name(path.name + ".png"), lambda p: plot(r, targets).savefig(p, format="png", dpi=110))
