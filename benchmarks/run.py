"""`python3 run.py bench [--preset P]`: how much faster the package's loops are than a plain reference, as ratios.

Both sides use the same networks, images and threads and take turns in one run; the median over turns is quoted.
Speed does not depend on what the networks have learnt, so fresh weights do.
"""

import argparse
import itertools
import statistics
import sys
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent))
import reference  # noqa: E402

from cgi_helpers import train  # noqa: E402
from cgi_helpers.artifacts import write_json  # noqa: E402
from cgi_helpers.masks import composite, weight_map  # noqa: E402
from cgi_helpers.models import Discriminator, Generator  # noqa: E402
from cgi_helpers.refine import refine  # noqa: E402
from cgi_helpers.runtime import last, versions  # noqa: E402
from cgi_helpers.search import find_latent  # noqa: E402
from cgi_helpers.session import start  # noqa: E402


def compare(plain, ours, turns):
    """Median seconds of both (called in turns, after one warm-up each) and their ratio."""
    plain(), ours()
    seconds = {"plain": [], "ours": []}
    for _ in range(turns):
        for name, work in (("plain", plain), ("ours", ours)):
            began = time.perf_counter()
            work()
            seconds[name].append(time.perf_counter() - began)
    a, b = (statistics.median(seconds[k]) for k in ("plain", "ours"))
    return {"plain_s": round(a, 4), "ours_s": round(b, 4), "speedup": round(a / b, 2)}


def plain_networks(p, device):
    """Float32 networks of the preset's sizes in the default memory layout, parameter gradients on."""
    torch.manual_seed(0)
    shape = dict(channels=p.channels, size=p.size)
    return Generator(p.z_dim, p.g_width, **shape).to(device), Discriminator(p.d_width, **shape).to(device)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--preset", default=None)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--images", type=int, default=64)
    args = parser.parse_args()
    session = start(args.preset, device=args.device)
    p, dev, n, block = session.preset, session.device, args.images, 20
    y, mask = session.data["train"].batch(slice(0, n), dev), session.mask
    weight, z = weight_map(mask), torch.randn(n, p.z_dim, device=dev)
    G0, D0 = plain_networks(p, dev)
    G0.eval()
    G, D = session.build("generator").eval(), session.build("discriminator")

    def plain_search():
        zz, v = z, torch.zeros_like(z)
        for _ in range(block):
            zz, v = reference.search_step(G0, D0, zz, v, y, weight)

    def plain_refine():
        h = G0.to_features(z, p.layer)
        v = torch.zeros_like(h)
        for _ in range(block):
            h, v = reference.refine_step(G0, D0, z, h, v, y, mask, p.layer)

    def ours_refine():
        with torch.no_grad():
            h = G.to_features(z, p.layer)
        last(refine(G, D, h, layer=p.layer, steps=block, mode="batch", compose=lambda x: composite(y, x, mask)))

    Gt, Dt = plain_networks(p, dev)
    opt = [torch.optim.Adam(net.parameters(), 2e-4, betas=(0.5, 0.999)) for net in (Gt, Dt)]

    def plain_train():
        for _ in range(block):
            reference.train_step(Gt, Dt, *opt, y)

    loop = train.train_gan(session.build("generator"), session.build("discriminator"), session.data["train"],
                           iterations=10 ** 9, batch_size=n, device=dev)
    result = {
        "search_iteration": compare(plain_search, lambda: last(find_latent(G, None, y, mask, z=z, iterations=block)), args.turns),
        "refine_step": compare(plain_refine, ours_refine, args.turns),
        "train_step": compare(plain_train, lambda: list(itertools.islice(loop, block)), args.turns),
    }
    result.update(preset=p.name, images=n, steps_per_block=block, threads=torch.get_num_threads(), versions=versions(),
                  precision=session.describe().split(";")[0])
    path = Path(__file__).resolve().parent / "results" / f"{p.name}.json"
    write_json(path, result)
    for name in ("search_iteration", "refine_step", "train_step"):
        row = result[name]
        print(f"{name:18s} plain {row['plain_s'] / block * 1e3:8.1f} ms   ours {row['ours_s'] / block * 1e3:8.1f} ms   {row['speedup']:.2f} x")
    print(f"written to {path.relative_to(path.parents[2])}")


if __name__ == "__main__":
    main()
