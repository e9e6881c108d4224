"""The plane: the mixture is what it says, and the image loops run on it unchanged."""

import copy

import pytest
import torch

from cgi_helpers import plots
from cgi_helpers.method import plane
from cgi_helpers.method.refine import refine
from cgi_helpers.method.runtime import draw_z, generator, last
from cgi_helpers.method.shape import shape_discriminator


@pytest.fixture
def pair():
    torch.manual_seed(0)
    return plane.PlaneGenerator(), plane.PlaneDiscriminator()


def test_mixture_has_its_weights_and_width():
    x = plane.mixture(50_000, generator(0))
    found = plane.quality(x)
    assert x.shape == (50_000, 2) and abs(found["good"] - (1 - 2.718281828**-4.5)) < 0.002  # Rayleigh: P(r < 3 sigma)
    torch.testing.assert_close(found["modes"], plane.WEIGHTS, atol=0.01, rtol=0)
    assert found["imbalance"] < 0.02 and torch.equal(x, plane.mixture(50_000, generator(0)))


def test_quality_of_extremes():
    one = plane.quality(plane.CENTERS[3].expand(10, 2))
    assert (
        one["good"] == 1
        and one["modes"][3] == 1
        and one["imbalance"] == pytest.approx(1 - float(plane.WEIGHTS[3]), abs=1e-6)
    )
    assert plane.quality(torch.zeros(10, 2))["good"] == 0


def test_layers_split_the_generator(pair):
    G, _ = pair
    z = draw_z(5, G.z_dim, "normal", 0)
    for layer in range(G.layers + 1):
        torch.testing.assert_close(G.to_image(G.to_features(z, layer), layer), G(z))
    assert G.to_features(z, G.layers).shape == (5, 2)
    for wrong in (-1, G.layers + 1, 1.0):
        with pytest.raises(ValueError, match="Layer must be"):
            G.to_features(z, wrong)


def test_refine_moves_points_uphill_at_every_layer(pair):
    G, D = (copy.deepcopy(net).double() for net in pair)  # untrained, they rise by less than float32 resolves
    z = draw_z(16, G.z_dim, "normal", 0).double()
    for layer in range(G.layers + 1):
        h = G.to_features(z, layer).detach()
        loop = refine(G, D, h, layer=layer, steps=10, step_size=0.01)
        _, first = next(loop)
        torch.testing.assert_close(first["images"], G(z).detach())
        assert (last(loop)["path"] > first["logits"]).all()


def test_shaping_changes_only_D(pair):
    G, D = pair
    before = copy.deepcopy((G.state_dict(), D.state_dict()))
    points = plane.Points(plane.mixture(500, generator(0)))
    last(
        shape_discriminator(
            G, D, points, None, iterations=2, layer=G.layers, refine_steps=2, step_size=0.05, batch_size=50
        )
    )
    assert all(torch.equal(v, before[0][k]) for k, v in G.state_dict().items())
    assert not all(torch.equal(v, before[1][k]) for k, v in D.state_dict().items())


def test_training_repeats_and_learns():
    runs = [last(plane.train_plane(iterations=30, n=1_000)) for _ in range(2)]
    for a, b in zip(*(run["G"].state_dict().values() for run in runs)):
        assert torch.equal(a, b)
    assert torch.isfinite(runs[0]["d_loss"]) and len(runs[0]["points"]) == 1_000


def test_landscape_lies_as_the_plot_draws_it():
    D = plane.PlaneDiscriminator(layers=1)
    D.forward = lambda x, mode="auto": x[:, 0] + 10 * x[:, 1]
    extent = (-1, 1, -2, 2)
    found = plane.landscape(D, extent, 5)
    expected = (torch.linspace(-1, 1, 5)[None] + 10 * torch.linspace(-2, 2, 5)[:, None]).sigmoid()
    torch.testing.assert_close(found, expected)
    figure = plots.plane([{"points": plane.CENTERS, "title": "modes", "score": found}], extent, plane.CENTERS)
    assert figure.axes


@pytest.mark.parametrize("name", plane.TRUTHS)
def test_truths_are_what_they_say(name):
    truth = plane.TRUTHS[name]
    x = plane.mixture(20_000, generator(name), truth)
    found = plane.quality(x, truth)
    assert found["good"] > 0.98 and found["imbalance"] < 0.02 and found["js"] < 1e-3
    torch.testing.assert_close(found["modes"], truth.shares(), atol=0.015, rtol=0)
    axis = torch.linspace(-4, 4, 401)
    mass = truth.log_density(torch.cartesian_prod(axis, axis)).exp().sum() * (axis[1] - axis[0]) ** 2
    assert float(mass) == pytest.approx(1, abs=1e-3)


def test_energy_distance_by_hand():
    x, y = torch.tensor([[0.0, 0.0], [2.0, 0.0]]), torch.tensor([[1.0, 0.0], [1.0, 3.0]])
    across = (1 + 1 + 2 * 10**0.5) / 4
    assert plane.energy_distance(x, y) == pytest.approx(2 * across - 2 - 3, abs=1e-6)
    a, b = (plane.mixture(2_000, generator("energy", i)) for i in range(2))
    assert abs(plane.energy_distance(a, b)) < 0.01 < 0.05 < plane.energy_distance(a, b + 0.5)


def test_js_of_disjoint_shares_is_log_two():
    one = plane.Truth(plane.CENTERS[:2], torch.tensor([1.0, 0.0]), 0.1, torch.arange(2))
    assert plane.quality(plane.CENTERS[1:2], one)["js"] == pytest.approx(0.693147, abs=1e-5)
