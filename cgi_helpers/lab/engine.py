"""The live lab without widgets: a run as a stream of frames, comparisons, and what is remembered of them (bounded)."""

import math
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from ..method.feedforward import Opened, paint
from ..method.judge import Score, terms_of
from ..method.losses import context_loss, generator_loss, prior_loss
from ..method.masks import composite, weight_map
from ..method.refine import Overlay, record_field, refine
from ..method.runtime import draw_z, frozen
from ..method.search import find_latent
from ..pipeline.evaluation import COMPANIONS, path_of, recorded, stages_of
from . import recipe as recipes
from .recipe import RECORDED, to_bytes

SEARCHED = ("image", "picture", "hole", "search", "lam", "iterations", "restarts", "seed")  # what a search depends on
WARM_LR, RANDOM_LR = 0.02, 0.1  # Adam's rate from the encoder's answer and from random starts, which have far to go
REAL_IMAGES = 64  # validation images whose median logit is the `median` rule's threshold
RANDOM = ("random start", "report's recipe")  # searches that do not begin with the encoder's answer
REMEMBERED = 24  # runs, searches and comparisons kept; one run of 1,000 + 100 frames takes about 5 MB


@dataclass
class Frame:
    """What the page shows of one iteration or step.
    image (C, H, W) uint8: the composite; losses, logit of this iterate."""

    phase: str  # "search" or "refine"
    step: int
    image: np.ndarray
    context: float
    prior: float
    logit: float  # of D: the unshaped one in the search, the recipe's in the refinement
    seconds: float  # since the run (or its cached search) began
    kept: int = 0  # refinement: the step that the stopping rule keeps so far, which `image` shows
    score: float = math.nan  # refinement: D's logit of that step


@dataclass
class Run:
    """A run so far: `frames` grow while it streams; the tensors are exact, (1, C, H, W) in [-1, 1]."""

    recipe: object
    y: torch.Tensor
    mask: torch.Tensor
    frames: list = field(default_factory=list)
    z: torch.Tensor = None
    semantic: torch.Tensor = None  # composite after the search
    refined: torch.Tensor = None  # composite after the refinement

    @property
    def progress(self):
        """Where the run stands, for the reader."""
        searching = self.frames[-1].phase == "search"
        name, of = ("Search", self.recipe.iterations) if searching else ("Refinement", self.recipe.steps)
        return f"{name}: {self.frames[-1].step} of {of}, {self.frames[-1].seconds:.1f} s"

    @property
    def searched(self):
        """Number of frames of the search."""
        return sum(f.phase == "search" for f in self.frames)


class Bounded(OrderedDict):
    """The `limit` entries used last."""

    def __init__(self, limit):
        super().__init__()
        self.limit, self.lock = limit, threading.Lock()

    def get(self, key, default=None):
        with self.lock:
            if key in self:
                self.move_to_end(key)
            return super().get(key, default)

    def put(self, key, value):
        """Remember `value`, forget the entry that was not used for longest if there are too many; returns `value`."""
        with self.lock:
            self[key] = value
            self.move_to_end(key)
            while len(self) > self.limit:
                self.popitem(last=False)
        return value


def nobody(text):
    """Listens to the progress of work when nobody else does."""


