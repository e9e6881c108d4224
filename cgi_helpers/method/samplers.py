"""Eight ways to draw from a trained GAN with the help of D: throw samples away, walk a chain, or move the samples.

One interface, `sampler(G, D, n, *, key, ...) -> (images, facts)`, for images and for points in the plane; table
`SAMPLERS`. G and D stay untouched. D(x, "independent") returns logits; an optimal D has log p_real(x) - log p_G(x),
and all of these methods take D for optimal: hand in a `Calibrated` one. The same `key` gives the same samples. facts:
{"G_calls", "D_calls": images sent through each network, or a part of it; "gradients": how many of them backwards as
well; "logits": (n,) scores of the samples; ...}. Every sampler raises ValueError for n < 1 and for non-finite logits.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from .models import for_inference
from .refine import check_options, refine_all
from .runtime import draw_z, draw_z_batch, generator

BLOCK = 500  # images per pass; proposals per random stream
LEAST = 1e-4  # acceptance below which rejection gives up


class Calibrated(nn.Module):
    """D with the logits scale * l + shift (see `calibrate`); it judges every image by itself (no mode "batch")."""

    def __init__(self, D: nn.Module, scale: float = 1.0, shift: float = 0.0) -> None:
        super().__init__()
        self.D, self.scale, self.shift = for_inference(D), scale, shift
        self.channels, self.size = getattr(D, "channels", None), getattr(D, "size", None)

    def forward(self, x: torch.Tensor, mode: str = "auto") -> torch.Tensor:
        return self.scale * self.D(x, mode) + self.shift


def calibrate(real: torch.Tensor, fake: torch.Tensor, kind: str = "platt") -> tuple[float, float]:
    """(scale, shift) with which sigmoid(scale * l + shift) is how often an image of logit l is real, both kinds
    weighted alike.

    real (N,), fake (M,): logits of *validation* images and of samples. "platt": both numbers (Platt 1999; his smoothed
    targets keep them finite where the logits do not overlap); "temperature": scale = 1 / T alone (Guo et al. 2017).
    Raises ValueError for another kind, fewer than two logits of either sort, or non-finite ones.
    """
    if kind not in ("platt", "temperature"):
        raise ValueError(f"Unknown calibration {kind!r}: use 'platt' or 'temperature'.")
    real, fake = (_finite(torch.as_tensor(logits)).double().cpu() for logits in (real, fake))
    if min(len(real), len(fake)) < 2:
        raise ValueError(f"Calibration needs 2 or more logits of each sort but got {len(real)} real, {len(fake)} fake.")
    x = torch.cat([real, fake])
    x = torch.stack([x, torch.ones_like(x)], 1)[:, : 2 if kind == "platt" else 1]
    label = (torch.arange(len(x)) < len(real)).double()
    weight = label * 0.5 / len(real) + (1 - label) * 0.5 / len(fake)
    target = torch.where(label > 0, (len(real) + 1) / (len(real) + 2), 1 / (len(fake) + 2))
    w = torch.tensor([1.0, 0.0], dtype=torch.float64)[: x.shape[1]]

    def cross_entropy(w):
        return F.binary_cross_entropy_with_logits(x @ w, target, weight, reduction="sum")

    for _ in range(100):  # Newton's method on a convex function; the step is halved until it helps (Lin et al. 2007)
        p = (x @ w).sigmoid()
        hessian = (x * (weight * p * (1 - p))[:, None]).T @ x + 1e-12 * torch.eye(len(w), dtype=torch.float64)
        step = torch.linalg.solve(hessian, x.T @ (weight * (p - target)))
        while step.abs().max() > 1e-9 and not cross_entropy(w - step) <= cross_entropy(w):
            step = step / 2
        w = w - step
        if step.abs().max() <= 1e-9:
            break
    return (*w.tolist(), 0.0)[:2]


def reliability(real: torch.Tensor, fake: torch.Tensor, bins: int = 10) -> dict:
    """Is D(x) = sigmoid(logit) a frequency? From logits real (N,) and fake (M,), both kinds weighted alike:

    {"confidence", "frequency", "share": (bins,) mean D, frequency of "real" and weight of each bin of D (NaN: empty);
    "brier": mean squared error of D (a coin: 0.25); "ece": expected calibration error, the sum of share * |confidence
    - frequency| (Naeini et al. 2015)}.
    """
    p = torch.cat([torch.as_tensor(real), torch.as_tensor(fake)]).double().cpu().sigmoid()
    label = (torch.arange(len(p)) < len(real)).double()
    weight = label * 0.5 / len(real) + (1 - label) * 0.5 / len(fake)
    index = (p * bins).long().clamp_max(bins - 1)
    share, confidence, frequency = (torch.zeros(bins).double().index_add(0, index, weight * v) for v in (1, p, label))
    return {
        "confidence": confidence / share,
        "frequency": frequency / share,
        "share": share,
        "brier": float((weight * (p - label) ** 2).sum()),
        "ece": float((confidence - frequency).abs().sum()),
    }


# Shared pieces


def _finite(logits):
    if not torch.isfinite(logits).all():
        raise ValueError("D's logits are not all finite (NaN or infinite): check its weights, and take smaller steps.")
    return logits


def _ready(G, D, n):
    """Copies for inference and G's device."""
    if isinstance(n, bool) or not isinstance(n, int) or n < 1:
        raise ValueError(f"The number of samples must be an integer of at least 1 but is {n!r}.")
    return for_inference(G), for_inference(D), next(G.parameters(), torch.empty(0)).device


