"""The whole method in two calls: `pretrained` opens trained networks, `inpaint` fills holes of own images with them."""

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from PIL import Image

from .data import as_mask, from_image
from .data.convert import to_bytes
from .method.fast import Overlay
from .method.losses import context_loss, prior_loss
from .method.masks import MASKS, named_mask, weight_map
from .method.refine import refine as refine_layer
from .method.runtime import generator, last
from .method.search import find_latent
from .pipeline.evaluation import COMPANIONS, find, guide, judge_of, path_of, record, stages_of
from .pipeline.presets import get_preset
from .pipeline.session import Session, start
from .study.rivals import by_hole

FIELD, ALONE = "collaborative_field", "collaborative_independent_best"  # families: what refines; what scores a search
OTHER_HOLES = dict(iterations=100, optimiser="adam", lr=0.02)  # not whitened: that matrix takes a second per hole
SPREAD = 0.5  # standard deviation of the noise on the encoder's answer, from the second completion on
BATCH = 64  # completions computed together: memory, not results
_opened = {}


@dataclass
class Pretrained:
    """The trained networks of a preset, each read when it is first asked for; `session` has all else that was made."""

    session: Session

    @property
    def preset(self):
        """The settings that the networks were made with."""
        return self.session.preset

    @cached_property
    def G(self):
        """Generator: z (N, z_dim) -> images (N, C, size, size) in [-1, 1]."""
        return self.session.net("generator")

    @cached_property
    def D(self):
        """Discriminator as trained: images -> logits (N,)."""
        return self.session.net("discriminator")

    @cached_property
    def E(self):
        """Encoder: (images, mask) -> z (N, z_dim), where the search starts."""
        return self.session.net("encoder")

    @cached_property
    def C(self):
        """Classifier: images -> logits (N, classes)."""
        return self.session.net("classifier")

    def shaped(self, row, epochs):
        """The discriminator after `epochs` (0: as trained) of shaping by `row` of the preset's shapings."""
        return self.session.shaped(row, epochs)

    def judge(self, family, mask=None):
        """(D or a Judge, keyword arguments of `refine`) of a family of the study, after the epochs that were chosen.

        In mode "field" the field is the stored one or, for a `mask` (1, 1, H, W) that is not the preset's, recorded for
        that hole now.
        """
        row = self.preset.study.families[family]
        stages, chosen = stages_of(self.preset, row), None
        if len(stages) > 1 and self.session.up_to_date("tune"):
            chosen = self.session.load("selection")[0]["stages"].get(family)
        epochs = next((e for e in stages if str(e) == chosen), stages[-1])
        if row.mode != "field" or mask is None or torch.equal(mask, self.session.mask):
            return guide(self.session, row, epochs)
        field = record(self.session, row, epochs, mask, min(row.companions, COMPANIONS))
        return judge_of(self.session, row, epochs).played(field), path_of(self.session, row)


def pretrained(preset=None, *, seed=0, device="auto"):
    """The `Pretrained` networks of a preset, by name ("laptop") or as such; None: `$CGI_PRESET`, else laptop.

    Opened once per process: what one call computes (the whitening) the next one has. ValueError
    for an unknown preset or device; ArtifactError, when a network is read, says which command makes it.
    """
    preset = get_preset(preset)
    key = repr(preset), seed, str(device), os.environ.get("CGI_ROOT")
    if key not in _opened:
        _opened[key] = Pretrained(start(preset, seed, device, progress=False))
    return _opened[key]


