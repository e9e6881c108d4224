"""`python benchmarks/scale.py`:
cost of the search against number of images, image size and width of G, and the memory it takes.

Fresh networks (speed does not depend on what they learnt), micro-batches of 256 images as in the stages, every point in
a process of its own, so that its peak memory is its own. Writes `benchmarks/results/scale.json` and `scale.png`.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

RESULTS, BATCH = Path(__file__).resolve().parent / "results", 256


def point(images, size, width, iterations):
    """Seconds of encoding `images` images of side `size` by `iterations` iterations,
    and peak memory in MiB, in this process."""
    import torch

    from cgi_helpers.method.masks import center_mask
    from cgi_helpers.method.models import Generator
    from cgi_helpers.method.runtime import accelerate, last, pick_device
    from cgi_helpers.method.search import find_latent

    device = pick_device()
    G, mask = accelerate(Generator(100, width, size=size).eval(), device), center_mask(size).to(device)
    # bytes, as the data set's
    y, found = (torch.randint(0, 256, (images, 1, size, size), dtype=torch.uint8), torch.zeros(images, 100))

    def encode(rows):
        part = y[rows].to(device) / 127.5 - 1
        z = torch.zeros(len(part), 100, device=device)
        found[rows] = last(find_latent(G, None, part, mask, z=z, iterations=iterations - 1, optimiser="adam", lr=0.01))[
            "z"
        ].cpu()

    encode(slice(0, min(2, images)))  # what happens once is not the cost of an image
    began = time.perf_counter()
    for i in range(0, images, BATCH):
        encode(slice(i, i + BATCH))
    seconds = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # Linux counts KiB
    return {
        "images": images,
        "size": size,
        "width": width,
        "iterations": iterations,
        "seconds": seconds,
        "peak_mib": peak,
    }


def measured(**what):
    """`point` in a process of its own."""
    code = (
        f"import sys, json; sys.path.insert(0, {str(Path(__file__).parent)!r}); import scale; "
        f"print(json.dumps(scale.point(**{what!r})))"
    )
    return json.loads(
        subprocess.run(
            [sys.executable, "-c", code],
            check=True,
            capture_output=True,
            text=True,
            cwd=Path(__file__).resolve().parents[1],
        ).stdout.splitlines()[-1]
    )


def measure(counts=(1, 10, 100, 1000, 10_000), sizes=(32, 64, 128), widths=(16, 32, 64), iterations=12, folder=RESULTS):
    """All points, written as JSON and plot."""
    from cgi_helpers.method.runtime import fast_dtype, versions
    from cgi_helpers.pipeline.artifacts import atomic_write, write_json

    import report

    result = {
        "images": [
            measured(images=n, size=sizes[len(sizes) // 2], width=widths[len(widths) // 2], iterations=iterations)
            for n in counts
        ],
        "size": [
            measured(images=min(BATCH, counts[-1]), size=s, width=widths[len(widths) // 2], iterations=iterations)
            for s in sizes
        ],
        "width": [
            measured(images=min(BATCH, counts[-1]), size=sizes[len(sizes) // 2], width=w, iterations=iterations)
            for w in widths
        ],
        "batch": BATCH,
        "versions": versions(),
        "machine": report.machine(),
        "precision": str(fast_dtype("cpu") or "float32").removeprefix("torch."),
    }
    write_json(Path(folder) / "scale.json", result)
    atomic_write(Path(folder) / "scale.png", lambda p: plot(result).savefig(p, format="png", dpi=110))
    return result


def plot(result):
    """Seconds and peak memory against number of images; seconds per image against size and width."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 3.6), layout="constrained")
    axes = figure.subplots(1, 4)
    n = [p["images"] for p in result["images"]]
    panels = (
        (
            axes[0],
            n,
            [p["seconds"] for p in result["images"]],
            "images",
            f"seconds, {result['images'][0]['iterations']} iterations",
        ),
        *(
            (
                axis,
                [p[key] for p in result[key]],
                [1e3 * p["seconds"] / p["images"] for p in result[key]],
                name,
                "ms per image",
            )
            for axis, key, name in ((axes[2], "size", "image side (pixels)"), (axes[3], "width", "width of G"))
        ),
    )
    for axis, x, y, name, what in panels:
        axis.plot(x, y, "o-")
        axis.set(xscale="log", yscale="log", xlabel=name, ylabel=what)
        axis.minorticks_off()
        axis.set_xticks(x, [f"{v:,}" for v in x])
        axis.set_yticks(y, [f"{v:.2g}" for v in y])
    axes[1].plot(n, [p["peak_mib"] for p in result["images"]], "o-")
    axes[1].set(
        xscale="log",
        xlabel="images",
        ylabel="peak memory (MiB)",
        ylim=(0, 1.1 * max(p["peak_mib"] for p in result["images"])),
    )
    axes[1].minorticks_off()
    axes[1].set_xticks(n, [f"{v:,}" for v in n])
    return figure


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__).parse_args()
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the package, if it is not installed
    for key, points in measure().items():
        for p in points if isinstance(points, list) else ():
            print(
                f"{key}: {p['images']} images, {p['size']} pixels, width {p['width']}: "
                f"{p['seconds']:.2f} s, {p['peak_mib']:.0f} MiB"
            )