class Engine:
    """Runs recipes of one session. Every method takes a `cancel` event and returns early, with None, once it is set;
    those that compute several things call `tell(text)` with their progress."""

    def __init__(self, session, remembered=REMEMBERED):
        self.session, self.nets, self.cache = session, {}, Bounded(remembered)

    # --- what is loaded once

    def net(self, kind):
        """G, E, D as trained or a shaped one (`kind` = row of the shapings and epochs), loaded once."""
        if kind not in self.nets:
            self.nets[kind] = self.session.net(kind) if isinstance(kind, str) else self.session.shaped(*kind)
        return self.nets[kind]

    def load(self, recipe):
        """(G, E, D as trained, D of the recipe); ArtifactError names the command that makes a missing network."""
        shaped = self.net(recipes.shaping_of(recipe, self.session))
        return self.net("generator"), self.net("encoder"), self.net("discriminator"), shaped

    def painter(self, recipe, mask):
        """What paints from the recipe's latents: G, or a feed-forward net opened behind this hole."""
        if recipe.search not in self.session.preset.feedforward:
            return self.net("generator")
        return Opened(self.fitted(recipe.search), mask)

    def fitted(self, row):
        """A feed-forward net, loaded once."""
        if ("fitted", row) not in self.nets:
            self.nets["fitted", row] = self.session.fitted(row)
        return self.nets["fitted", row]

    def companions(self, recipe):
        """(images, latents) of the training images that keep company while a field is recorded, loaded once."""
        start = "best" if recipe.search in recipes.SEARCHES else recipe.search
        if ("companions", start) not in self.nets:
            y = self.session.data["train"].batch(slice(0, COMPANIONS), self.session.device)
            _, z = self.session.start_of(start, "pool", COMPANIONS)
            self.nets["companions", start] = y[: len(z)], z[: len(y)]
        return self.nets["companions", start]

    # --- who judges

    def judge(self, recipe, mask):
        """(D of the recipe, how `refine` and `Score` take it: {"mode", and perhaps "field"})."""
        D = self.load(recipe)[-1]
        if recipe.company != RECORDED:
            return D, {"mode": "independent"}
        start = recipes.family_of(recipe)
        path = tuple(getattr(recipe, name) for name in ("epochs", "layer", "step_size", "steps"))
        key = ("field", start, *path, mask.cpu().numpy().tobytes())
        return D, {"mode": "field", "field": self._remember(key, lambda: self._field(recipe, D, mask))}

    def _field(self, recipe, D, mask):
        """The stored field if it is that of this hole and path, else one of the page's own, which takes seconds."""
        session, row, (_, shaped) = self.session, recipes.family_of(recipe), recipes.shaping_of(recipe, self.session)
        family = session.preset.study.families[row]
        path, stage = path_of(session, family), [e for e in stages_of(session.preset, family) if e == shaped]
        stored = (
            stage
            and (recipe.layer, recipe.step_size) == (path["layer"], path["step_size"])
            and recipe.steps <= path["steps"]
            and torch.equal(mask, session.mask)
            and session.up_to_date(f"field {row}")
        )
        if stored:
            return recorded(session, family, stage[0])
        G, (y, z) = self.painter(recipe, mask), self.companions(recipe)
        with frozen(G), torch.no_grad():
            h = G.to_features(z, recipe.layer)
        path = {name: getattr(recipe, name) for name in path}
        return record_field(G, D, h, compose=Overlay(y, mask), **path)

    def score(self, recipe, mask, step):
        """images -> logits by the judge of the recipe as it stands at this step of the refinement."""
        D, how = self.judge(recipe, mask)
        return Score(terms_of(D, **how)).at(step)

    def threshold(self, recipe, mask):
        """Median logit of real images by the judge at the last step: where the `median` rule stops."""
        real = self.session.data["validation"].batch(slice(0, REAL_IMAGES), self.session.device)
        with torch.no_grad():
            return float(self.score(recipe, mask, recipe.steps)(real).median())

    # --- one run

    def starts(self, recipe, y, mask, n):
        """(n, z_dim) starts: the encoder's answer first (further ones are noise around it), or draws from N(0, 1)."""
        p, device = self.session.preset, self.session.device
        noise = draw_z(n, p.networks.z_dim, "normal", recipe.seed, "lab z", recipe.image, device=device)
        if recipe.search in RANDOM:
            return noise
        noise[0] = 0
        with torch.no_grad():
            return self.net("encoder")(y, mask) + 0.5 * noise

    def search_options(self, recipe):
        """Keyword arguments of `find_latent`."""
        p = self.session.preset
        how = dict(optimiser="adam", lr=RANDOM_LR if recipe.search in RANDOM else WARM_LR)
        if recipe.search == "report's recipe":
            how = dict(optimiser="nesterov", lr=p.searches["report"].lr, clip=p.searches["report"].clip)
        return dict(iterations=recipe.iterations, lam=recipe.lam, window=p.window, **how)

    def new_run(self, recipe):
        """An empty run; every sentence about bad values comes from here, before any work."""
        recipes.check(recipe, self.session)
        mask = recipes.hole_mask(recipe, self.session)
        self.load(recipe)
        self.painter(recipe, mask).check_layer(recipe.layer)
        return Run(recipe, recipes.target(recipe, self.session), mask)

    def stream(self, recipe, cancel):
        """Yield the growing Run after every search iteration and refinement step; what is cached comes at once."""
        known = self.cache.get(recipe)
        if known is not None:
            yield known
            return
        run = self.new_run(recipe)
        yield from self._search(run, cancel)
        if run.z is None:
            return
        yield run
        yield from self._refine(run, cancel)
        if run.refined is not None:
            self.cache.put(recipe, run)

    def run(self, recipe, cancel=None, tell=nobody):
        """The finished Run of a recipe, or None if it was cancelled."""
        run = None
        for run in self.stream(recipe, cancel or threading.Event()):
            tell(run.progress)
        return run if run is not None and run.refined is not None else None

    def _search(self, run, cancel):
        recipe, key = run.recipe, tuple(getattr(run.recipe, f) for f in SEARCHED)
        known = self.cache.get(key)
        if known is not None:
            run.z, run.frames = known[0], list(known[1])
        elif recipe.search in self.session.preset.feedforward:
            run.z = run.y
            run.frames.append(self._answer(run))
            yield run
        else:
            began, n = time.perf_counter(), recipe.restarts
            G, D = self.net("generator"), self.net("discriminator")
            z, y = self.starts(recipe, run.y, run.mask, n), run.y.expand(n, -1, -1, -1)
            inverted = self.session.preset.searches.get(recipe.search)
            options = self.search_options(recipe)
            if inverted:
                guess = paint(self.fitted(inverted.guess), run.y, run.mask).expand_as(y)
                options |= {"guess": guess, "guess_weight": inverted.weight_inside}
            for step, state in find_latent(G, D, y, run.mask, z=z, **options):
                if cancel.is_set():
                    return
                i = int(state["loss"].argmin())
                prior = float(state["prior"][i])
                image = to_bytes(composite(run.y, state["fill"][i : i + 1], run.mask)[0])
                run.frames.append(
                    Frame(
                        "search",
                        step,
                        image,
                        float(state["context"][i]),
                        prior,
                        logit_of(prior, recipe.lam),
                        time.perf_counter() - began,
                    )
                )
                yield run
            run.z = state["z"][state["best"].argmin()][None]
            self.cache.put(key, (run.z, tuple(run.frames)))
        with torch.no_grad():
            run.semantic = composite(run.y, self.painter(recipe, run.mask)(run.z), run.mask)

    def _answer(self, run):
        """The one frame before the refinement of a feed-forward net's answer."""
        began = time.perf_counter()
        with torch.no_grad():
            x = self.painter(run.recipe, run.mask)(run.y)
            context = context_loss(x, run.y, weight_map(run.mask, self.session.preset.window))
            prior = prior_loss(self.net("discriminator")(x), run.recipe.lam)
        image, prior = to_bytes(composite(run.y, x, run.mask)[0]), float(prior)
        logit = logit_of(prior, run.recipe.lam)
        return Frame("search", 0, image, float(context), prior, logit, time.perf_counter() - began)

    def refinement(self, recipe, z, y, mask):
        """The loop of `refine` with the recipe's values; for so few images `Overlay` would be slower."""
        G, (D, how) = self.painter(recipe, mask), self.judge(recipe, mask)
        with frozen(G), torch.no_grad():
            h = G.to_features(z, recipe.layer)
        return refine(
            G,
            D,
            h,
            layer=recipe.layer,
            steps=recipe.steps,
            step_size=recipe.step_size,
            stop=recipe.stop,
            compose=lambda x: composite(y, x, mask),
            threshold=self.threshold(recipe, mask) if recipe.stop == "median" else 0.0,
            key=(recipe.seed, "lab"),
            **how,
        )

    def _refine(self, run, cancel):
        began = time.perf_counter() - run.frames[-1].seconds
        context, prior = run.frames[-1].context, run.frames[-1].prior
        for step, state in self.refinement(run.recipe, run.z, run.y, run.mask):
            if cancel.is_set():
                return
            run.frames.append(
                Frame(
                    "refine",
                    step,
                    to_bytes(state["images"][0]),
                    context,
                    prior,
                    float(state["path"][0]),
                    time.perf_counter() - began,
                    int(state["steps"][0]),
                    float(state["logits"][0]),
                )
            )
            if step == run.recipe.steps:
                run.refined = state["images"]
            yield run

    # --- side by side

    def compare(self, recipe, cancel, tell=nobody):
        """{"semantic": image, epochs: refined image, ...} (1, C, H, W), the same search for all; None if cancelled."""
        return self._remember(("compare", recipe), lambda: self._compare(recipe, cancel, tell))

    def _compare(self, recipe, cancel, tell):
        run = self.run(recipe, cancel, tell)
        if run is None:
            return None
        images = {"semantic": run.semantic}
        for epochs in recipes.epochs(self.session):
            other = self.run(
                replace(recipe, epochs=epochs),
                cancel,
                lambda text, e=epochs: tell(f"D after {e:g} epochs of shaping. {text}"),
            )
            if other is None:
                return None
            images[epochs] = other.refined
        return run, images

    def diversity(self, recipe, n, cancel, tell=nobody):
        """(Run with y and mask, (n, C, H, W) completions from n random starts, (H, W) standard deviation); None if
        cancelled."""
        return self._remember(("diversity", n, recipe), lambda: self._diversity(recipe, n, cancel, tell))

    def _diversity(self, recipe, n, cancel, tell):
        run = self.new_run(recipe)
        own = recipe.search in RANDOM
        # encoder and nets have one answer
        random = (
            recipe
            if own
            else replace(recipe, search="random start", iterations=recipe.iterations or recipes.WARM_ITERATIONS)
        )
        y = run.y.expand(n, -1, -1, -1)
        z = self.starts(random, run.y, run.mask, n)
        G, D, options = self.net("generator"), self.net("discriminator"), self.search_options(random)
        for step, state in find_latent(G, D, y, run.mask, z=z, **options):
            if cancel.is_set():
                return None
            tell(f"Search from {n} starts: {step} of {random.iterations}")
        for step, refined in self.refinement(random, state["z"], y, run.mask):
            if cancel.is_set():
                return None
            tell(f"Refinement of {n} completions: {step} of {recipe.steps}")
        return run, refined["images"], refined["images"].std(0, correction=0).mean(0)

    def gradients(self, recipe, cancel, tell=nobody):
        """(Run, {epochs: {"semantic", "refined": (H, W)}}): length of the gradient of -log D at every pixel (what D
        asks to change), for every stored discriminator; None if cancelled."""
        return self._remember(("gradients", recipe), lambda: self._gradients(recipe, cancel, tell))

    def _gradients(self, recipe, cancel, tell):
        run = self.run(recipe, cancel, tell)
        if run is None:
            return None
        maps = {}
        for epochs in recipes.epochs(self.session):
            if cancel.is_set():
                return None
            tell(f"Gradient of D after {epochs:g} epochs of shaping")
            judge = self.score(replace(recipe, epochs=epochs), run.mask, 0)
            maps[epochs] = {name: self.gradient(getattr(run, name), judge) for name in ("semantic", "refined")}
        return run, maps

    def gradient(self, x, judge):
        """(H, W) length over channels of d(-log D(x)) / dx for one image x, as this judge would move it."""
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(generator_loss(judge(x)).sum(), x)
        return gradient[0].pow(2).sum(0).sqrt().cpu()

    def _remember(self, key, compute):
        known = self.cache.get(key)
        if known is None:
            known = compute()
            if known is not None:
                self.cache.put(key, known)
        return known


def logit_of(prior, lam):
    """D's logit from the prior loss lambda * softplus(-logit); NaN where lambda is 0."""
    if not lam:
        return float("nan")
    value = prior / lam
    return -value if value > 30 else float(-np.log(np.expm1(max(value, 1e-12))))
