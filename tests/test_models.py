"""The networks: layers of G, normalisation modes of D, what the encoder sees, precision."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from cgi_helpers.method.fast import Around
from cgi_helpers.method.models import NORMS, BatchStatNorm, Classifier, Discriminator, Encoder, Generator, for_inference

from nets import lively


def rand(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 2 - 1


# --- G


@pytest.mark.parametrize("size, channels", [(8, 1), (16, 3), (64, 1)])
def test_to_image_continues_to_features_at_every_layer(size, channels):
    G = lively(Generator(5, 3, channels, size))
    z = rand(4, 5)
    whole = G(z)
    assert whole.shape == (4, channels, size, size) and whole.abs().max() <= 1 and whole.std() > 0.05
    for layer in range(G.layers + 1):
        h = G.to_features(z, layer)
        width = channels if layer == G.layers else 3 * 2 ** (G.layers - 1 - layer)
        assert h.shape == (4, width, 4 * 2**layer, 4 * 2**layer)
        assert torch.equal(G.to_image(h, layer), whole)


@pytest.mark.parametrize("amp", [None, torch.bfloat16])
def test_the_same_in_float32_and_bfloat16(amp):
    G = lively(Generator(5, 4, size=16)).float()
    G.amp = amp
    z = rand(3, 5).float()
    for layer in range(G.layers + 1):
        h = G.to_features(z, layer)
        assert h.dtype == torch.float32 and torch.equal(G.to_image(h, layer), G(z))
    G.amp = None
    torch.testing.assert_close(G(z), G.double()(z.double()).float(), rtol=0, atol=1e-5)


def test_features_are_taken_after_batchnorm_and_relu():
    G = lively(Generator(5, 4, size=16))
    z = rand(3, 5)
    h = G.project(z).view(3, -1, 4, 4)
    n = G.norm
    h = (h - n.running_mean.view(1, -1, 1, 1)) / (n.running_var.view(1, -1, 1, 1) + n.eps).sqrt()
    h = (h * n.weight.view(1, -1, 1, 1) + n.bias.view(1, -1, 1, 1)).clamp_min(0)
    torch.testing.assert_close(G.to_features(z, 0), h)


def test_pixels_are_clamped_at_the_last_layer():
    G = Generator(5, 4, size=16)
    assert torch.equal(G.to_image(torch.tensor([[[[-3.0, 0.5, 3.0]]]]), G.layers), torch.tensor([[[[-1.0, 0.5, 1.0]]]]))


@pytest.mark.parametrize("layer", [-1, 3, 1.0, "1", None])
def test_layer_out_of_range_is_refused(layer):
    G = Generator(5, 4, size=16)
    for call in (
        lambda: G.check_layer(layer),
        lambda: G.to_features(torch.zeros(1, 5), layer),
        lambda: G.to_image(torch.zeros(1, 4, 8, 8), layer),
    ):
        with pytest.raises(ValueError, match="Layer must be an integer from 0 .4x4. to 2"):
            call()


@pytest.mark.parametrize("size", [4, 28, 63, 96])
def test_sizes_that_no_stack_of_doublings_reaches_are_refused(size):
    for kind in (Generator, Discriminator, Encoder):
        with pytest.raises(ValueError, match="Image size must be 8, 16, 32, 64"):
            kind(size=size)


def test_dcgan_initialisation_and_widths():
    torch.manual_seed(0)
    G, D = Generator(100, 32), Discriminator(32)
    for net in (G, D):
        for m in net.modules():
            if isinstance(m, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)) and m.weight.numel() > 5000:
                assert m.weight.std().item() == pytest.approx(0.02, rel=0.1) and abs(m.weight.mean()) < 0.002
    assert [b[0].out_channels for b in G.blocks] == [128, 64, 32, 1]
    assert [m.out_channels for m in D.features if isinstance(m, nn.Conv2d)] == [32, 64, 128, 256]


# --- D


def reference_logits(D, x, batch):
    """D by formulas: stride-2 convolutions, normalisation by the batch or by running statistics, leaky ReLU 0.2."""
    h, layers = x, list(D.features)
    for layer in layers:
        if isinstance(layer, nn.Conv2d):
            h = F.conv2d(h, layer.weight, layer.bias, stride=2, padding=1)
        elif isinstance(layer, nn.BatchNorm2d):
            mean = h.mean((0, 2, 3)) if batch else layer.running_mean
            var = ((h - mean.view(1, -1, 1, 1)) ** 2).mean((0, 2, 3)) if batch else layer.running_var
            h = (h - mean.view(1, -1, 1, 1)) / (var.view(1, -1, 1, 1) + layer.eps).sqrt()
            h = h * layer.weight.view(1, -1, 1, 1) + layer.bias.view(1, -1, 1, 1)
        else:
            h = torch.where(h > 0, h, 0.2 * h)
    return h.flatten(1) @ D.head.weight[0] + D.head.bias


@pytest.mark.parametrize("training", [False, True])
def test_both_modes_follow_their_formula_and_change_no_buffer(training):
    D, x = lively(Discriminator(4, size=16)).train(training), rand(6, 1, 16, 16)
    before = {k: v.clone() for k, v in D.state_dict().items()}
    torch.testing.assert_close(D(x, "batch"), reference_logits(D, x, True))
    torch.testing.assert_close(D(x, "independent"), reference_logits(D, x, False))
    assert not torch.allclose(D(x, "batch"), D(x, "independent"))
    assert all(torch.equal(v, before[k]) for k, v in D.state_dict().items())


def test_auto_follows_train_and_eval():
    D, x = lively(Discriminator(4, size=16)), rand(6, 1, 16, 16)
    D(x, "batch")  # leaves nothing behind
    assert torch.equal(D(x), D(x, "independent"))
    before = D.features[3].running_mean.clone()
    torch.testing.assert_close(D.train()(x), D(x, "batch"))
    assert not torch.equal(D.features[3].running_mean, before)


def test_images_pull_on_each_other_in_batch_mode_only():
    D, x = lively(Discriminator(4, size=16)), rand(6, 1, 16, 16)
    other = torch.cat([x[:1], rand(5, 1, 16, 16, seed=1)])
    torch.testing.assert_close(D(x, "independent")[0], D(other, "independent")[0], rtol=0, atol=1e-12)
    assert (D(x, "batch")[0] - D(other, "batch")[0]).abs() > 1e-3


@pytest.mark.parametrize("norm", [n for n in NORMS if n != "batch"])
def test_without_batchnorm_all_modes_agree_per_image(norm):
    D, x = lively(Discriminator(4, size=16, norm=norm)).train(), rand(6, 1, 16, 16)
    assert not any(isinstance(m, BatchStatNorm) for m in D.modules())
    for mode in ("auto", "batch", "independent"):
        torch.testing.assert_close(
            torch.cat([D(x[i : i + 1], mode) for i in range(6)]), D(x, "batch"), rtol=0, atol=1e-12
        )
    assert D(x).std() > 1e-3


def test_unknown_mode_and_normalisation_are_refused():
    with pytest.raises(ValueError, match="Unknown discriminator mode 'eval': use one of auto, batch, independent"):
        Discriminator(2, size=8)(torch.zeros(1, 1, 8, 8), "eval")
    with pytest.raises(ValueError, match="Unknown normalisation 'layer': use one of batch, group, instance, none"):
        Discriminator(2, size=8, norm="layer")


# --- copies for inference, and parts of images


def test_a_copy_for_inference_gives_the_same_numbers_and_leaves_the_network_alone():
    G, D, z, x = (
        lively(Generator(5, 4, size=32)).train(),
        lively(Discriminator(4, size=32)).train(),
        rand(3, 5),
        rand(3, 1, 32, 32),
    )
    before = [{k: v.clone() for k, v in net.state_dict().items()} for net in (G, D)]
    fast_G, fast_D, whole_D = for_inference(G), for_inference(D), for_inference(D, fold=False)
    for net in (fast_G, fast_D, whole_D):
        assert not any(m.training for m in net.modules()) and not any(p.requires_grad for p in net.parameters())
    assert not any(isinstance(m, nn.BatchNorm2d) for m in [*fast_G.blocks.modules(), *fast_D.modules()])
    assert all(torch.equal(v, old[k]) for net, old in zip((G, D), before) for k, v in net.state_dict().items())
    assert G.training and D.training and all(p.requires_grad for net in (G, D) for p in net.parameters())
    with torch.no_grad():
        torch.testing.assert_close(whole_D(x, "batch"), D(x, "batch"), rtol=0, atol=1e-12)
        G.eval(), D.eval()
        for layer in range(G.layers + 1):
            torch.testing.assert_close(fast_G.to_features(z, layer), G.to_features(z, layer), rtol=0, atol=1e-12)
            torch.testing.assert_close(fast_G.to_image(G.to_features(z, layer), layer), G(z), rtol=0, atol=1e-12)
        torch.testing.assert_close(fast_D(x), D(x), rtol=0, atol=1e-12)
        G.float(), D.float()
        torch.testing.assert_close(for_inference(G)(z.float()), G(z.float()), rtol=0, atol=1e-4)
        torch.testing.assert_close(for_inference(D)(x.float()), D(x.float()), rtol=0, atol=1e-4)
    with pytest.raises(ValueError, match="folded for inference has no batch statistics"):
        fast_D(x, "batch")


def test_lowered_weights_agree_with_autocast():
    """bfloat16 resolves 4e-3; the copy's weights are lowered once and its results stay float32."""
    G, D = lively(Generator(5, 4, size=32)).float(), lively(Discriminator(4, size=32)).float()
    z, x = rand(3, 5).float(), rand(3, 1, 32, 32).float()
    G.amp = D.amp = torch.bfloat16
    fast_G, fast_D, whole_D = for_inference(G), for_inference(D), for_inference(D, fold=False)
    assert fast_G.blocks[0][0].weight.dtype == fast_D.head.weight.dtype == torch.bfloat16 and fast_G.amp is None
    assert G.blocks[0][0].weight.dtype == torch.float32 and G.amp is torch.bfloat16
    with torch.no_grad():
        for a, b in (
            (fast_G(z), G(z)),
            (fast_D(x), D(x)),
            (whole_D(x, "batch"), D(x, "batch")),
            (fast_G.to_image(fast_G.to_features(z, 1), 1), G(z)),
            (fast_G.to_region(fast_G.to_features(z, 0), 0, (9, 20, 3, 30)), G(z)[..., 9:20, 3:30]),
        ):
            assert a.dtype == torch.float32
            torch.testing.assert_close(a, b, rtol=0, atol=0.05)


