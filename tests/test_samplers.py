"""The samplers where the answer is known: an optimal D of two Gaussian mixtures, linear and quadratic logits."""

import copy
import math

import pytest
import torch
from torch import nn

from cgi_helpers.method import plane, samplers
from cgi_helpers.method.models import Discriminator, Generator
from cgi_helpers.method.refine import refine
from cgi_helpers.method.runtime import draw_z, generator, last
from cgi_helpers.method.samplers import SAMPLERS, Calibrated, calibrate, reliability
from tests.nets import lively

CENTERS = torch.tensor([[-1.0, 0.0], [1.0, 0.0], [0.0, 1.5]])
REAL, MADE = (plane.Truth(CENTERS, torch.tensor(w), 0.2, torch.arange(3)) for w in ([0.6, 0.3, 0.1], [0.2, 0.3, 0.5]))


class Known(nn.Module):
    """G with the density MADE: the first number of z picks the mode, the others move about its center."""

    z_dim, layers = 3, 0

    def forward(self, z):
        mode = torch.searchsorted(MADE.weights.cumsum(0), torch.special.ndtr(z[:, 0]).contiguous()).clamp_max(2)
        return MADE.centers[mode] + MADE.sigma * z[:, 1:]


class Optimal(nn.Module):
    """The optimal D of REAL against MADE."""

    def forward(self, x, mode="auto"):
        return REAL.log_density(x) - MADE.log_density(x)


class Identity(nn.Module):
    """G whose image is z, two numbers."""

    z_dim, layers = 2, 0

    def forward(self, z):
        return z

    def check_layer(self, layer):
        pass

    def to_features(self, z, layer):
        return z

    to_image = to_features


