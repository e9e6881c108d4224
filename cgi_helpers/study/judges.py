"""Judges that no method was trained against: a second classifier, a detector per method, and the report card they fill.

A card holds what is known of one method's completions of the same N originals, every value per image, so that methods
can be compared image by image: {metric: (N,)}, "features" and "features_2" (N, d) of the two classifiers, "images"
(N, C, H, W) uint8.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from ..data.convert import to_bytes
from ..method.losses import discriminator_loss
from ..method.models import Discriminator
from ..method.runtime import autocast, generator
from ..method.train import adam, batch_index
from . import metrics, statistics

SHOWN = 64  # images of each method that a card keeps for the galleries
EIGHT_BITS = 58.9  # dB: error of rounding to 8 bits, 1/12 grey value squared; more is no difference
SMALLER_IS_BETTER = (
    "l1",
    "l1_hole",
    "detectability",
    "detectability_others",
    "frechet_distance",
    "frechet_distance_2",
    "kernel_distance",
    "kernel_distance_2",
    "seconds",
)
# psnr_hole is psnr and a constant, etc.
COMPARED = (
    "psnr",
    "ssim",
    "seam",
    "label_agreement",
    "label_agreement_2",
    "frechet_distance",
    "frechet_distance_2",
    "kernel_distance",
    "kernel_distance_2",
    "recall",
    "detectability",
    "detectability_others",
)
RANKED = ("psnr", "ssim")  # of these single images' gains mean something: signed-rank test, median, share that gains


class MixerBlock(nn.Module):
    """One layer of an MLP-Mixer: an MLP over the tokens of each channel, then one over the channels of each token."""

    def __init__(self, tokens: int, width: int) -> None:
        super().__init__()
        self.norm_tokens, self.norm_channels = nn.LayerNorm(width), nn.LayerNorm(width)
        self.tokens = nn.Sequential(nn.Linear(tokens, tokens), nn.GELU(), nn.Linear(tokens, tokens))
        self.channels = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, h: torch.Tensor) -> torch.Tensor:
        h = h + self.tokens(self.norm_tokens(h).transpose(1, 2)).transpose(1, 2)
        return h + self.channels(self.norm_channels(h))


class Mixer(nn.Module):
    """Second classifier, no convolution and no batch statistics (MLP-Mixer, Tolstikhin et al. 2021): image -> logits.

    8 x 8 patches become tokens; `features` gives the numbers (2 x width unless said) before the last layer.
    """

    def __init__(
        self,
        width: int = 64,
        channels: int = 1,
        size: int = 64,
        classes: int = 10,
        features: int | None = None,
        depth: int = 3,
    ) -> None:
        super().__init__()
        self.amp, features = None, features or 2 * width
        self.patches = nn.Conv2d(channels, width, size // 8, size // 8)  # non-overlapping: a linear map per patch
        self.blocks = nn.Sequential(*[MixerBlock(64, width) for _ in range(depth)], nn.LayerNorm(width))
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(64 * width, features), nn.ReLU())
        self.head = nn.Linear(features, classes)

    def features(self, x: torch.Tensor) -> torch.Tensor:
        """(N, features) non-negative float32 numbers before the last linear layer."""
        with autocast(self, x):
            h = self.body(self.blocks(self.patches(x).flatten(2).transpose(1, 2)))
        return h if h.dtype == torch.float64 else h.float()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.features(x))


def in_batches(function: Callable, images: torch.Tensor, size: int = 500) -> torch.Tensor:
    """function(images) for (N, ...) images, `size` at a time, without gradients, on the CPU."""
    with torch.no_grad():
        return torch.cat([function(images[i : i + size]).cpu() for i in range(0, len(images), size)])


def train_detector(
    real: torch.Tensor,
    fake: torch.Tensor,
    *,
    iterations: int = 300,
    batch_size: int = 64,
    width: int = 16,
    lr: float = 1e-3,
    seed: int = 0,
) -> Any:
    """A fresh network that tells completions `fake` from originals `real`, (N, C, H, W) each: logits, large = original.

    GroupNorm, so that its verdict on an image depends on no other image. Random flips (images and completions alike).
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        D = Discriminator(width, real.shape[1], real.shape[-1], norm="group").to(real.device)
    optimiser = adam(D, lr, 0.9)
    for step in range(iterations):
        optimiser.param_groups[0]["lr"] = lr * min(1, 2 * (1 - step / iterations))
        batch = []
        for name, images in (("real", real), ("fake", fake)):
            x = images[batch_index(step, len(images), batch_size, seed, "detector", name)]
            flip = torch.rand(len(x), generator=generator(seed, "detector flip", name, step)) < 0.5
            batch.append(torch.where(flip.view(-1, 1, 1, 1).to(x.device), x.flip(3), x))
        loss = discriminator_loss(D(batch[0]), D(batch[1]))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return D.eval().requires_grad_(False)


