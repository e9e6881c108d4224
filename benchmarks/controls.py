"""`python benchmarks/controls.py PRESET`: is it D's direction, the layer, the rule of stopping? Controls of refinement
from the best search, and sweeps of the search's window and lambda, all on validation images; writes
`results/controls_PRESET.json`, which notebook 09 shows.

A control that has a step size of its own gets three and keeps the best by the rule of stage `tune` (`merit`), the same
care as the row that it is compared with. Resumable: a row that is in the file is not made again.
"""

import argparse
import json
from pathlib import Path

import torch
from sweep import RESULTS, noted

from cgi_helpers.method.judge import Score, Term
from cgi_helpers.method.masks import composite
from cgi_helpers.method.refine import refine_features
from cgi_helpers.method.runtime import generator, last, pick_device
from cgi_helpers.method.search import find_latent, whitening
from cgi_helpers.pipeline.artifacts import write_json
from cgi_helpers.pipeline.evaluation import merit, path_of, validation
from cgi_helpers.pipeline.presets import get_preset
from cgi_helpers.pipeline.session import Session
from cgi_helpers.study import metrics
from cgi_helpers.study.evaluation import score, semantic

FACTORS = (0.25, 1.0, 4.0)  # of the step size of the row that is compared with
WINDOWS = (3, 5, 7, 11, 15, 31)  # pixels, of the weight map W
LAMS = (0.0, 1e-4, 3e-3, 0.03, 0.3, 3.0)  # of the prior loss


class RandomDirection(torch.autograd.Function):
    """The identity, whose gradient has the length of the true one and a random direction, image by image."""

    @staticmethod
    def forward(ctx, h, rng):
        ctx.rng = rng
        return h.clone()

    @staticmethod
    def backward(ctx, gradient):
        turned = torch.randn(gradient.shape, generator=ctx.rng).to(gradient)
        length = [x.flatten(1).norm(dim=1).clamp_min(1e-20) for x in (gradient, turned)]
        return turned * (length[0] / length[1]).view(-1, *[1] * (gradient.ndim - 1)), None


class Controls:
    """One session's validation images, the best search's latents and the D that refines them."""

    def __init__(self, session, images):
        self.session, self.family = session, session.preset.study.families["collaborative_best"]
        self.y, self.labels, self.reference = validation(session, images)
        self.G, self.z = session.start_of("best", "validation", len(self.y))
        self.y, self.labels = self.y[: len(self.z)], self.labels[: len(self.z)]
        chosen = session.load("selection")[0]["stages"]["collaborative_best"]
        self.epochs = next(e for e in session.preset.shapings["best"].epochs if str(e) == chosen)
        self.path, self.before = path_of(session, self.family), self.scores(self.search(self.z))

    def search(self, z):
        """Completions of latents z, not refined."""
        return semantic(self.G, z, self.y, self.session.mask)

    def scores(self, x):
        """Scores per image of completions x."""
        return score(x, self.y, self.session.mask, self.session.net("classifier"), self.labels)

    def row(self, x, **more):
        """What is noted of completions x: gains over the search with half of a 95 % interval, distance, label."""
        return {**noted(self.scores(x), self.before, self.reference), **more}

    def refined(self, layer, step_size, epochs=None, random=False, stop="best", threshold=0.0):
        """Completions after refinement of a layer's activations, of the latent (layer "z") or of the pixels."""
        D = self.session.shaped("best", self.epochs if epochs is None else epochs)
        parts, size = [], self.session.preset.study.micro_batch
        for i in range(0, len(self.z), size):
            z, y = self.z[i : i + size], self.y[i : i + size]
            rng, judge = generator("random direction", i), Score((Term(D, "batch"),))
            with torch.no_grad():
                h = z if layer == "z" else self.G.to_features(z, layer)

            def paint(h, y=y, rng=rng):
                h = RandomDirection.apply(h, rng) if random else h
                return composite(y, self.G(h) if layer == "z" else self.G.to_image(h, layer), self.session.mask)

            loop = refine_features(
                h,
                paint,
                judge,
                steps=self.path["steps"],
                step_size=step_size,
                stop=stop,
                threshold=threshold,
                key=("controls", i),
                check=False,
            )
            parts.append(last(loop)["images"])
        return torch.cat(parts)

    def best_step(self, layer, **options):
        """Row of the best of three step sizes."""
        rows = [
            self.row(self.refined(layer, self.path["step_size"] * f, **options), step_size=self.path["step_size"] * f)
            for f in FACTORS
        ]
        return max(rows, key=merit)

    def searched(self, window=None, lam=0.0):
        """Row of the best search from the encoder's answer with another window or with D's prior loss."""
        s, p = self.session.preset.searches["best"], self.session.preset
        window, E, parts = window or p.window, self.session.net("encoder"), []
        whiten = whitening(self.G, self.session.mask, window=window, prior=p.networks.prior, key=(self.session.seed,))
        D = self.session.net("discriminator") if lam else None
        for y in self.y.split(s.batch):
            with torch.no_grad():
                z = E(y, self.session.mask)
            how = dict(iterations=s.iterations, optimiser=s.optimiser, lr=s.lr, whiten=whiten if s.whiten else None)
            loop = find_latent(self.G, D, y, self.session.mask, z=z, window=window, lam=lam, **how)
            parts.append(last(loop)["z"])
        return self.row(self.search(torch.cat(parts)))

    def median_real(self):
        """Median logit of the validation images by the D that refines, in micro-batches."""
        D, size = self.session.shaped("best", self.epochs), self.session.preset.study.micro_batch
        with torch.no_grad():
            return float(torch.cat([D(y, "batch") for y in self.y.split(size)]).median())


def table(c):
    """{name: function that makes its row}."""
    layer, step = c.path["layer"], c.path["step_size"]
    rows = {
        "as shipped": lambda: c.row(c.refined(layer, step), step_size=step),
        "D unshaped": lambda: c.best_step(layer, epochs=0),
        "random direction": lambda: c.best_step(layer, random=True),
        "z instead of activations": lambda: c.best_step("z"),
    }
    for k in range(c.G.layers + 1):
        name = f"layer {k}" if k < c.G.layers else "pixels"
        rows[name] = lambda k=k: c.best_step(k)
    rows["stop: median"] = lambda: c.row(c.refined(layer, step, stop="median", threshold=c.median_real()))
    rows["stop: probabilistic"] = lambda: c.row(c.refined(layer, step, stop="probabilistic"))
    rows |= {f"search, window {w}": lambda w=w: c.searched(window=w) for w in WINDOWS if w < c.session.preset.size}
    rows |= {f"search, lambda {lam:g}": lambda lam=lam: c.searched(lam=lam) for lam in LAMS}
    return rows


def run_controls(session, out, images=None):
    """Every row that `out`, the JSON file, does not have yet; images: at most so many (None: the study's)."""
    c = Controls(session, images)
    found = json.loads(out.read_text()) if out.exists() else {"preset": session.preset.name, "rows": {}}
    found["images"] = len(c.y)
    found["before"] = round(metrics.frechet_distance(metrics.moments(c.before["features"]), c.reference), 4)
    for name, make in table(c).items():
        if name not in found["rows"]:
            found["rows"][name] = make()
            print(session.preset.name, name, found["rows"][name], flush=True)
            write_json(out, found)
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("preset")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--out", help="JSON file; default: results/controls_PRESET.json")
    o = parser.parse_args()
    session = Session(get_preset(o.preset), device=pick_device(o.device), progress=False)
    run_controls(session, Path(o.out or RESULTS / f"controls_{o.preset}.json"))
