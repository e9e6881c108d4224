"""The loss to reach: one run of the reference's whole search over the first test images, stored with a fingerprint.

`results/<preset>_reference.json` (and `_reference_unclipped.json`, without the author's |z| <= 1) holds per image the
weighted context loss and PSNR after the last iteration, the mean curve, and a fingerprint of the weights, images, mask
and recipe behind them. If that does not fit, the run is made again, never used.
"""

import json
import math
import statistics
from pathlib import Path

import torch

from cgi_helpers.method.masks import composite, weight_map
from cgi_helpers.method.models import Discriminator, Generator
from cgi_helpers.method.runtime import clock, draw_z
from cgi_helpers.pipeline.artifacts import fingerprint, tensor_digest, write_json
from cgi_helpers.study import metrics

import reference

IMAGES, BATCH = 256, 64


def plain_networks(session):
    """The trained G and D in float32, default memory layout, eval mode, parameter gradients on."""
    n, shape = session.preset.networks, dict(channels=session.preset.channels, size=session.preset.size)
    nets = Generator(n.z_dim, n.g_width, **shape), Discriminator(n.d_width, **shape)
    for net, kind in zip(nets, ("generator", "discriminator")):
        net.load_state_dict(session.load(kind)[0])
        net.to(session.device).eval()
    return nets


def starts(session, n):
    """The report's random starts of the first n images (n, z_dim)."""
    return torch.stack(
        [draw_z(1, session.preset.networks.z_dim, "normal", session.seed, "search z", i)[0] for i in range(n)]
    ).to(session.device)


def depends_on(session, images, recipe):
    """Fingerprint of everything that the stored run depends on."""
    G, D = plain_networks(session)
    return fingerprint(
        recipe=recipe,
        G=tensor_digest(G.state_dict()),
        D=tensor_digest(D.state_dict()),
        images=tensor_digest({"images": session.data["test"].images[:images]}),
        mask=tensor_digest({"mask": session.mask}),
        starts=tensor_digest({"z": starts(session, images)}),
        size=session.preset.size,
    )


def run(session, images, recipe):
    """The reference's search, 64 images at a time: (curves (iterations + 1, images), PSNR (images,), seconds)."""
    G, D = plain_networks(session)
    clip = math.inf if recipe["clip"] is None else recipe["clip"]
    z, weight = starts(session, images), weight_map(session.mask, reference.RECIPE["window"])
    began, curves, quality = clock(session.device), [], []
    for i in range(0, images, BATCH):
        y, curve = session.data["test"].batch(slice(i, min(i + BATCH, images)), session.device), []
        for found, context in reference.search(G, D, y, weight, z[i : i + BATCH], recipe["iterations"], clip):
            curve.append(context)
        curves.append(torch.stack(curve))
        with torch.no_grad():
            quality.append(metrics.psnr(composite(y, G(found), session.mask), y))
    return torch.cat(curves, 1).cpu(), torch.cat(quality).cpu(), clock(session.device) - began


def load(session, folder, fresh=False, clip=reference.RECIPE["clip"]):
    """The stored run, made (again) if it is missing, does not fit, or `fresh`: {"fingerprint", "images", "iterations",
    "context", "psnr", "curve": [(iteration, mean)], "mean_psnr"}, and "seconds" if it was made now."""
    images = min(IMAGES, session.preset.study.test_images, len(session.data["test"]))
    iterations = min(reference.RECIPE["iterations"], session.preset.searches["report"].iterations)
    recipe = {**reference.RECIPE, "iterations": iterations, "clip": clip}
    path = Path(folder) / f"{session.preset.name}_reference{'' if clip else '_unclipped'}.json"
    wanted = depends_on(session, images, recipe)
    if path.exists() and not fresh:
        stored = json.loads(path.read_text())
        if stored.get("fingerprint") == wanted:
            return stored
        print(f"{path.name} belongs to other weights, images or another recipe: the reference runs again.", flush=True)
    else:
        print(f"The reference's search runs: {iterations} iterations for {images} images, |z| <= {clip}.", flush=True)
    curve, quality, seconds = run(session, images, recipe)
    content = describe(wanted, recipe, curve, quality)
    write_json(path, content)
    return {**content, "seconds": seconds}


def describe(print_, recipe, curve, quality):
    """What is stored of a run: curve (iterations + 1, N) of lowest context losses, quality (N,) PSNR in dB."""
    every = sorted({*range(0, len(curve), 10), len(curve) - 1})
    context = [round(v, 5) for v in curve[-1].tolist()]
    return {
        "fingerprint": print_,
        "images": len(context),
        "iterations": len(curve) - 1,
        "recipe": recipe,
        "mean_context": statistics.mean(context),
        "mean_psnr": float(quality.mean()),
        "context": context,
        "psnr": [round(v, 4) for v in quality.tolist()],
        "curve": [(k, round(float(curve[k].mean()), 4)) for k in every],
    }
