"""The feed-forward inpainters: training resumes bit for bit, and an opened network is the network."""

import pytest
import torch

from cgi_helpers.data import Split
from cgi_helpers.method.feedforward import ContextEncoder, Opened, Pool, UNet, opened, paint, train_feedforward
from cgi_helpers.method.masks import center_mask, composite
from cgi_helpers.method.models import Discriminator
from cgi_helpers.method.refine import Overlay, refine_all
from cgi_helpers.method.runtime import generator, last
from cgi_helpers.method.shape import shape_discriminator

from nets import lively

SIZE = 16
MASK = center_mask(SIZE)


def nets(channels=1):
    return {
        "unet": UNet(4, channels, SIZE),
        "fourier": UNet(4, channels, SIZE, fourier=True),
        "context_encoder": ContextEncoder(4, 12, channels, SIZE),
    }


def faces(n, channels=1, dtype=torch.float64):
    return torch.rand(n, channels, SIZE, SIZE, generator=generator("y"), dtype=dtype) * 2 - 1


@pytest.mark.parametrize("layer", [0, 1])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kind", nets())
def test_an_opened_network_is_the_network(kind, channels, layer):
    net, y = lively(nets(channels)[kind]), faces(3, channels)
    features, to_image = opened(net, y, MASK, layer)
    assert features.shape[2:] == (4 * 2**layer, 4 * 2**layer)
    torch.testing.assert_close(to_image(features), net(y, MASK))


@pytest.mark.parametrize("kind", nets())
def test_moved_activations_move_the_image(kind):
    net, y = lively(nets()[kind]), faces(2)
    features, to_image = opened(net, y, MASK, 1)
    features.requires_grad_()
    (gradient,) = torch.autograd.grad(to_image(features).square().sum(), features)
    assert (gradient.flatten(1).norm(dim=1) > 0).all()
    assert all(p.grad is None for p in net.parameters())


@pytest.mark.parametrize("kind", nets())
def test_networks_never_see_the_hole(kind):
    net, y = lively(nets()[kind]), faces(3)
    assert torch.equal(net(y, MASK), net(composite(y, -y, MASK), MASK))


@pytest.mark.parametrize("kind", nets())
def test_painting_is_per_image_and_takes_a_mask_per_image(kind):
    net, y = lively(nets()[kind]), faces(5)
    masks = torch.cat([MASK, center_mask(SIZE, 0.5), MASK, MASK, center_mask(SIZE, 0.1)]).double()
    alone = torch.cat([net(y[i : i + 1], masks[i : i + 1]) for i in range(5)])
    torch.testing.assert_close(paint(net, y, masks, batch=2), alone)
    assert not net.training


@pytest.mark.parametrize("layer", [-1, 2, "1"])
def test_a_layer_out_of_range_is_one_sentence(layer):
    with pytest.raises(ValueError, match="decoder's layer must be an integer from 0"):
        opened(UNet(4, 1, SIZE), faces(1), MASK, layer)


def stripes():
    """40 images as stored bytes."""
    pixels = torch.arange(40 * 28 * 28).remainder(251).to(torch.uint8)
    return Split(pixels.view(40, 28, 28), torch.zeros(40, dtype=torch.long), SIZE)


def fresh(kind):
    """(net, D or None), the same at every call."""
    torch.manual_seed(0)
    return nets()[kind], Discriminator(4, 1, SIZE) if kind == "context_encoder" else None


@pytest.mark.parametrize("kind", nets())
def test_interrupted_and_resumed_is_uninterrupted(kind):
    whole, D = fresh(kind)
    last(train_feedforward(whole, stripes(), iterations=6, D=D, batch_size=8))
    half, half_d = fresh(kind)
    for step, state in train_feedforward(half, stripes(), iterations=6, D=half_d, batch_size=8):
        if step == 3:
            break
    net, D = fresh(kind)
    parts = [(net, half), *([(D, half_d)] if D else [])]
    for new, old in parts:
        new.load_state_dict(old.state_dict())
    optimisers = [torch.optim.Adam(new.parameters(), fused=True) for new, _ in parts]
    for new, old in zip(optimisers, state["optimisers"]):
        new.load_state_dict(old.state_dict())
    last(train_feedforward(net, stripes(), iterations=6, D=D, batch_size=8, start=3, optimisers=optimisers))
    for a, b in zip(whole.state_dict().values(), net.state_dict().values()):
        assert torch.equal(a, b)


@pytest.mark.parametrize("kind", nets())
def test_training_lowers_the_loss(kind):
    torch.manual_seed(0)
    net = nets()[kind]
    images = Split(torch.full((64, 28, 28), 230, dtype=torch.uint8), torch.zeros(64, dtype=torch.long), SIZE)
    D = Discriminator(4, 1, SIZE) if kind == "context_encoder" else None
    losses = [float(s["loss"]) for _, s in train_feedforward(net, images, iterations=40, D=D, batch_size=16, lr=0.05)]
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize("kind", nets())
def test_an_opened_network_refines_and_shapes_like_a_generator(kind):
    torch.manual_seed(0)
    net, D, mask = lively(nets()[kind]).float(), Discriminator(4, 1, SIZE), MASK
    G, images = Opened(net, mask), stripes()
    y = images.batch(slice(0, 5))
    start, before = refine_all(G, D, y, layer=1, steps=0, batch_size=2, compose=Overlay(y, mask))
    torch.testing.assert_close(start, composite(y, paint(net, y, mask), mask))
    moved, after = refine_all(G, D, y, layer=1, steps=5, step_size=0.05, batch_size=2, compose=Overlay(y, mask))
    assert (after > before).all() and torch.equal(composite(y, moved, mask), moved)
    weights = [p.clone() for p in D.parameters()]
    last(
        shape_discriminator(
            G,
            D,
            images,
            Pool(images),
            iterations=2,
            layer=1,
            refine_steps=2,
            batch_size=8,
            compose=lambda real: Overlay(real, mask),
        )
    )
    assert any(not torch.equal(a, b) for a, b in zip(weights, D.parameters()))


@pytest.mark.parametrize("kind", nets())
def test_a_region_is_the_region_of_the_image(kind):
    G, y, box = Opened(lively(nets()[kind]), MASK), faces(2), (3, 11, 4, 12)
    h = G.to_features(y, 1)
    torch.testing.assert_close(G.to_region(h, 1, box), G.to_image(h, 1)[..., 3:11, 4:12])


@pytest.mark.parametrize("kind", nets())
def test_an_opened_network_called_is_the_network(kind):
    net, y = lively(nets()[kind]), faces(2)
    assert torch.equal(Opened(net, MASK)(y), net(y, MASK))
