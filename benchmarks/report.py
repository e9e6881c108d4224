"""Table and plot of a benchmark's numbers."""

import platform
from pathlib import Path

import torch
from matplotlib.figure import Figure

from cgi_helpers.artifacts import atomic_write


def machine(device="cpu"):
    """The name of the GPU or the processor."""
    if torch.device(device).type == "cuda":
        return torch.cuda.get_device_name(device)
    info = Path("/proc/cpuinfo")
    names = [line.split(":")[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")] if info.exists() else []
    return f"{names[0]}, {len(names)} cores" if names else platform.processor() or platform.machine()


def number(value, digits=1, unit=""):
    """A number for a table; a dash if it was not reached."""
    return "-" if value is None else f"{value:.{digits}f}{unit}"


def table(r, targets):
    """Markdown of all measured rows."""
    peak, precision = r["peak_flops"], r["precision"]
    lines = [f"Preset `{r['preset']}`, {r['machine']}, {r['threads']} threads, {precision}, torch {r['versions']['torch']}; "
             f"written by `benchmarks/run.py` in {r['seconds']:.0f} s.", "",
             "| ratio to the plain reference | measured | target |", "|---|---|---|"]
    lines += [f"| `{k}` | {number(r[k], 2, ' x')} | {v} x |" for k, v in targets.items()]
    e = r["encode"]
    lines += [f"| `encode_60000_minutes`{' (extrapolated from ' + str(e['images']) + ')' if e['extrapolated'] else ''}, loss {e['loss_ratio']:.3f} "
              f"of the reference's | {e['minutes_60000']:.1f} | 10 |", "", "Matrix-product peak: " + ", ".join(f"{k} {v / 1e9:.0f} GFLOP/s" for k, v in peak.items()),
              "", f"| {r['images']} images | ms | GFLOP | GFLOP/s | share of its precision's peak | speedup |", "|---|---|---|---|---|---|"]
    for name, ways in r["steps"].items():
        for way, v in ways.items():
            top, rate = peak.get("float32" if way.startswith("plain") else precision, peak["float32"]), v["flop"] / v["seconds"]
            lines.append(f"| {name.replace('_', ' ')}, {way} | {1e3 * v['seconds']:.1f} | {v['flop'] / 1e9:.1f} | {rate / 1e9:.0f} | {rate / top:.0%} | {v['speedup']:.2f} |")
    t = r["time_to_target"]
    how = " (cost per iteration times iterations)" if t["reference_seconds_extrapolated"] else ""
    lines += ["", f"Time until the {t['loss']} over {t['images']} test images is {t['goal']:.3f}; the reference: {t['reference_seconds']:.0f} s{how}.", "",
              f"| start | iterations | s | s with whitening ({t['whitening_seconds']:.2f} s, once per G and mask) | speedup | PSNR against the reference (dB) | the same on all test images |",
              "|---|---|---|---|---|---|---|"]
    for name, v in t.items():
        if isinstance(v, dict):
            low, high = v["psnr_gain"]["ci95"]
            everywhere = v.get("psnr_gain_all")
            everywhere = "" if not everywhere else "{:+.2f} [{:+.2f}, {:+.2f}]".format(everywhere["mean"], *everywhere["ci95"])
            lines.append(f"| {name} | {v['iterations']} | {number(v['seconds'], 2)} | {number(v['with_whitening'], 2)} | {number(v['speedup'], 0)} | "
                         f"{v['psnr_gain']['mean']:+.2f} [{low:+.2f}, {high:+.2f}] | {everywhere} |")
    for what in ("search iteration", "refine step", "train step"):
        lines += ["", f"| {what}, each row on top of the former | ms | gain |", "|---|---|---|"]
        before = None
        for name, s in r[f"ablation_{what.split()[0]}"]:
            lines.append(f"| {name} | {1e3 * s:.1f} | {'' if before is None else f'{before / s:.2f} x'} |")
            before = s
    lines += ["", "| images per batch | ms per image and iteration |", "|---|---|"]
    lines += [f"| {n} | {1e3 * s:.2f} |" for n, s in r["batch_sizes"].items()]
    lines += ["", "| one image | s |", "|---|---|"] + [f"| {k.replace('_', ' ')} | {s:.2f} |" for k, s in r["one_image_seconds"].items()]
    return "\n".join(lines) + "\n"


def plot(r, targets):
    """Ratios beside their targets, the gains of a search iteration, and loss against time."""
    figure = Figure(figsize=(13, 4), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    names, values = list(targets), [r[k] or 0 for k in targets]
    left.barh(names, values, color="tab:blue")
    left.plot(list(targets.values()), range(len(names)), "k|", markersize=22, label="target")
    left.set(xscale="log", xlabel="times sooner than the plain reference")
    left.invert_yaxis()
    left.legend()
    rows, seconds = zip(*r["ablation_search"])
    middle.barh(rows, [1e3 * s for s in seconds], color="tab:green")
    middle.set(xlabel="ms per search iteration")
    middle.invert_yaxis()
    t = r["time_to_target"]
    per_iteration = t["reference_seconds"] / r["reference_run"]["iterations"]
    right.plot([max(k, 1) * per_iteration for k, _ in r["curve"]], [v for _, v in r["curve"]], label="reference")
    for name, v in t.items():
        if isinstance(v, dict) and v["with_whitening"]:
            right.plot(v["with_whitening"], v["final_loss"], "o", label=name)
    right.axhline(t["goal"], color="grey", linewidth=0.8)
    right.set(xscale="log", yscale="log", xlabel="seconds", ylabel=f"mean context loss, {t['images']} images")
    right.legend(fontsize=8)
    return figure


def write(r, targets, path):
    """<path>.md and <path>.png, beside the JSON."""
    atomic_write(path.with_name(path.name + ".md"), lambda p: p.write_text(table(r, targets)))
    atomic_write(path.with_name(path.name + ".png"), lambda p: plot(r, targets).savefig(p, format="png", dpi=110))
