"""Rivals: other ways to fill a hole, behind one interface.

`fit(name, train, mask, validation)` gives a `Completion`; `completion(y, mask)` gives images (N, C, H, W) in [-1, 1]
whose known pixels are those of y. A rival is a row of RIVALS and one `fit_...(train, mask, validation, **settings)`
that returns (function, facts); function(y, mask) paints whole images, of which the hole is taken. Left out: RePaint
(Lugmayr et al. 2022): a diffusion model and its 250 x 10 denoiser calls per image do not fit the networks' budget.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial, wraps
from typing import Any

import numpy as np
import torch
from torch import nn

from ..method import feedforward
from ..method.checks import check_images
from ..method.masks import check_mask, composite, poisson_blend, weight_map
from ..method.models import Discriminator
from ..method.runtime import accelerate, last
from .metrics import psnr

BATCH_TOLERANCE = 0.02  # of a range of 2: above what another order of sums changes in bfloat16


@dataclass
class Completion:
    """A fitted method, checked: `completion(y, mask)` -> composites; facts = what was chosen, with what was tried.

    `whole`: the function paints whole images and `completion` lays the known pixels over; else it must keep them.
    Refused with a ValueError that names the method: changed known pixels, another shape or dtype, NaN or values outside
    [-1, 1], another answer when called twice, and, unless `coupled`, an image whose answer depends on its batch.
    """

    name: str
    function: Callable
    facts: dict = field(default_factory=dict)
    coupled: bool = False
    whole: bool = False
    vouched: bool = field(default=False, repr=False)

    def __call__(self, y: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        check_images(y, y.shape[1], y.shape[-1])
        check_mask(mask, y.shape[-1])
        x = self.sound(self.function(y, mask), y, mask)
        if not self.vouched:
            few = slice(0, 2)
            part = [composite(y[few], self.function(y[few], mask[few]), mask[few]) for _ in range(2)]
            if not torch.equal(*part):
                self.refuse("gives another answer when called twice", "draw from a generator with a fixed seed")
            if not self.coupled and (x[few] - part[0]).abs().max() > BATCH_TOLERANCE:
                self.refuse("lets an image's answer depend on its batch", "declare it with coupled=True")
            self.vouched = len(y) > 2
        return x

    def sound(self, x: Any, y: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """x, if it may stand as completions of y."""
        if not torch.is_tensor(x) or x.shape != y.shape or x.dtype != y.dtype:
            got = (tuple(x.shape), x.dtype) if torch.is_tensor(x) else type(x).__name__
            self.refuse(f"returns {got} for images {tuple(y.shape)} of {y.dtype}", "return the shape and dtype of y")
        if not torch.isfinite(x).all() or x.abs().max() > 1 + 1e-4:
            self.refuse("returns values that are not finite or lie outside [-1, 1]", "clamp them")
        over = composite(y, x, mask)
        if not self.whole and not torch.equal(over, x):
            self.refuse("changes known pixels", "end with composite(y, x, mask)")
        return over

    def refuse(self, what: str, remedy: str) -> None:
        raise ValueError(f"Method {self.name!r} {what}: {remedy}.")


def batches(split: Any, size: int = 1000) -> Iterator[torch.Tensor]:
    """All images of a `data.Split`, `size` at a time."""
    return (split.batch(slice(i, min(i + size, len(split)))) for i in range(0, len(split), size))


def by_hole(mask: torch.Tensor) -> Iterator[tuple]:
    """(rows, one mask (1, 1, H, W)) per distinct hole among the masks (1 or N, 1, H, W)."""
    if len(mask) == 1:
        yield slice(None), mask
        return
    kinds, kind = mask.flatten(1).unique(dim=0, return_inverse=True)
    for i, one in enumerate(kinds):
        yield (kind == i).nonzero()[:, 0], one.view(1, *mask.shape[1:])


def per_image(function: Callable) -> Callable:
    """Lets a `function(image (H, W, C) float32 in [0, 255], hole (H, W) bool)` on numpy arrays complete tensors."""

    @wraps(function)
    def every(y, mask, **settings):
        masks = mask.expand(len(y), 1, *y.shape[2:])
        images = ((y + 1) * 127.5).permute(0, 2, 3, 1).cpu().numpy()
        filled = [function(np.ascontiguousarray(a), m[0].cpu().numpy() == 0, **settings) for a, m in zip(images, masks)]
        return (torch.from_numpy(np.stack(filled)).permute(0, 3, 1, 2).to(y) / 127.5 - 1).clamp(-1, 1)

    return every


def choose(candidates: Any, validation: torch.Tensor | None, mask: torch.Tensor, setting: str) -> tuple[Callable, dict]:
    """(function, facts) of the value with the best mean PSNR on validation (n, C, H, W); one candidate needs none."""
    if len(candidates) > 1 and validation is None:
        raise ValueError(
            f"Choosing {setting} among {', '.join(map(str, candidates))} needs validation images: "
            "pass some, or one value."
        )
    tried = {}
    if len(candidates) > 1:
        tried = {
            value: float(psnr(composite(validation, f(validation, mask), mask), validation).mean())
            for value, f in candidates.items()
        }
    best = max(tried, key=lambda value: tried[value]) if tried else next(iter(candidates))
    return candidates[best], {setting: best, "tried": tried}


def fit_mean(train: Any, mask: torch.Tensor, validation: torch.Tensor | None = None) -> tuple[Callable, dict]:
    """The mean training image in every hole."""
    mean = sum(x.sum(0, keepdim=True) for x in batches(train)) / len(train)
    return lambda y, mask: mean.to(y).expand_as(y), {}


def fit_ridge(
    train: Any,
    mask: torch.Tensor,
    validation: torch.Tensor | None = None,
    penalties: Sequence[float] = (0.3, 3.0, 30.0, 300.0, 3000.0),
) -> tuple[Callable, dict]:
    """Linear regression from the known pixels to this hole, closed form, with `penalty` * squared weights."""
    known = mask[0].expand(train.batch(slice(0, 1)).shape[1:]).flatten() == 1
    n, side = len(known), int(known.sum())
    order = torch.cat([known.nonzero()[:, 0], (~known).nonzero()[:, 0]])  # known pixels first
    mean = sum(x.flatten(1)[:, order].double().sum(0) for x in batches(train)) / len(train)
    gram = torch.zeros(side, n, dtype=torch.float64)
    for x in batches(train):
        x = x.flatten(1)[:, order] - mean.float()
        gram += x[:, :side].T @ x

    def linear(penalty):
        a = gram[:, :side] + penalty * torch.eye(side, dtype=torch.float64)
        weights = torch.linalg.solve(a, gram[:, side:])

        def complete(y, hole):
            if not torch.equal(hole[:1].cpu(), mask.cpu()) or (hole != hole[:1]).any():
                raise ValueError("Ridge regression was fitted for another hole: fit it for this mask.")
            x = y.flatten(1).clone()
            known_part = x[:, order[:side]] - mean[:side].to(y)
            x[:, order[side:]] = (known_part @ weights.to(y) + mean[side:].to(y)).clamp(-1, 1)
            return x.view_as(y)

        return complete

    return choose({p: linear(p) for p in penalties}, validation, mask, "penalty")


def nearest(train: Any, y: torch.Tensor, weight: torch.Tensor, k: int = 1) -> torch.Tensor:
    """(N, k) indices of the training images with the least sum of weight * (image - y)^2; weight (1 or N, 1, H, W)."""
    w = weight.expand(-1, y.shape[1], -1, -1).to(y).flatten(1)
    best = torch.full((len(y), k), torch.inf, device=y.device)
    index = torch.zeros(len(y), k, dtype=torch.long, device=y.device)
    start, target = 0, y.flatten(1) * w
    for x in batches(train):
        x = x.to(y).flatten(1)
        distance = w @ x.square().T - 2 * target @ x.T  # + the image's own part, which no candidate changes
        found = torch.cat([index, torch.arange(start, start + len(x), device=y.device).expand(len(y), -1)], 1)
        best, place = torch.cat([best, distance], 1).topk(k, largest=False)
        index, start = found.gather(1, place), start + len(x)
    return index


def fit_nearest(
    train: Any,
    mask: torch.Tensor,
    validation: torch.Tensor | None = None,
    pixels: str = "known",
    itself: bool = True,
) -> tuple[Callable, dict]:
    """The training image whose known pixels (`pixels` "known"), or ring W around the hole ("ring"), are closest.

    `itself`: whether a training image may be its own neighbour; False: the next one, where the known pixels are alike.
    """
    if pixels not in ("known", "ring"):
        raise ValueError(f"Nearest neighbours compare 'known' pixels or the 'ring' around the hole, not {pixels!r}.")

    def complete(y, mask):
        index = nearest(train, y, mask if pixels == "known" else weight_map(mask), 1 if itself else 2).cpu()
        x = train.batch(index[:, 0]).to(y)
        if itself:
            return x
        same = (mask * (x - y).abs()).flatten(1).amax(1) < 1e-6
        return torch.where(same.view(-1, 1, 1, 1), train.batch(index[:, 1]).to(y), x)

    return complete, {}


def _opencv():
    try:
        import cv2
    except ImportError as error:
        raise ValueError("This rival needs OpenCV: pip install opencv-python-headless.") from error
    return cv2


@per_image
def _opencv_inpaint(image, hole, radius=3, flag="INPAINT_TELEA"):
    cv2 = _opencv()
    channels = [
        cv2.inpaint(np.ascontiguousarray(image[..., c]), hole.astype(np.uint8), radius, getattr(cv2, flag))
        for c in range(image.shape[-1])
    ]
    return np.stack(channels, -1)


def fit_opencv(
    train: Any,
    mask: torch.Tensor,
    validation: torch.Tensor | None = None,
    flag: str = "INPAINT_TELEA",
    radii: Sequence[int] = (1, 3, 5, 9, 15),
) -> tuple[Callable, dict]:
    """OpenCV's inpainting by fast marching (Telea) or fluid dynamics (Navier-Stokes), per channel in float32."""
    _opencv()
    return choose({r: partial(_opencv_inpaint, radius=r, flag=flag) for r in radii}, validation, mask, "radius")


