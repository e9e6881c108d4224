"""Generators that are not ours, cut by `split` and refined by `refine_features`."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from cgi_helpers.method.masks import center_mask, composite
from cgi_helpers.method.models import Discriminator, Generator
from cgi_helpers.method.refine import refine, refine_features
from cgi_helpers.method.runtime import generator, last
from cgi_helpers.method.search import find_latent
from cgi_helpers.method.split import split

from nets import lively

SIZE = 16


class Mlp(nn.Sequential):
    """z (N, 5) -> image (N, 1, 16, 16)."""

    def __init__(self):
        super().__init__(
            nn.Linear(5, 12),
            nn.ReLU(),
            nn.Linear(12, 20),
            nn.ReLU(),
            nn.Linear(20, 256),
            nn.Tanh(),
            nn.Unflatten(1, (1, 16, 16)),
        )


class Residual(nn.Module):
    """z (N, 3, 4, 4) -> image, with skip connections around each block."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 6, 3, 1, 1)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 6, 3, 1, 1)) for _ in range(2)
        )
        self.last = nn.Conv2d(6, 1, 3, 1, 1)

    def forward(self, z):
        h = self.first(z)
        for block in self.blocks:
            h = F.interpolate(h, scale_factor=2) + F.interpolate(block(h), scale_factor=2)
        return self.last(h).tanh()


class UNet(nn.Module):
    """(masked image, mask) -> image; the decoder sees the encoder's activations."""

    def __init__(self):
        super().__init__()
        self.down = nn.Conv2d(2, 4, 4, 2, 1)
        self.deep = nn.Conv2d(4, 8, 4, 2, 1)
        self.up = nn.ConvTranspose2d(8, 4, 4, 2, 1)
        self.out = nn.ConvTranspose2d(8, 1, 4, 2, 1)

    def forward(self, y, mask):
        a = F.leaky_relu(self.down(torch.cat([y * mask, mask.expand_as(y)], 1)), 0.2)
        b = F.relu(self.up(F.leaky_relu(self.deep(a), 0.2)))
        return self.out(torch.cat([a, b], 1)).tanh()


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=generator("split", seed), dtype=torch.float64)


CASES = {
    "mlp": (Mlp, "3", lambda: (draw(4, 5),)),
    "mlp by number": (Mlp, 3, lambda: (draw(4, 5),)),
    "residual": (Residual, "blocks.0", lambda: (draw(4, 3, 4, 4),)),
    "unet": (UNet, "up", lambda: (draw(4, 1, SIZE, SIZE).clamp(-1, 1), center_mask(SIZE).double())),
}


@pytest.mark.parametrize("name", CASES)
def test_the_halves_are_the_whole_and_the_refinement_climbs(name):
    build, at, inputs = CASES[name]
    G, D, arguments = lively(build()), lively(Discriminator(4, size=SIZE), 1), inputs()
    before = {k: v.clone() for k, v in G.state_dict().items()}
    to_features, to_image = split(G, at=at)
    h = to_features(*arguments)
    torch.testing.assert_close(to_image(h), G(*arguments), rtol=0, atol=1e-12)
    assert (to_image(h + 0.5) - to_image(h)).abs().max() > 1e-3
    states = [s for _, s in refine_features(h, to_image, lambda x: D(x, "independent"), steps=12, step_size=0.02)]
    torch.testing.assert_close(states[0]["images"], G(*arguments), rtol=0, atol=1e-12)
    assert (states[-1]["logits"] > states[0]["logits"]).all()
    assert all(torch.equal(v, before[k]) for k, v in G.state_dict().items()) and not any(
        m._forward_hooks for m in G.modules()
    )


def test_one_step_by_hand_through_a_skip_connection():
    G, D, z = lively(Residual()), lively(Discriminator(4, size=SIZE), 1), draw(2, 3, 4, 4)
    to_features, to_image = split(G, at="blocks.0")
    h = to_features(z).requires_grad_()
    x = F.interpolate(G.first(z), scale_factor=2) + F.interpolate(h, scale_factor=2)
    x = G.last(F.interpolate(x, scale_factor=2) + F.interpolate(G.blocks[1](x), scale_factor=2)).tanh()
    (gradient,) = torch.autograd.grad(F.softplus(-D(x, "independent")).sum(), h)
    (_, _), (_, state) = refine_features(
        h, to_image, lambda x: D(x, "independent"), steps=1, step_size=0.1, stop="median", threshold=1e9
    )
    torch.testing.assert_close(state["features"], (h - 0.1 * gradient).detach(), rtol=0, atol=1e-12)