class Logit(nn.Module):
    """D with a given function as its logit."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x, mode="auto"):
        return self.function(x)


SLOPE = torch.tensor([2.0, -1.0])
LINEAR = Logit(SLOPE.__rmatmul__)
OPTIONS = {
    "optimal_transport": dict(layer=2, steps=2),
    "collaborative": dict(layer=2, steps=2),
    "collaborative_rejection": dict(layer=2, steps=2, burn_in=500, percentile=50),
    "rejection": dict(burn_in=500, percentile=50),
    "metropolis_hastings": dict(chains=10, burn_in=5, thin=1),
    "langevin": dict(steps=2),
    "gradient_flow": dict(steps=2),
    "plain": {},
}


def off(images, n):
    """Distance of the modes' shares from REAL's in binomial standard errors, the largest."""
    error = (REAL.weights * (1 - REAL.weights) / n).sqrt()
    return float(((plane.quality(images, REAL)["modes"] - REAL.weights).abs() / error).max())


def test_exact_samplers_give_the_true_shares():
    n = 3_000
    images, facts = samplers.rejection(Known(), Optimal(), n, key=(0,), burn_in=1_000)
    assert off(images, n) < 3.3 and facts["acceptance"] == pytest.approx(1 / 3, abs=0.03)  # max p / q = 3
    chain, facts = samplers.metropolis_hastings(Known(), Optimal(), n, key=(0,), chains=n, burn_in=40, thin=1)
    assert off(chain, n) < 3.3 and 0.3 < facts["acceptance"] < 0.9
    real = plane.mixture(200, generator("real"), REAL)
    options = dict(chains=n, burn_in=40, thin=1)
    chain, facts = samplers.metropolis_hastings(Known(), Optimal(), n, key=(1,), real=real, **options)
    assert off(chain, n) < 3.3 and facts["restarted"] < n / 100
    assert off(samplers.plain(Known(), Optimal(), n, key=(0,))[0], n) > 10  # so the bounds above can fail


def test_kept_states_of_few_chains_have_the_true_shares_too():
    chain, facts = samplers.metropolis_hastings(Known(), Optimal(), 2_000, key=(2,), chains=100, burn_in=20, thin=10)
    assert off(chain, 2_000) < 3.3 and facts["G_calls"] == 100 * (20 + 20 * 10)


def test_percentile_shifts_the_acceptance():
    found = [
        samplers.rejection(Known(), Optimal(), 500, key=(0,), burn_in=1_000, percentile=q)[1]["acceptance"]
        for q in (20, 60, 95)
    ]
    assert found[0] > found[1] > found[2]


def test_langevin_has_its_stationary_variance():
    curvature, step = 4.0, 0.1  # of E = |z|^2 / 2 + 3 |z|^2 / 2
    D = Logit(lambda x: -1.5 * x.square().sum(1))
    z, _ = samplers.langevin(Identity(), D, 4_000, key=(0,), steps=60, step_size=step)
    exact = 1 / (curvature * (1 - step * curvature / 4))  # of the unadjusted chain; 1 / curvature for infinitely small
    assert abs(float(z.var()) / exact - 1) < 4 * math.sqrt(2 / 8_000)
    assert abs(float(z.var()) * curvature - 1) > 4 * math.sqrt(2 / 8_000)


def test_gradient_flow_by_hand():
    z = draw_z(5, 2, "normal", 7)
    kl, _ = samplers.gradient_flow(Identity(), LINEAR, 5, key=(7,), steps=3, step_size=0.1, gamma=0)
    torch.testing.assert_close(kl, z + 0.3 * SLOPE)
    js, _ = samplers.gradient_flow(Identity(), LINEAR, 5, key=(7,), divergence="JS", steps=1, step_size=0.1, gamma=0)
    torch.testing.assert_close(js, z + 0.1 * (z @ SLOPE).sigmoid()[:, None] * SLOPE)
    many, _ = samplers.gradient_flow(Identity(), LINEAR, 4_000, key=(7,), steps=3, step_size=0.1, gamma=0.5)
    noise = many - draw_z(4_000, 2, "normal", 7) - 0.3 * SLOPE
    assert abs(float(noise.var()) / 0.3 - 1) < 4 * math.sqrt(2 / 8_000)  # 2 gamma step_size per step


def test_optimal_transport_by_hand():
    z = draw_z(5, 2, "normal", 7)
    options = dict(key=(7,), layer=0, steps=1, step_size=0.1)
    x, _ = samplers.optimal_transport(Identity(), LINEAR, 5, lipschitz=0.5, **options)
    torch.testing.assert_close(x, z - 0.1 * (torch.full((2,), 2**-0.5) - SLOPE / 0.5), atol=1e-5, rtol=0)
    K = samplers.optimal_transport(Identity(), LINEAR, 5, **options)[1]["lipschitz"]
    assert 0.99 * SLOPE.norm() < K < 1.0001 * SLOPE.norm()


def test_collaborative_is_refine():
    G, D = lively(Generator(8, 4, 1, 16)).float(), lively(Discriminator(4, 1, 16)).float()
    options = dict(layer=1, steps=3, step_size=0.05)
    images, facts = samplers.collaborative(G, D, 6, key=(3,), **options)
    with torch.no_grad():
        h = G.to_features(draw_z(6, 8, "normal", 3), 1)
    state = last(refine(G, D, h, **options))
    torch.testing.assert_close(images, state["images"])
    assert (facts["G_calls"], facts["D_calls"], facts["gradients"]) == (24, 24, 18)


@pytest.mark.parametrize("name", SAMPLERS)
def test_every_sampler_on_images_repeats_and_leaves_the_networks_alone(name):
    G, D = lively(Generator(8, 4, 1, 16)).float(), lively(Discriminator(4, 1, 16)).float()
    before = copy.deepcopy((G.state_dict(), D.state_dict()))
    runs = [SAMPLERS[name](G, Calibrated(D, 0.5), 7, key=(k,), **OPTIONS[name]) for k in (0, 0, 1)]
    (images, facts), (again, _), (other, _) = runs
    assert images.shape == (7, 1, 16, 16) and images.abs().max() <= 1 and not images.requires_grad
    assert torch.equal(images, again) and not torch.equal(images, other)
    torch.testing.assert_close(facts["logits"], 0.5 * D(images, "independent").detach(), atol=1e-4, rtol=1e-4)
    for net, old in zip((G, D), before):
        assert all(torch.equal(v, old[k]) for k, v in net.state_dict().items())
    assert facts["G_calls"] >= 7 and facts["gradients"] <= facts["D_calls"]


@pytest.mark.parametrize("name", ["plain", "rejection", "langevin", "collaborative"])
def test_more_samples_begin_with_the_same_ones(name):
    G, D = plane.PlaneGenerator(), plane.PlaneDiscriminator()
    few, many = (SAMPLERS[name](G, D, n, key=(0,), **OPTIONS[name])[0] for n in (3, 510))
    torch.testing.assert_close(many[:3], few)


@pytest.mark.parametrize("name", SAMPLERS)
def test_bad_input(name):
    G = plane.PlaneGenerator()
    for n in (0, -1, 2.0, True):
        with pytest.raises(ValueError, match="at least 1"):
            SAMPLERS[name](G, plane.PlaneDiscriminator(), n, key=(0,), **OPTIONS[name])
    broken = plane.PlaneDiscriminator()
    nn.init.constant_(broken[-1].bias, float("nan"))
    with pytest.raises(ValueError, match="NaN or infinite"):
        SAMPLERS[name](G, broken, 5, key=(0,), **OPTIONS[name])


def test_a_D_that_rejects_everything_is_told():
    D = Logit(lambda x: 1e3 * x.sum(1))
    with pytest.raises(ValueError, match="fewer than 1 in 10,000"):
        samplers.rejection(Identity(), D, 100, key=(0,), burn_in=500, budget=2_000)


def test_a_chain_that_never_moves_is_told_and_a_stuck_start_is_left():
    G, seen = Identity(), []

    def logit(x):  # every image scores lower than the one before
        seen.append(len(x))
        return -1e3 * (len(seen) + torch.rand(len(x)))

    with pytest.raises(ValueError, match="No chain moved in 20 proposals"):
        samplers.metropolis_hastings(G, Logit(logit), 5, key=(0,), burn_in=10)
    high = Logit(lambda x: torch.where(x[:, 0] > 50, 1e3, 0.1 * x[:, 0]))
    x, facts = samplers.metropolis_hastings(G, high, 5, key=(0,), real=torch.full((1, 2), 99.0), burn_in=10)
    assert facts["restarted"] == 5 and x.abs().max() < 50


def test_wrong_options_are_told():
    G, D = plane.PlaneGenerator(), plane.PlaneDiscriminator()
    with pytest.raises(ValueError, match="use 'normal'"):
        samplers.langevin(G, D, 5, key=(0,), prior="uniform")
    with pytest.raises(ValueError, match="Unknown divergence 'TV'"):
        samplers.gradient_flow(G, D, 5, key=(0,), divergence="TV")
    with pytest.raises(ValueError, match="Layer must be"):
        samplers.optimal_transport(G, D, 5, key=(0,), layer=9)
    with pytest.raises(ValueError, match="the same everywhere"):
        samplers.optimal_transport(Identity(), Logit(lambda x: 0 * x[:, 0]), 5, key=(0,), layer=0)
    with pytest.raises(ValueError, match="Unknown calibration"):
        calibrate([0.0, 1.0], [0.0, 1.0], "isotonic")
    with pytest.raises(ValueError, match="2 or more"):
        calibrate([0.0], [0.0, 1.0])
    with pytest.raises(ValueError, match="not all finite"):
        calibrate([0.0, math.inf], [0.0, 1.0])


def test_calibration_finds_the_true_logits_again():
    exact = [Optimal()(plane.mixture(20_000, generator("scale", i), truth)) for i, truth in enumerate((REAL, MADE))]
    wrong = [(logits - 0.4) / 3 for logits in exact]
    scale, shift = calibrate(*wrong)
    assert scale == pytest.approx(3, abs=0.1) and shift == pytest.approx(0.4, abs=0.05)
    before, after = reliability(*wrong), reliability(*(scale * w + shift for w in wrong))
    assert after["ece"] < 0.015 < 0.1 < before["ece"] and after["brier"] < before["brier"] - 0.02
    a, b = calibrate(*(logits / 2 for logits in exact), "temperature")
    assert a == pytest.approx(2, abs=0.05) and b == 0
    assert all(map(math.isfinite, calibrate([5.0, 6.0], [-5.0, -6.0])))  # separable


def test_reliability_by_hand():
    three = math.log(3)
    found = reliability(torch.tensor([0.0, three]), torch.tensor([0.0, -three]), bins=5)  # D = 0.5, 0.75 and 0.5, 0.25
    assert found["brier"] == pytest.approx((0.25 + 0.0625 + 0.25 + 0.0625) / 4)
    assert found["share"].tolist() == pytest.approx([0, 0.25, 0.5, 0.25, 0])
    assert found["ece"] == pytest.approx(2 * 0.25 * 0.25)
    assert found["frequency"][1:4].tolist() == pytest.approx([0, 0.5, 1]) and math.isnan(found["confidence"][0])


def test_calibrated_discriminator():
    D = lively(Discriminator(4, 1, 16)).float()
    x = torch.rand(3, 1, 16, 16) * 2 - 1
    torch.testing.assert_close(Calibrated(D, 2.0, -1.0)(x), 2 * D(x, "independent") - 1, atol=1e-5, rtol=1e-5)
    with pytest.raises(ValueError, match="batch statistics"):
        Calibrated(D)(x, "batch")