def detectability(D: Callable, y: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """(N,) numbers whose mean is the area under the ROC curve of detector D on originals y and completions x of them.

    0.5: nobody can tell; 1: every completion is found out. Image i carries its placements, P(y_i beats a completion)
    and P(an original beats x_i), minus the area: the usual interval of their mean is then DeLong's (1988), paired.
    """
    real, fake = in_batches(D, y).double(), in_batches(D, x).double()
    wins = (real[:, None] > fake).double() + 0.5 * (real[:, None] == fake).double()
    return wins.mean(1) + wins.mean(0) - wins.mean()


def recognise(x: torch.Tensor, judges: Sequence[nn.Module], labels: torch.Tensor | None = None) -> dict:
    """What two classifiers see in images x: {"features" (N, d), "label_agreement" (N,), and the second's "..._2"}.

    labels (N,) int64; None leaves the agreement out. Of originals it is the reference of the distances, and the floor.
    """
    card = {}
    for suffix, judge in zip(("", "_2"), judges):
        card[f"features{suffix}"] = f = in_batches(judge.features, x)
        if labels is not None:
            seen = in_batches(judge.head, f.to(x.device)).argmax(1)
            card[f"label_agreement{suffix}"] = (seen == labels.cpu()).double()
    return card


def score_card(
    x: torch.Tensor,
    y: torch.Tensor,
    mask: torch.Tensor,
    judges: Sequence[nn.Module],
    labels: torch.Tensor | None = None,
    seconds: float | None = None,
) -> dict[str, torch.Tensor]:
    """The card of completions x of originals y (N, C, H, W) with mask (1 or N, 1, H, W), by two classifiers `judges`.

    `seam` is the jump of the gradient across the border beyond that of the originals: below 0 it is smoother. A PSNR
    above EIGHT_BITS counts as that; `seconds`: what all of x took to make. Values depend on no other image; ValueError
    for NaN or other shapes.
    """
    hole = (1 - mask).to(x)
    card = {"seam": metrics.seam(x, mask) - metrics.seam(y, mask), "ssim_known": metrics.ssim(x, y, 1 - hole)}
    for suffix, region in (("", None), ("_hole", hole)):
        card[f"psnr{suffix}"] = metrics.psnr(x, y, region).clamp(max=EIGHT_BITS)
        card[f"ssim{suffix}"] = metrics.ssim(x, y, region)
        card[f"l1{suffix}"] = metrics.l1(x, y, region)
    if seconds is not None:
        card["seconds"] = torch.full((len(x),), seconds / len(x), dtype=torch.float64)
    return {
        **{name: values.cpu() for name, values in card.items()},
        **recognise(x, judges, labels),
        "images": to_bytes(x),
    }


def join(parts: list[dict]) -> dict:
    """One card of the cards of consecutive images."""
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def cases(values: torch.Tensor, each: int = 2) -> dict[str, torch.Tensor]:
    """{"best", "median", "worst"}: indices (each) of images by values (N,), larger is better: a choice by rule."""
    order, n = values.argsort(descending=True), len(values)
    return {"best": order[:each], "median": order[(n - each) // 2 : (n - each) // 2 + each], "worst": order[n - each :]}


def shippable(cards: dict) -> dict:
    """The cards without features and with the first images only: what an artifact keeps."""
    return {
        name: {
            k: v[:SHOWN] if k == "images" else v.half() if v.is_floating_point() else v
            for k, v in card.items()
            if not k.startswith("features")
        }
        for name, card in cards.items()
    }


DISTANCES: dict[str, Callable] = {"frechet_distance": metrics.frechet_limit, "kernel_distance": metrics.kernel_distance}


def measures(
    card: dict[str, torch.Tensor], reference: dict[str, torch.Tensor], counts: torch.Tensor, weights: torch.Tensor
) -> dict:
    """{metric: (estimate, draws)} of one card: means per image, and distances to the features of originals.

    counts: `statistics.bootstrap_counts` of the N images; weights: `statistics.jackknife_weights`, for distances.
    """
    found = {name: statistics.mean(v, counts, name) for name, v in card.items() if v.ndim == 1}
    for suffix in ("", "_2"):
        a, b = card[f"features{suffix}"], reference[f"features{suffix}"]
        for name, distance in DISTANCES.items():
            estimate = distance(a, b)
            found[f"{name}{suffix}"] = estimate, statistics.jackknife_draws(estimate, distance(a, b, weights))
    n = min(len(card["features_2"]), len(reference["features_2"]))
    of_reference = statistics.bootstrap_counts(n, len(counts))
    for name, v in metrics.neighbourhoods(card["features_2"][:n], reference["features_2"][:n]).items():
        found[name] = statistics.mean(v, counts[:, :n] if name in ("precision", "density") else of_reference, name)
    return found


def draw(n: int, resamples: int, seed: int, clusters: Sequence = ()) -> tuple[torch.Tensor, torch.Tensor]:
    """The resamples of `measures`: counts for means, weights for distances."""
    return (
        statistics.bootstrap_counts(n, resamples, seed, clusters),
        statistics.jackknife_weights(n, seed=seed, clusters=clusters),
    )


def goodness(metric: str, values: Any) -> Any:
    """Estimate or draws turned so that larger is better; a seam is best at 0, the originals'."""
    return -abs(values) if metric == "seam" else -values if metric in SMALLER_IS_BETTER else values


def card_table(
    cards: dict,
    reference: dict[str, torch.Tensor],
    pairs: Sequence = (),
    floor: dict | None = None,
    resamples: int = 2000,
    seed: int = 0,
    clusters: Sequence = (),
) -> dict:
    """The table that every sentence and figure of the report card is written from; plain values, ready for JSON.

    cards: {method: card} of the same images; reference: `recognise` of originals that no card completes; floor: that of
    others, what a perfect method would reach; pairs: (method, other) to compare; clusters: see `bootstrap_counts`.
    Returns {"images": N, "methods": {method: {metric: V}}, "floor": {metric: V}, "leaders": {metric: {method: "best" |
    "not worse" | "worse"}}, "pairs": {"method - other": {metric: {**V, "p", "p_holm"[, "median", "share"]}}}} with V =
    {"mean", "ci95"}. In pairs positive means that `method` is better; all tests of the table are one family for Holm.
    """
    n = len(next(iter(cards.values()))["psnr"])
    counts, weights = draw(n, resamples, seed, clusters)
    found = {name: measures(card, reference, counts, weights) for name, card in cards.items()}
    originals = {}
    if floor is not None:
        originals = measures(floor, reference, *draw(len(floor["features"]), resamples, seed))
    leaders = {}
    for m in dict.fromkeys(m for row in found.values() for m in row):
        turned = {name: [goodness(m, v) for v in row[m]] for name, row in found.items() if m in row}
        leaders[m] = statistics.leaders(turned)
    compared = {f"{a} - {b}": compare(found, cards, a, b, clusters) for a, b in pairs if a in found and b in found}
    adjusted = statistics.holm({(pair, m): v["p"] for pair, row in compared.items() for m, v in row.items()})
    for (pair, m), p in adjusted.items():
        compared[pair][m]["p_holm"] = p
    return {
        "images": n,
        "methods": {name: intervals(row) for name, row in found.items()},
        "floor": intervals(originals),
        "leaders": leaders,
        "pairs": compared,
    }


def intervals(found: dict) -> dict:
    """{metric: {"mean", "ci95"}} of `measures`."""
    return {m: statistics.interval(*v) for m, v in found.items()}


def compare(found: dict, cards: dict, a: str, b: str, clusters: Sequence = ()) -> dict:
    """{metric: {"mean", "ci95", "p"[, "median", "share"]}} of the paired gains of method a over b."""
    row = {}
    for m in (m for m in COMPARED if m in found[a] and m in found[b]):
        estimate, draws = (goodness(m, u) - goodness(m, v) for u, v in zip(found[a][m], found[b][m]))
        row[m] = {**statistics.interval(estimate, draws), "p": statistics.normal_p(estimate, draws)}
        if m in RANKED:
            gains = cards[a][m] - cards[b][m]
            row[m].update(
                p=statistics.wilcoxon(gains, *clusters[:1]),
                median=float(gains.median()),
                share=float((gains > 0).double().mean()),
            )
    return row