def _biharmonic(y, mask):
    from skimage.restoration import inpaint_biharmonic

    x = y.clone()
    for rows, one in by_hole(mask):  # images of one hole as channels: one factorisation for all
        images = y[rows].flatten(0, 1).permute(1, 2, 0).double().cpu().numpy()
        filled = inpaint_biharmonic(images, one[0, 0].cpu().numpy() == 0, channel_axis=-1)
        x[rows] = torch.from_numpy(filled).permute(2, 0, 1).to(y).view_as(x[rows]).clamp(-1, 1)
    return x


def fit_biharmonic(train: Any, mask: torch.Tensor, validation: torch.Tensor | None = None) -> tuple[Callable, dict]:
    """Biharmonic continuation of the known pixels (scikit-image)."""
    try:
        import skimage  # noqa: F401
    except ImportError as error:
        raise ValueError("This rival needs scikit-image: pip install scikit-image.") from error
    return _biharmonic, {}


def low_rank(
    y: torch.Tensor, mask: torch.Tensor, rank: int = 1, beta: float = 1.0, outer: int = 3, inner: int = 40
) -> torch.Tensor:
    """Truncated nuclear norm by ADMM (Hu et al. 2013, algorithms 1 and 2), every channel a matrix in [0, 1].

    Minimises the sum of the singular values but for the `rank` largest, with the known pixels given. `outer` times the
    subspaces A, B of those are taken from the present answer, then `inner` ADMM steps of penalty `beta`.
    """
    known = mask.expand_as(y).flatten(0, 1).cpu() == 1
    data = (y.flatten(0, 1).cpu() + 1) / 2  # GPUs are slower at many small decompositions
    x = torch.where(known, data, torch.zeros_like(data))
    for _ in range(outer):
        u, _, vh = torch.linalg.svd(x)
        top = u[..., :rank] @ vh[..., :rank, :]  # A^T B
        w, dual = x, torch.zeros_like(x)
        for _ in range(inner):
            u, s, vh = torch.linalg.svd(w - dual / beta)
            x = (u * (s - 1 / beta).clamp_min(0).unsqueeze(-2)) @ vh
            w = torch.where(known, data, x + (top + dual) / beta)
            dual = dual + beta * (x - w)
        x = w
    return (x.view(y.shape) * 2 - 1).clamp(-1, 1).to(y)