@torch.no_grad()
def scores(D: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """Logits (N,) of images x, each by itself, in passes of BLOCK; ValueError unless all are finite."""
    return _finite(torch.cat([D(part, "independent") for part in x.split(BLOCK)]))


@torch.no_grad()
def _look(G, D, z):
    """Images G(z) and their logits."""
    images = torch.cat([G(part) for part in z.split(BLOCK)])
    return images, scores(D, images)


def _facts(G_calls, D_calls, gradients=0, **more):
    return {"G_calls": G_calls, "D_calls": D_calls, "gradients": gradients, **more}


# The samplers


def plain(G: nn.Module, D: nn.Module, n: int, *, key: tuple, prior: str = "normal") -> tuple[torch.Tensor, dict]:
    """G(z), z from the prior; D only scores the result, which is not counted."""
    G, D, device = _ready(G, D, n)
    images, logits = _look(G, D, draw_z(n, G.z_dim, prior, *key, device=device))
    return images, _facts(n, 0, logits=logits)


def _reject(propose, n, key, burn_in, percentile, budget):
    """The first n accepted among proposals `propose(name, block) -> (images, logits)`; see `rejection`."""
    seen = torch.cat([propose("burn-in", b)[1] for b in range(math.ceil(burn_in / BLOCK))]).double()
    top, kept, accepted, tried, rises = seen.max(), [], 0, 0, 0

    def score(logits):  # F without gamma: sigmoid(F) = exp(l - M)
        return logits - top - (-torch.expm1(logits - top - 1e-6)).log()

    while accepted < n:
        images, logits = propose("proposal", tried // BLOCK)
        tried, rises, top = tried + len(logits), rises + int(logits.max() > top), torch.maximum(top, logits.max())
        gamma = 0 if percentile is None else torch.quantile(score(seen), percentile / 100)
        u = torch.rand(len(logits), generator=generator(*key, "accept", tried), dtype=torch.float64).to(logits.device)
        take = u < (score(logits.double()) - gamma).sigmoid()
        kept.append((images[take], logits[take]))
        accepted += int(take.sum())
        if tried >= budget and accepted < LEAST * tried:
            raise ValueError(
                f"Rejection accepted {accepted} of {tried:,} proposals, fewer than 1 in {1 / LEAST:,.0f}: "
                "for D no sample comes near the best one; calibrate D, or set `percentile`."
            )
    images, logits = (torch.cat(parts)[:n] for parts in zip(*kept))
    return images, {"logits": logits, "acceptance": accepted / tried, "proposals": tried + len(seen), "rises": rises}


def rejection(
    G: nn.Module,
    D: nn.Module,
    n: int,
    *,
    key: tuple,
    burn_in: int = 5_000,
    percentile: float | None = None,
    budget: int = 50_000,
    prior: str = "normal",
) -> tuple[torch.Tensor, dict]:
    """Discriminator rejection sampling (Azadi et al. 2019, algorithm 1).

    A proposal of logit l is accepted with probability sigmoid(F), F = l - M - log(1 - exp(l - M - 1e-6)) - gamma,
    where M is the largest logit of `burn_in` proposals and since ("rises": how often it rose). `percentile` None:
    gamma = 0, so that the probability is exp(l - M), exact for an optimal D; q: gamma is the q-th percentile of F.
    ValueError once fewer than 1 in 10,000 of at least `budget` proposals were accepted.
    """
    G, D, device = _ready(G, D, n)

    def propose(*name):
        return _look(G, D, draw_z_batch(BLOCK, G.z_dim, prior, *key, *name, device=device))

    images, facts = _reject(propose, n, key, burn_in, percentile, budget)
    return images, _facts(facts["proposals"], facts["proposals"], **facts)


def metropolis_hastings(
    G: nn.Module,
    D: nn.Module,
    n: int,
    *,
    key: tuple,
    real: torch.Tensor | None = None,
    chains: int = 500,
    burn_in: int = 100,
    thin: int = 20,
    prior: str = "normal",
) -> tuple[torch.Tensor, dict]:
    """Metropolis-Hastings GAN (Turner et al. 2019): chains in z with proposals from the prior, each accepted with
    probability min(1, (1 / D(x) - 1) / (1 / D(x') - 1)) = min(1, exp(l' - l)).

    Chain i starts at the score of real image i (real (N, ...), in turn); one that does not leave it in `burn_in`
    proposals starts anew at a generated sample, as all do with real None. Afterwards every `thin`-th state of all
    chains is kept. facts: "acceptance", "restarted". ValueError if no chain moves even then.
    """
    G, D, device = _ready(G, D, n)
    chains, step, images = min(chains, n), 0, None
    anywhere = torch.full((chains,), -torch.inf, device=device)  # the next proposal is accepted whatever it is
    logits = anywhere if real is None else scores(D, real[torch.arange(chains) % len(real)].to(device))
    moves = torch.zeros(chains, dtype=torch.long, device=device)

    def advance(proposals):
        nonlocal images, logits, moves, step
        for _ in range(proposals):
            step += 1
            x, new = _look(G, D, draw_z_batch(chains, G.z_dim, prior, *key, step, device=device))
            take = torch.rand(chains, generator=generator(*key, "accept", step)).to(device).log() < new - logits
            moves = moves + (take & logits.isfinite())
            images = x if images is None else torch.where(take.view(-1, *[1] * (x.ndim - 1)), x, images)
            logits = torch.where(take, new, logits)

    advance(burn_in)
    stuck = moves == 0
    if stuck.any():
        logits = torch.where(stuck, anywhere, logits)
        advance(burn_in)
    if not moves.any():
        raise ValueError(f"No chain moved in {step} proposals: D scores the starts above all samples; calibrate D.")
    kept = []
    for _ in range(math.ceil(n / chains)):
        advance(thin)
        kept.append((images, logits))
    images, logits = (torch.cat(parts)[:n] for parts in zip(*kept))
    return images, _facts(
        chains * step,
        chains * step + (real is not None) * chains,
        logits=logits,
        acceptance=float(moves.double().mean()) / step,
        restarted=int(stuck.sum()),
    )


def _walk(G, D, n, key, prior, gain, steps, step_size, noise):
    """z <- z + step_size * gradient of gain(z, l(G(z))) + noise * N(0, 1); every image has a stream of its own."""
    G, D, device = _ready(G, D, n)
    ends = []
    for block, z in enumerate(draw_z(n, G.z_dim, prior, *key, device=device).split(BLOCK)):
        kicks = torch.stack(
            [torch.randn(steps, G.z_dim, generator=generator(*key, "noise", block * BLOCK + i)) for i in range(len(z))]
        ).to(device)
        for step in range(steps):
            z = z.requires_grad_()
            (gradient,) = torch.autograd.grad(gain(z, _finite(D(G(z), "independent"))).sum(), z)
            z = z.detach() + step_size * gradient + noise * kicks[:, step]
        ends.append(z)
    images, logits = _look(G, D, torch.cat(ends))
    return images, _facts(n * (steps + 1), n * steps, n * steps, logits=logits)


def langevin(
    G: nn.Module, D: nn.Module, n: int, *, key: tuple, steps: int = 50, step_size: float = 0.01, prior: str = "normal"
) -> tuple[torch.Tensor, dict]:
    """Discriminator driven latent sampling (Che et al. 2020, algorithm 1): z <- z - step_size / 2 * grad E(z) +
    sqrt(step_size) * N(0, 1) with the energy E(z) = -log p(z) - l(G(z)), unadjusted (a large step widens the
    result)."""
    if prior != "normal":
        raise ValueError(f"Langevin sampling needs a prior with a density gradient: use 'normal', not {prior!r}.")

    def gain(z, logits):
        return logits - z.square().sum(1) / 2

    return _walk(G, D, n, key, prior, gain, steps, step_size / 2, math.sqrt(step_size))


def gradient_flow(
    G: nn.Module,
    D: nn.Module,
    n: int,
    *,
    key: tuple,
    divergence: str = "KL",
    steps: int = 25,
    step_size: float = 0.01,
    gamma: float = 0.01,
    prior: str = "normal",
) -> tuple[torch.Tensor, dict]:
    """Discriminator gradient flow in z (Ansari et al. 2021): z <- z - step_size * grad f'(r) + sqrt(2 gamma step_size)
    * N(0, 1), r = p_G / p_real = exp(-l). "KL": f' = log r + 1, climbs l; "JS": f' = log(2 r / (1 + r)), climbs log(1
    + exp(l))."""
    if divergence not in ("KL", "JS"):
        raise ValueError(f"Unknown divergence {divergence!r}: use 'KL' or 'JS'.")

    def gain(z, logits):
        return logits if divergence == "KL" else F.softplus(logits)

    return _walk(G, D, n, key, prior, gain, steps, step_size, math.sqrt(2 * gamma * step_size))


def optimal_transport(
    G: nn.Module,
    D: nn.Module,
    n: int,
    *,
    key: tuple,
    layer: int,
    steps: int = 20,
    step_size: float = 0.01,
    lipschitz: float | None = None,
    prior: str = "normal",
) -> tuple[torch.Tensor, dict]:
    """Discriminator optimal transport (Tanaka 2019): activations h of `layer` (the last: pixels) descend |h - h_0 +
    0.001|_2 - l(h) / K from h_0, as far as the gain pays the way. K = `lipschitz`, or the largest |l - l'| / |h - h'|
    of 500 pairs."""
    G, D, device = _ready(G, D, n)
    check_options(G, layer, steps, step_size)

    def judge(h):
        return _finite(D(G.to_image(h, layer), "independent"))

    with torch.no_grad():
        h = G.to_features(draw_z_batch(BLOCK, G.z_dim, prior, *key, "pairs", device=device), layer)
        logits = judge(h)
        slopes = (logits - logits.roll(1)).abs() / (h - h.roll(1, 0)).flatten(1).norm(dim=1)
        K = float(slopes.max()) if lipschitz is None else lipschitz
        if not 0 < K < math.inf:
            raise ValueError(
                f"D's Lipschitz constant must be positive and finite but is {K:g}: is D the same everywhere?"
            )
        starts = [G.to_features(z, layer) for z in draw_z(n, G.z_dim, prior, *key, device=device).split(BLOCK)]
    images = []
    for start in starts:
        h = start.clone()
        for _ in range(steps):
            h = h.requires_grad_()
            loss = (h - start + 1e-3).flatten(1).norm(dim=1) - judge(h) / K
            h = h.detach() - step_size * torch.autograd.grad(loss.sum(), h)[0]
        images.append(G.to_image(h, layer).detach())
    images = torch.cat(images)
    return images, _facts(n * (steps + 1), n * steps, n * steps, logits=scores(D, images), lipschitz=K)


def collaborative(
    G: nn.Module,
    D: nn.Module,
    n: int,
    *,
    key: tuple,
    layer: int,
    steps: int = 20,
    step_size: float = 0.1,
    prior: str = "normal",
    **options: Any,
) -> tuple[torch.Tensor, dict]:
    """Collaborative sampling (Liu et al. 2020): activations of `layer` climb the gradient of D, best of a D that was
    shaped for that. options: those of `refine`."""
    device = _ready(G, D, n)[2]
    z = draw_z(n, G.z_dim, prior, *key, device=device)
    images, logits = refine_all(
        G, D, z, layer=layer, batch_size=BLOCK, key=key, steps=steps, step_size=step_size, **options
    )
    return images, _facts(n * (steps + 1), n * (steps + 1), n * steps, logits=_finite(logits))


def collaborative_rejection(
    G: nn.Module,
    D: nn.Module,
    n: int,
    *,
    key: tuple,
    layer: int,
    steps: int = 20,
    judge: nn.Module | None = None,
    burn_in: int = 1_000,
    percentile: float | None = None,
    budget: int = 50_000,
    **options: Any,
) -> tuple[torch.Tensor, dict]:
    """The last step of Liu et al. (2020): `collaborative` samples are the proposals of `rejection`, by `judge`, by
    default D.

    A shaped D hardly tells its refined samples from real ones, so calibrate a copy for the judgement, not the D that
    refines.
    """
    _ready(G, D, n)
    judge = judge and for_inference(judge)

    def propose(*name):
        images, facts = collaborative(G, D, BLOCK, key=(*key, *name), layer=layer, steps=steps, **options)
        return images, facts["logits"] if judge is None else scores(judge, images)

    images, facts = _reject(propose, n, key, burn_in, percentile, budget)
    tried = facts["proposals"]
    return images, _facts(tried * (steps + 1), tried * (steps + 1 + (judge is not None)), tried * steps, **facts)


SAMPLERS = {
    f.__name__: f
    for f in (
        plain,
        rejection,
        metropolis_hastings,
        langevin,
        gradient_flow,
        optimal_transport,
        collaborative,
        collaborative_rejection,
    )
}