def test_our_generator_cut_by_name_gives_what_refine_gives():
    G, D = lively(Generator(6, 4, size=SIZE)), lively(Discriminator(4, size=SIZE), 1)
    z, y, mask = draw(3, 6), draw(3, 1, SIZE, SIZE).clamp(-1, 1), center_mask(SIZE).double()
    to_features, to_image = split(G, at="blocks.0")
    ours = last(
        refine(
            G, D, G.to_features(z, 1).detach(), layer=1, steps=5, step_size=0.1, compose=lambda x: composite(y, x, mask)
        )
    )
    other = last(
        refine_features(
            to_features(z), lambda h: composite(y, to_image(h), mask), lambda x: D(x, "independent"), steps=5
        )
    )
    torch.testing.assert_close(other["images"], ours["images"], rtol=0, atol=1e-9)


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer, self.pair, self.never = nn.Linear(4, 4), nn.LSTM(4, 4), nn.Linear(4, 4)

    def forward(self, z):
        return self.pair(self.layer(self.layer(z)))[0]


@pytest.mark.parametrize(
    "build, at, message",
    [
        (Residual, "blocks.2", "no submodule 'blocks.2' in this Residual: use one of first, blocks, blocks.0"),
        (Residual, "", "no submodule ''"),
        (Residual, 1, "Only a Sequential is cut by number"),
        (Mlp, 7, "from 0 to 6"),
        (Twice, "layer", "'layer' runs 2 times"),
        (Twice, "never", "'never' runs 0 times"),
        (Twice, "pair", "'pair' is a tuple, no tensor"),
    ],
)
def test_a_cut_that_does_not_exist_is_one_sentence(build, at, message):
    with pytest.raises(ValueError, match=message) as error:
        split(build().double(), at)[0](draw(2, 4))
    assert "\n" not in str(error.value)


def test_to_image_continues_the_last_call():
    to_features, to_image = split(lively(Residual()), "blocks.0")
    with pytest.raises(ValueError, match="of no images, but got features of 2"):
        to_image(draw(2, 6, 4, 4))
    h = to_features(draw(3, 3, 4, 4))
    with pytest.raises(ValueError, match="of 3 images, but got features of 2"):
        to_image(h[:2])


# --- what the core refuses


def flat_score(x):
    return 5 * x.flatten(1).sum(1)


@pytest.mark.parametrize(
    "features, to_image, score, message",
    [
        (draw(2, 3), lambda h: h.tanh() + 0.1 * torch.randn_like(h), flat_score, "two different images"),
        (draw(2, 3), torch.tanh, lambda x: flat_score(x).sigmoid(), "probabilities: leave its last sigmoid out"),
        (draw(2, 3), torch.tanh, lambda x: x, "for 2 images its output has shape .2, 3."),
        (draw(2, 3), torch.tanh, lambda x: flat_score(x) / 0, "logits contain NaN or infinite"),
        (draw(2, 1, 3, 3), lambda h: 3 + h.exp(), flat_score, r"must lie in \[-1, 1\]"),
        (torch.zeros(2, 3, dtype=torch.long), torch.tanh, flat_score, "Features must be a floating-point tensor"),
    ],
)
def test_parts_that_do_not_suit_are_one_sentence(features, to_image, score, message):
    with pytest.raises(ValueError, match=message) as error:
        next(refine_features(features, to_image, score, steps=2))
    assert "\n" not in str(error.value)


def test_logits_that_happen_to_lie_between_0_and_1_are_fine():
    state = last(refine_features(torch.full((1, 4), 0.02), torch.tanh, flat_score, steps=3, step_size=1e-4))
    assert 0 < float(state["logits"]) < 1


# --- the search takes them, too


@pytest.mark.parametrize("name", ["mlp", "residual"])
def test_the_search_takes_any_generator_and_latent_shape(name):
    build, _, inputs = CASES[name]
    G, (z,), mask = lively(build()), inputs(), center_mask(SIZE).double()
    with torch.no_grad():
        y = G(draw(*z.shape, seed=1))
    losses = [s["best"] for _, s in find_latent(G, None, y, mask, z=z, iterations=40, optimiser="adam", lr=0.1)]
    state = last(find_latent(lambda z: G(z), None, y, mask, z=z, iterations=40, optimiser="adam", lr=0.1))
    assert (losses[-1] < 0.7 * losses[0]).all() and state["z"].shape == z.shape
    torch.testing.assert_close(state["best"], losses[-1], rtol=1e-9, atol=0)
    alone = last(find_latent(G, None, y[1:2], mask, z=z[1:2], iterations=40, optimiser="adam", lr=0.1))
    torch.testing.assert_close(alone["z"][0], state["z"][1], rtol=0, atol=1e-7)


def test_a_search_with_a_foreign_discriminator_and_one_with_a_wrong_output():
    G, (z,), mask = lively(Mlp()), CASES["mlp"][2](), center_mask(SIZE).double()
    y = draw(4, 1, SIZE, SIZE).clamp(-1, 1)
    score = lively(nn.Sequential(nn.Flatten(), nn.Linear(256, 1)))
    state = last(find_latent(G, score, y, mask, z=z, iterations=2, lam=0.5))
    assert (state["prior"] > 0).all()
    with pytest.raises(ValueError, match=r"turns starts .* into \(4, 256\), but the images are \(4, 1, 16, 16\)"):
        next(find_latent(nn.Sequential(nn.Linear(5, 256)).double(), None, y, mask, z=z))