@pytest.mark.parametrize("box", [(13, 51, 13, 51), (0, 64, 0, 64), (0, 5, 60, 64), (63, 64, 0, 1), (7, 30, 1, 64)])
def test_a_region_is_cut_from_the_image_and_so_is_its_gradient(box):
    top, bottom, left, right = box
    for G in (lively(Generator(5, 2)), for_inference(lively(Generator(5, 2)))):
        for layer in range(G.layers + 1):
            h = G.to_features(rand(2, 5), layer).detach().requires_grad_()
            part, whole = G.to_region(h, layer, box), G.to_image(h, layer)[..., top:bottom, left:right]
            torch.testing.assert_close(part, whole, rtol=0, atol=1e-12)
            for a, b in zip(*(torch.autograd.grad(x.square().sum(), h) for x in (part, whole)), strict=True):
                torch.testing.assert_close(a, b, rtol=0, atol=1e-9)


@pytest.mark.parametrize("mode", ["independent", "batch"])
@pytest.mark.parametrize("box", [(16, 48, 16, 48), (0, 64, 32, 64), (0, 3, 61, 64), (0, 64, 0, 64), (30, 31, 5, 60)])
def test_d_around_a_box_equals_d(box, mode):
    top, bottom, left, right = box
    D = for_inference(lively(Discriminator(2)), fold=mode != "batch")
    known = rand(3, 1, 64, 64)
    x = known.clone()
    x[..., top:bottom, left:right] = rand(3, 1, bottom - top, right - left, seed=1)
    x.requires_grad_()
    part, whole = Around(D, known, box, mode)(x), D(x, mode)
    torch.testing.assert_close(part, whole, rtol=0, atol=1e-12)
    a, b = (torch.autograd.grad(logits.square().sum(), x)[0][..., top:bottom, left:right] for logits in (part, whole))
    torch.testing.assert_close(a, b, rtol=0, atol=1e-9)