def inpaint(image, mask, *, refine=True, seed=0, n=1, preset=None, value_range=None):
    """Fill the hole of one image or of several, `n` times each: (completions (N * n, C, size, size) in [-1, 1], facts).

    image: a path, PIL image, array or tensor, or a list or a batch (N, C, H, W) of them, see `data.from_image` (for
    `value_range`, too). mask: one for all or one per image, 1 or white = known, see `data.as_mask`; or a name of
    `masks.MASKS`. preset: a name, or what `pretrained` gave. The size is the preset's, 64 x 64 unless said: known
    pixels are those of the resampled image.

    Searches the latent from the encoder's answer (from the second completion on plus noise, drawn from `seed` and the
    numbers of image and completion) and, with `refine`, refines it in the recorded field, or as the family of the study
    does whose name `refine` is ("collaborative_long": six times the steps, closer to the original;
    "collaborative_unet_inverted": the search also fits what a U-Net paints into the hole); for a hole that is
    not the preset's own the field is recorded first, about a second per hole. ValueError in one sentence for bad input.

    facts: a dict per completion, image by image. "image", "completion": its numbers; "score": its logit by the D that
    guides it (without `refine`: by the one for single images), "score_before": before the refinement; "losses":
    "context" and "prior" of the latent; "steps": iterations of the "search", step that the "refinement" kept.
    """
    model = preset if isinstance(preset, Pretrained) else pretrained(preset)
    p, session = model.preset, model.session
    for name, number, least in (("n", n, 1), ("seed", seed, 0)):
        if not isinstance(number, int) or isinstance(number, bool) or number < least:
            raise ValueError(f"{name} must be an integer >= {least} but is {number!r}.")
    family = FIELD if refine is True and FIELD in p.study.families else ALONE if refine in (True, False) else refine
    searched = [name for name, row in p.study.families.items() if row.search in p.searches]
    if family not in searched:
        raise ValueError(f"refine must be True, False or one of {', '.join(searched)} but is {refine!r}.")
    y = torch.cat([from_image(one, p.size, p.channels, value_range) for one in several(image, "image")])
    masks = torch.cat([to_mask(one, session, seed) for one in several(mask, "mask")])
    if len(masks) not in (1, len(y)):
        raise ValueError(f"There are {len(masks)} masks for {len(y)} images: give one for all, or one per image.")
    y, masks = y.to(session.device), masks.expand(len(y), -1, -1, -1).to(session.device)
    with torch.no_grad():
        z = model.E(y, masks)
    z, y, masks = z.repeat_interleave(n, 0), y.repeat_interleave(n, 0), masks.repeat_interleave(n, 0)
    for k in range(len(z)):
        if k % n:
            noise = torch.randn(z.shape[1:], generator=generator(seed, "inpaint", k // n, k % n))
            z[k] += SPREAD * noise.to(z)
    images, facts = torch.empty_like(y), [{"image": k // n, "completion": k % n} for k in range(len(y))]
    search = p.study.families[family].search
    search = search if p.searches[search].guess else "best"  # the report's takes a thousand iterations
    for same, hole in by_hole(masks):
        D, how = model.judge(family, hole)
        for rows in torch.arange(len(y), device=y.device)[same].split(BATCH):
            images[rows], found = complete(
                model, y[rows], hole, z[rows], search, D, how if refine else {**how, "steps": 0}
            )
            for row, fact in zip(rows.tolist(), found):
                facts[row].update(fact)
    return images, facts


def several(values, name):
    """A list of images or masks from one of them, a list, or a batch (N, C, H, W); ValueError if it is empty."""
    batch = isinstance(values, (list, tuple)) or getattr(values, "ndim", 0) == 4
    if batch and not len(values):
        raise ValueError(f"There is no {name}: give at least one.")
    return list(values) if batch else [values]


def to_mask(mask, session, seed):
    """One mask (1, 1, size, size) by the name of its kind (random ones are drawn from `seed`), or an own one."""
    size = session.preset.size
    if isinstance(mask, str) and mask in MASKS:
        return named_mask(mask, size, generator(seed, "mask"))
    if isinstance(mask, (str, os.PathLike)) and not Path(mask).exists():
        raise ValueError(f"There is no mask {os.fspath(mask)!r}: name a picture or one of {', '.join(MASKS)}.")
    return as_mask(mask, size)


def complete(model, y, mask, z, row, D, how):
    """(completions, facts) of images y (N, C, H, W) with one hole by a row of the searches from starts z (N, z_dim),
    refined as `how` says."""
    p, G, own = model.preset, model.G, torch.equal(mask, model.session.mask)
    search = p.searches[row]
    iterations = search.iterations if own else OTHER_HOLES["iterations"]
    if own:
        z = find(model.session, row, G, lambda y, mask: z, y, range(len(y)))
    else:
        guess = model.session.guess(search.guess, y, mask) if search.guess else None
        options = dict(window=p.window, guess=guess, guess_weight=search.weight_inside, **OTHER_HOLES)
        z = last(find_latent(G, None, y, mask, z=z, **options))["z"]
    with torch.no_grad():
        x, h = G(z), G.to_features(z, how["layer"])
        context = context_loss(x, y, weight_map(mask, p.window))
        prior = prior_loss(model.D(x), p.lam)
    loop = refine_layer(G, D, h, compose=Overlay(y, mask), **how)
    before = next(loop)[1]
    after = last(loop) or before
    return after["images"], [
        {
            "score": float(after["logits"][i]),
            "score_before": float(before["logits"][i]),
            "losses": {"context": float(context[i]), "prior": float(prior[i])},
            "steps": {"search": iterations, "refinement": int(after["steps"][i])},
        }
        for i in range(len(y))
    ]


def to_picture(x):
    """One image (C, H, W) in [-1, 1] as a PIL image, grey or RGB."""
    array = to_bytes(x).numpy()
    return Image.fromarray(array[0] if len(array) == 1 else array.transpose(1, 2, 0).copy())