def fit_low_rank(
    train: Any,
    mask: torch.Tensor,
    validation: torch.Tensor | None = None,
    ranks: Sequence[int] = (0, 1, 2, 3),
    choose_on: int = 64,
    **settings: Any,
) -> tuple[Callable, dict]:
    """`low_rank` with the rank chosen on the first `choose_on` validation images."""
    few = None if validation is None else validation[:choose_on]
    return choose({r: partial(low_rank, rank=r, **settings) for r in ranks}, few, mask, "rank")


@per_image
def _patchmatch(image, hole, patch=2, seed=0):
    import patchmatch

    patchmatch.set_random_seed(seed)  # every image by itself, whatever was filled before
    colour = np.repeat(image, 3 // image.shape[-1], -1).round().astype(np.uint8)
    return np.asarray(patchmatch.inpaint(colour, hole, patch_size=patch))[..., : image.shape[-1]].astype(np.float32)


def fit_patchmatch(
    train: Any,
    mask: torch.Tensor,
    validation: torch.Tensor | None = None,
    neighbours: int = 0,
    patches: Sequence[int] = (1, 2, 3),
    choose_on: int = 64,
    seed: int = 0,
) -> tuple[Callable, dict]:
    """PatchMatch (Barnes et al. 2009, library PyPatchMatch) with patches of 2 * `patch` + 1 pixels, 8 bits.

    Patches come from the image's known part and from its `neighbours` nearest training images, laid beside it.
    """
    try:
        import patchmatch  # noqa: F401
    except ImportError as error:
        raise ValueError("This rival needs PatchMatch: pip install pypatchmatch.") from error

    def complete(y, mask, patch):
        if not neighbours:
            return _patchmatch(y, mask, patch=patch, seed=seed)
        beside = train.batch(nearest(train, y, mask, neighbours).flatten().cpu()).to(y)
        beside = beside.view(len(y), neighbours, *y.shape[1:])
        wide = torch.cat([y, *beside.unbind(1)], -1)
        known = torch.cat([mask, *[torch.ones_like(mask)] * neighbours], -1)
        return _patchmatch(wide, known, patch=patch, seed=seed)[..., : y.shape[-1]].contiguous()

    few = None if validation is None else validation[:choose_on]
    return choose({p: partial(complete, patch=p) for p in patches}, few, mask, "patch")


def networks(
    kind: str, channels: int = 1, size: int = 64, width: int = 16, d_width: int = 16, device: str | torch.device = "cpu"
) -> tuple[nn.Module, nn.Module | None]:
    """(net, D or None) of a feed-forward rival, untrained: "unet", "fourier_conv" or "context_encoder"."""
    if kind == "context_encoder":
        return (
            accelerate(feedforward.ContextEncoder(width, channels=channels, size=size), device),
            accelerate(Discriminator(d_width, channels, size), device),
        )
    return accelerate(feedforward.UNet(width, channels, size, fourier=kind == "fourier_conv"), device), None


def fit_network(
    train: Any,
    mask: torch.Tensor,
    validation: torch.Tensor | None = None,
    kind: str = "unet",
    iterations: int = 4000,
    width: int = 16,
    seed: int = 0,
    device: str | torch.device = "cpu",
    progress: Callable | None = None,
) -> tuple[Callable, dict]:
    """Train a feed-forward net on `training_masks` (half of them the centre hole) in one go; it takes any hole."""
    first = train.batch(slice(0, 1))
    torch.manual_seed(seed)
    net, D = networks(kind, first.shape[1], first.shape[-1], width, device=device)
    loop = feedforward.train_feedforward(net, train, iterations=iterations, D=D, seed=seed, device=device)
    last(loop, progress, iterations)
    return partial(feedforward.paint, net), {"iterations": iterations}


@dataclass(frozen=True)
class Rival:
    """A row: fit(train, mask, validation, **settings) -> (function, facts); its source, and what it has learnt from."""

    fit: Callable
    source: str
    learns: str
    settings: dict = field(default_factory=dict)


RIVALS = {
    "mean": Rival(fit_mean, "the mean of the training images", "training images"),
    "ridge": Rival(fit_ridge, "ridge regression, closed form", "training images, one hole; penalty on validation"),
    "nearest_neighbour": Rival(fit_nearest, "look-up by all known pixels", "keeps the training images"),
    "nearest_ring": Rival(
        fit_nearest, "look-up by the ring W (Yeh et al. 2017)", "keeps the training images", {"pixels": "ring"}
    ),
    "telea": Rival(fit_opencv, "Telea 2004, OpenCV", "nothing; radius on validation images"),
    "navier_stokes": Rival(
        fit_opencv, "Bertalmio et al. 2001, OpenCV", "nothing; radius on validation images", {"flag": "INPAINT_NS"}
    ),
    "biharmonic": Rival(fit_biharmonic, "Damelin and Hoang 2018, scikit-image", "nothing"),
    "low_rank": Rival(fit_low_rank, "Hu et al. 2013, TNNR by ADMM", "nothing; rank on validation images"),
    "patchmatch": Rival(fit_patchmatch, "Barnes et al. 2009, within the image", "nothing; patch size on validation"),
    "patchmatch_training": Rival(
        fit_patchmatch,
        "Barnes et al. 2009, 3 nearest training images beside",
        "keeps the training images",
        {"neighbours": 3},
    ),
    "unet": Rival(fit_network, "Ronneberger et al. 2015, L1", "training images and holes", {"kind": "unet"}),
    "fourier_conv": Rival(
        fit_network,
        "with Fourier convolutions (Suvorov et al. 2022)",
        "training images and holes",
        {"kind": "fourier_conv"},
    ),
    "context_encoder": Rival(
        fit_network, "Pathak et al. 2016, adversarial", "training images and holes", {"kind": "context_encoder"}
    ),
}


def fit(
    name: str, train: Any, mask: torch.Tensor, validation: torch.Tensor | None = None, **settings: Any
) -> Completion:
    """`Completion` of rival `name` for mask (1, 1, H, W), fitted on `train` (a `data.Split`), knobs on `validation`.

    validation: images (n, C, H, W), or None where no knob is open. Raises ValueError for an unknown name or setting.
    """
    if name not in RIVALS:
        raise ValueError(f"Unknown rival {name!r}: use one of {', '.join(RIVALS)}.")
    check_mask(mask, train.size)
    try:
        function, facts = RIVALS[name].fit(train, mask, validation, **{**RIVALS[name].settings, **settings})
    except TypeError as error:
        if "unexpected keyword" not in str(error):
            raise
        raise ValueError(f"Rival {name!r} has no such setting ({error}): see {RIVALS[name].fit.__name__}.") from error
    return Completion(name, function, facts, whole=True)


def poisson(completion: Completion) -> Completion:
    """`completion`, then Poisson blending (Yeh et al. 2017): the hole keeps its gradients and meets y at the seam.

    Only for methods that paint whole images: how far they are from y at the seam is what the blending mends.
    """
    if not completion.whole:
        raise ValueError(
            f"Method {completion.name!r} returns composites, which hide its error at the seam: "
            "let it paint whole images "
            "and declare whole=True."
        )

    def complete(y, mask):
        x = completion.function(y, mask).clone()
        for rows, one in by_hole(mask):
            x[rows] = poisson_blend(y[rows], x[rows], one)
        return x

    return Completion(f"{completion.name}_poisson", complete, completion.facts, completion.coupled)
