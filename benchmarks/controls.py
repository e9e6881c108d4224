"""`python benchmarks/controls.py PRESET`: is it D's direction, the layer, the rule of stopping? Controls of refinement
from the best search, and sweeps of the search's window and lambda, all on validation images; writes
`results/controls_PRESET.json`, which notebook 09 shows.

A control that has a step size of its own gets three and keeps the best by the rule of stage `tune` (`merit`), the same
care as the row that it is compared with. "equal training": an encoder that was trained for as many seconds more as the
shaping and the encodings of its pool took. "no leak": what the interpolation to the preset's size lets shine through
the border of the hole is hidden, too; the hole that is filled and scored stays the same, and what is refined there is
compared with the search there. Resumable: a row that is in the file is not made again.
"""

import json

import torch
import torch.nn.functional as F
from sweep import command, noted, variant

from cgi_helpers.method.judge import Score, Term
from cgi_helpers.method.masks import composite
from cgi_helpers.method.refine import refine_features
from cgi_helpers.method.runtime import generator, last
from cgi_helpers.method.search import find_latent, whitening
from cgi_helpers.pipeline.artifacts import write_json
from cgi_helpers.pipeline.evaluation import merit, path_of, validation
from cgi_helpers.pipeline.stages import run
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


def sealed(mask, side):
    """The mask (1, 1, H, W) without known pixels that share a pixel of the original of `side` pixels with the hole."""
    source = torch.zeros(1, 1, side, side, requires_grad=True)
    spread = F.interpolate(source, size=mask.shape[-2:], mode="bilinear", align_corners=False)
    (touched,) = torch.autograd.grad((spread * (1 - mask)).sum(), source)
    hidden = F.interpolate((touched > 0).float(), size=mask.shape[-2:], mode="bilinear", align_corners=False)
    return (hidden == 0).to(mask)


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

    def row(self, x, before=None, **more):
        """What is noted of completions x: gains over the search (or scores `before`) with half of a 95 % interval,
        distance."""
        return {**noted(self.scores(x), before or self.before, self.reference), **more}

    def refined(self, layer, step_size, epochs=None, random=False, stop="best", threshold=0.0, start=None, mask=None):
        """Completions after refinement of a layer's activations, of the latent (layer "z") or of the pixels; `start`:
        other latents, `mask`: what D sees as known."""
        D = self.session.shaped("best", self.epochs if epochs is None else epochs)
        parts, size, start = [], self.session.preset.study.micro_batch, self.z if start is None else start
        mask = self.session.mask if mask is None else mask
        for i in range(0, len(start), size):
            z, y = start[i : i + size], self.y[i : i + size]
            rng, judge = generator("random direction", i), Score((Term(D, "batch"),))
            with torch.no_grad():
                h = z if layer == "z" else self.G.to_features(z, layer)

            def paint(h, y=y, rng=rng):
                h = RandomDirection.apply(h, rng) if random else h
                return composite(y, self.G(h) if layer == "z" else self.G.to_image(h, layer), mask)

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
        return composite(self.y, torch.cat(parts), self.session.mask)

    def best_step(self, layer, **options):
        """Row of the best of three step sizes."""
        rows = [
            self.row(self.refined(layer, self.path["step_size"] * f, **options), step_size=self.path["step_size"] * f)
            for f in FACTORS
        ]
        return max(rows, key=merit)

    def searched(self, window=None, lam=0.0, E=None, mask=None):
        """Latents of the best search from an encoder's answer, with another window, mask or with D's prior loss."""
        s, p = self.session.preset.searches["best"], self.session.preset
        mask = self.session.mask if mask is None else mask
        window, E, parts = window or p.window, E or self.session.net("encoder"), []
        whiten = whitening(self.G, mask, window=window, prior=p.networks.prior, key=(self.session.seed,))
        D = self.session.net("discriminator") if lam else None
        for y in self.y.split(s.batch):
            with torch.no_grad():
                z = E(y, mask)
            how = dict(iterations=s.iterations, optimiser=s.optimiser, lr=s.lr, whiten=whiten if s.whiten else None)
            loop = find_latent(self.G, D, y, mask, z=z, window=window, lam=lam, **how)
            parts.append(last(loop)["z"])
        return torch.cat(parts)

    def equal_training(self):
        """Row of the best search by an encoder that was trained for longer, see above."""
        (shaped, encoded, trained) = (
            self.session.load(name)[1] for name in ("shaped_best", "encodings_best", "encoder")
        )
        pool = encoded["seconds_per_image"]["pool"] * len(self.session.load("encodings_best")[0]["pool"])
        share = 1 + (shaped["seconds"] + pool) / trained["seconds"]
        iterations = round(share * self.session.preset.training.encoder_iterations)
        other = variant(self.session, "longer encoder", {"training": {"encoder_iterations": iterations}})
        run(other, "encoder")
        return self.row(self.search(self.searched(E=other.net("encoder"))), iterations=iterations)

    def no_leak(self, refine):
        """Row of the search, or of its refinement, where nothing of the hole is seen around it, see above."""
        side = self.session.data["validation"].images.shape[-1]
        mask = sealed(self.session.mask.cpu(), side).to(self.y)
        z = self.searched(mask=mask)
        hidden = round(float((1 - mask).mean()), 4)
        if not refine:
            return self.row(self.search(z), hidden=hidden)
        step, before = self.path["step_size"], self.scores(self.search(z))
        x = self.refined(self.path["layer"], step, start=z, mask=mask)
        return self.row(x, before, step_size=step, hidden=hidden)

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
    side = c.session.preset.size
    rows |= {f"search, window {w}": lambda w=w: c.row(c.search(c.searched(window=w))) for w in WINDOWS if w < side}
    rows |= {f"search, lambda {lam:g}": lambda lam=lam: c.row(c.search(c.searched(lam=lam))) for lam in LAMS}
    if c.session.data["validation"].images.shape[-1] < side:
        rows |= {"search, no leak": lambda: c.no_leak(False), "as shipped, no leak": lambda: c.no_leak(True)}
    return rows | {"search, equal training": c.equal_training}


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
    command(__doc__, "controls", run_controls)