# --- encoder and classifier


def test_encoder_sees_the_mask_and_the_known_pixels_only():
    E, y = lively(Encoder(5, 4, size=16)), rand(3, 1, 16, 16)
    mask = (rand(1, 1, 16, 16, seed=1) > 0).double()
    z = E(y, mask)
    assert z.shape == (3, 5)
    assert torch.equal(E(torch.where(mask.bool(), y, rand(3, 1, 16, 16, seed=2)), mask), z)
    assert not torch.allclose(E(y * mask, torch.ones_like(mask)), z)  # the same pixels, another mask
    torch.testing.assert_close(E(y, mask.expand(3, -1, -1, -1)), z)


@pytest.mark.parametrize("size", [16, 64])
def test_classifier_is_linear_in_its_non_negative_features(size):
    C, x = lively(Classifier(4, size=size)), rand(5, 1, size, size)
    f = C.features(x)
    assert f.shape == (5, 16) and f.min() >= 0 and f.std() > 0
    torch.testing.assert_close(C(x), f @ C.head.weight.T + C.head.bias)
    assert C(x).shape == (5, 10)


def test_networks_return_float32_under_bfloat16_and_float64_otherwise():
    z, x, mask = torch.zeros(2, 5), torch.zeros(2, 1, 16, 16), torch.ones(1, 1, 16, 16)
    calls = {Generator(5, 4, size=16): (z,), Discriminator(4, size=16): (x,), Encoder(5, 4, size=16): (x, mask)}
    for net, args in calls.items():
        net.amp = torch.bfloat16
        assert net(*args).dtype == torch.float32
        net.amp = None
        assert net.double()(*(a.double() for a in args)).dtype == torch.float64
    C = Classifier(4, size=16)
    C.amp = torch.bfloat16
    assert C.features(x).dtype == torch.float32 and C(x).dtype == torch.float32


def test_number_of_layers_follows_the_size():
    assert [Generator(2, 1, size=s).layers for s in (8, 16, 32, 64, 128)] == [
        int(math.log2(s)) - 2 for s in (8, 16, 32, 64, 128)
    ]
