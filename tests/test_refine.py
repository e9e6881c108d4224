"""Refinement against a scalar reference written here: own forward formulas, own loss, one image at a time."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from cgi_helpers.method.masks import block_mask, center_mask, composite, half_mask
from cgi_helpers.method.models import Discriminator, Generator
from cgi_helpers.method.refine import Overlay, check_options, identity, refine, refine_all
from cgi_helpers.method.runtime import generator, last

from nets import lively

SIZE = 16
LAYERS = range(3)  # 0 = 4x4, 1 = 8x8, 2 = the image


def nets(size=SIZE):
    return lively(Generator(6, 4, size=size)), lively(Discriminator(4, size=size), 1)


def latents(n, seed=0):
    return torch.randn(n, 6, generator=generator("refine", seed), dtype=torch.float64)


def images(n, size=SIZE, seed=0):
    return torch.rand(n, 1, size, size, generator=generator("images", seed), dtype=torch.float64) * 2 - 1


def features(G, z, layer):
    with torch.no_grad():
        return G.to_features(z, layer)


# --- the reference


def scaled(h, norm, mean, var):
    mean, var, weight, bias = (v.view(1, -1, 1, 1) for v in (mean, var, norm.weight, norm.bias))
    return (h - mean) / torch.sqrt(var + norm.eps) * weight + bias


def reference_image(G, h, layer):
    """The rest of G: transposed convolutions, BatchNorm by running statistics, ReLU, tanh; pixels are clamped."""
    if layer == G.layers:
        return torch.minimum(torch.maximum(h, -torch.ones_like(h)), torch.ones_like(h))
    for block in G.blocks[layer:-1]:
        h = scaled(
            F.conv_transpose2d(h, block[0].weight, None, 2, 1), block[1], block[1].running_mean, block[1].running_var
        )
        h = h * (h > 0)
    h = F.conv_transpose2d(h, G.blocks[-1][0].weight, G.blocks[-1][0].bias, 2, 1)
    return (torch.exp(h) - torch.exp(-h)) / (torch.exp(h) + torch.exp(-h))


def reference_logits(D, x, mode):
    """D: convolutions, BatchNorm by running statistics or by those of the batch, leaky ReLU, one linear number."""
    for layer in D.features:
        if isinstance(layer, nn.Conv2d):
            x = F.conv2d(x, layer.weight, layer.bias, 2, 1)
        elif isinstance(layer, nn.BatchNorm2d):
            mean = x.mean((0, 2, 3)) if mode == "batch" else layer.running_mean
            var = x.var((0, 2, 3), correction=0) if mode == "batch" else layer.running_var
            x = scaled(x, layer, mean, var)
        else:
            x = torch.maximum(x, 0.2 * x)
    return (x.flatten(1) * D.head.weight).sum(1) + D.head.bias


def reference_path(G, D, h, layer, steps, step_size, momentum, mode, saturating, y, mask):
    """[(h, x, logits)] for steps 0 to `steps`:
    v <- momentum v - step_size * dL/dh, h <- h + v, L = sum of -log D or log(1 - D)."""
    path, velocity = [], torch.zeros_like(h)
    for step in range(steps + 1):
        point = h.clone().requires_grad_()
        x = reference_image(G, point, layer)
        if y is not None:
            x = y * mask + x * (1 - mask)
        logits = reference_logits(D, x, mode)
        probability = 1 / (1 + torch.exp(-logits))
        loss = torch.log(1 - probability) if saturating else -torch.log(probability)
        (gradient,) = torch.autograd.grad(loss.sum(), point)
        path.append((h, x.detach(), logits.detach()))
        velocity = momentum * velocity - step_size * gradient
        h = h + velocity
    return path


@pytest.mark.parametrize("mode", ["independent", "batch"])
@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize(
    "inpainting, saturating, momentum", [(False, False, 0.9), (True, False, 0.9), (True, True, 0.5)]
)
def test_equals_the_reference_at_every_step(mode, layer, inpainting, saturating, momentum):
    G, D = nets()
    h, y, mask = features(G, latents(4), layer), images(4), block_mask(SIZE, generator(5)).double()
    options = dict(layer=layer, steps=12, step_size=0.15, momentum=momentum, mode=mode, saturating=saturating)
    path = reference_path(G, D, h, **options, y=y if inpainting else None, mask=mask)
    compose = (lambda x: composite(y, x, mask)) if inpainting else identity
    best = [0] * 4
    for step, state in refine(G, D, h, compose=compose, **options):
        logits = path[step][2]
        torch.testing.assert_close(state["path"], logits, rtol=0, atol=1e-8)
        best = [step if logits[k] > path[best[k]][2][k] else best[k] for k in range(4)]
        assert state["steps"].tolist() == best
        for k in range(4):
            for key, part in (("features", 0), ("images", 1), ("logits", 2)):
                torch.testing.assert_close(state[key][k], path[best[k]][part][k], rtol=0, atol=1e-8)
    assert step == 12 and max(best) > 0


def test_the_gradient_is_the_one_of_finite_differences():
    """One step without momentum is h - step_size * dL/dh; dL/dh measured by moving single activations."""
    G, D = nets()
    h = features(G, latents(1), 1)
    (_, first), (_, second) = refine(G, D, h, layer=1, steps=1, step_size=1e-3)
    for index in [(0, 0, 0, 0), (0, 1, 3, 5), (0, 3, 7, 2)]:
        moved = []
        for delta in (-1e-5, 1e-5):
            probe = h.clone()
            probe[index] += delta
            moved.append(math.log1p(math.exp(-D(G.to_image(probe, 1), "independent").item())))
        slope = (moved[1] - moved[0]) / 2e-5
        assert abs(slope) > 1e-6
        assert (second["features"] - h)[index].item() == pytest.approx(-1e-3 * slope, rel=1e-4)
    assert second["logits"] > first["logits"]


def test_refinement_raises_the_score():
    G, D = nets()
    state = last(refine(G, D, features(G, latents(16), 1), layer=1, steps=30, step_size=0.1))
    first = D(G(latents(16)), "independent")
    assert (state["logits"] > first).all() and (state["logits"] - first).mean() > 0.3


# --- limits


@pytest.mark.parametrize("stop", ["best", "median", "probabilistic"])
@pytest.mark.parametrize("layer", LAYERS)
def test_no_step_is_the_identity(stop, layer):
    G, D = nets()
    h, y = features(G, latents(3), layer), images(3)
    ((step, state),) = refine(G, D, h, layer=layer, steps=0, stop=stop)
    assert step == 0 and torch.equal(state["features"], h)
    torch.testing.assert_close(state["images"], G(latents(3)), rtol=0, atol=1e-12)
    torch.testing.assert_close(state["logits"], D(G(latents(3)), "independent"), rtol=0, atol=1e-12)
    assert state["steps"].tolist() == [0, 0, 0]
    inpainted, _ = refine_all(
        G, D, latents(3), layer=layer, steps=0, compose=lambda x, rows: composite(y[rows], x, center_mask(SIZE))
    )
    torch.testing.assert_close(inpainted, composite(y, G(latents(3)), center_mask(SIZE)), rtol=0, atol=1e-12)


@pytest.mark.parametrize("mode", ["independent", "batch"])
@pytest.mark.parametrize("layer", LAYERS)
def test_known_pixels_never_change(mode, layer):
    G, D = nets()
    y, mask = images(4), torch.cat([block_mask(SIZE, generator(i)) for i in range(4)])
    known = mask.bool()
    for _, state in refine(
        G,
        D,
        features(G, latents(4), layer),
        layer=layer,
        steps=6,
        step_size=0.3,
        mode=mode,
        compose=lambda x: composite(y, x, mask),
    ):
        assert torch.equal(state["images"][known], y[known])
    assert (state["images"] - composite(y, G(latents(4)), mask))[~known].abs().max() > 0.01


def test_gradient_from_known_pixels_does_not_reach_the_activations():
    """In pixel space only the hole may move: D's gradient elsewhere ends in the composition."""
    G, D = nets()
    y, mask = images(2), center_mask(SIZE)
    state = last(
        refine(G, D, G(latents(2)), layer=G.layers, steps=4, compose=lambda x: composite(y, x, mask), step_size=0.2)
    )
    known = mask.bool().expand(2, -1, -1, -1)
    moved = state["features"] - G(latents(2))
    assert moved[known].eq(0).all() and moved[~known].ne(0).any()


class Peaked(nn.Module):
    """A judge that likes grey pixels: momentum carries an image past the top, so that the best step lies on the way."""

    channels, size = 1, SIZE

    def forward(self, x, mode):
        return -(x**2).flatten(1).mean(1)


@pytest.mark.parametrize("D, step_size", [(Peaked(), 40), (nets()[1], 40)], ids=["peaked", "network"])
def test_the_returned_image_scored_again_has_the_best_score_of_the_path(D, step_size):
    G, y = nets()[0], images(8)

    def compose(x):
        return composite(y, x, center_mask(SIZE))

    states = [
        s for _, s in refine(G, D, features(G, latents(8), 1), layer=1, steps=25, step_size=step_size, compose=compose)
    ]
    path = torch.stack([s["path"] for s in states])
    state, best = states[-1], path.max(0)
    assert (best.indices < 25).sum() > 2 and len(best.indices.unique()) > 2  # the rule had something to choose
    assert torch.equal(state["steps"], best.indices) and torch.equal(state["logits"], best.values)
    torch.testing.assert_close(D(state["images"], "independent"), best.values, rtol=0, atol=1e-12)
    torch.testing.assert_close(compose(G.to_image(state["features"], 1)), state["images"], rtol=0, atol=1e-12)


# --- stopping rules


def test_median_freezes_an_image_once_its_logit_exceeds_the_threshold():
    G, D = nets()
    h = features(G, latents(40), 1)
    options = dict(layer=1, steps=6, step_size=0.15)
    path = reference_path(G, D, h, **options, momentum=0.9, mode="independent", saturating=False, y=None, mask=None)
    threshold = path[0][2].quantile(0.9).item()
    expected = [next((t for t, p in enumerate(path) if p[2][k] > threshold), 6) for k in range(40)]
    assert expected.count(0) == 4 and sum(p < threshold for p in path[6][2]) > 2 and len(set(expected)) > 4
    for step, state in refine(G, D, h, **options, stop="median", threshold=threshold):
        assert state["steps"].tolist() == [min(e, step) for e in expected]
    for k, e in enumerate(expected):
        torch.testing.assert_close(state["features"][k], path[e][0][k], rtol=0, atol=1e-8)
        torch.testing.assert_close(state["images"][k], path[e][1][k], rtol=0, atol=1e-8)
        torch.testing.assert_close(state["logits"][k], path[e][2][k], rtol=0, atol=1e-8)


def test_probabilistic_freezes_each_image_by_its_own_draws():
    G, D = nets()
    h = features(G, latents(40), 1)
    options = dict(layer=1, steps=15, step_size=0.15)
    path = reference_path(G, D, h, **options, momentum=0.9, mode="independent", saturating=False, y=None, mask=None)
    expected, key = [15] * 40, ("here", 3)
    for step in reversed(range(15)):
        draw = torch.rand(40, generator=generator(*key, "stop", step)).tolist()
        expected = [step if draw[k] < 0.1 else expected[k] for k in range(40)]
    assert 3 < sum(e == 15 for e in expected) < 20
    state = last(refine(G, D, h, **options, stop="probabilistic", stop_probability=0.1, key=key))
    assert state["steps"].tolist() == expected
    for k, e in enumerate(expected):
        torch.testing.assert_close(state["images"][k], path[e][1][k], rtol=0, atol=1e-8)
    other = last(refine(G, D, h, **options, stop="probabilistic", stop_probability=0.1, key=("there", 3)))
    assert other["steps"].tolist() != expected
    for probability, step in ((0.0, 15), (1.0, 0)):
        state = last(refine(G, D, h, **options, stop="probabilistic", stop_probability=probability))
        assert state["steps"].eq(step).all()


# --- independence and coupling


@pytest.mark.parametrize("dtype, steps, tolerance", [(torch.float64, 20, 1e-9), (torch.float32, 1, 1e-5)])
@pytest.mark.parametrize("layer", LAYERS)
def test_an_image_alone_or_among_64_in_independent_mode(dtype, steps, tolerance, layer):
    G, D = (net.to(dtype) for net in nets())
    z, y, mask = latents(64).to(dtype), images(64).to(dtype), center_mask(SIZE)
    options = dict(layer=layer, steps=steps, step_size=0.1)
    together, logits = refine_all(G, D, z, compose=lambda x, rows: composite(y[rows], x, mask), **options)
    for i in (0, 31, 63):
        alone, logit = refine_all(
            G, D, z[i : i + 1], compose=lambda x, rows, i=i: composite(y[i : i + 1], x, mask), **options
        )
        torch.testing.assert_close(alone[0], together[i], rtol=0, atol=tolerance)
        torch.testing.assert_close(logit[0], logits[i], rtol=0, atol=100 * tolerance)


def test_images_are_coupled_in_batch_mode():
    G, D = nets()
    h = features(G, latents(8), 1)
    options = dict(layer=1, steps=5, step_size=0.1, mode="batch")
    together = last(refine(G, D, h, **options))
    assert (last(refine(G, D, h[:4], **options))["images"] - together["images"][:4]).abs().max() > 1e-3
    changed = h.clone()
    changed[7] = features(G, latents(1, seed=1), 1)
    assert (last(refine(G, D, changed, **options))["images"][0] - together["images"][0]).abs().max() > 1e-4
    assert not torch.allclose(
        together["images"], last(refine(G, D, h, **{**options, "mode": "independent"}))["images"], atol=1e-3
    )


def test_micro_batches_are_fixed_by_index():
    G, D = nets()
    z, y, mask = latents(11), images(11), center_mask(SIZE)
    options = dict(layer=1, steps=4, step_size=0.2, mode="batch")
    whole, logits = refine_all(G, D, z, batch_size=4, compose=lambda x, rows: composite(y[rows], x, mask), **options)
    assert whole.shape == y.shape and logits.shape == (11,)
    for rows in (slice(0, 4), slice(4, 8), slice(8, 11)):
        part = last(
            refine(G, D, features(G, z[rows], 1), compose=lambda x, rows=rows: composite(y[rows], x, mask), **options)
        )
        assert torch.equal(part["images"], whole[rows]) and torch.equal(part["logits"], logits[rows])
    eight, _ = refine_all(G, D, z[:8], batch_size=4, compose=lambda x, rows: composite(y[rows], x, mask), **options)
    assert torch.equal(eight, whole[:8])


def test_micro_batches_draw_their_own_probabilistic_stops():
    G, D = nets()
    z = latents(8)
    options = dict(layer=1, steps=6, step_size=0.2, stop="probabilistic", stop_probability=0.2)
    twins = torch.cat([z[:4], z[:4]])
    a, _ = refine_all(G, D, twins, batch_size=4, **options)
    assert not torch.equal(a[:4], a[4:]) and torch.equal(a, refine_all(G, D, twins, batch_size=4, **options)[0])
    assert not torch.equal(a, refine_all(G, D, twins, batch_size=4, key=(1,), **options)[0])


# --- the overlay that refine knows


@pytest.mark.parametrize("mode", ["independent", "batch"])
@pytest.mark.parametrize("size, masks", [(16, "center"), (64, "center"), (64, "each its own"), (32, "half")])
def test_an_overlay_gives_what_the_whole_networks_give(mode, size, masks):
    """The same path as with a function that hides where the hole is; every layer, also holes at the border."""
    G, D = nets(size)
    y = images(3, size)
    mask = {
        "center": lambda: center_mask(size),
        "half": lambda: half_mask(size),
        "each its own": lambda: torch.cat([block_mask(size, generator(i)) for i in range(3)]),
    }[masks]().double()
    for layer in range(G.layers + 1):
        h, options = features(G, latents(3), layer), dict(layer=layer, steps=6, step_size=0.2, mode=mode)
        for (_, a), (_, b) in zip(
            refine(G, D, h, compose=Overlay(y, mask), **options),
            refine(G, D, h, compose=lambda x: composite(y, x, mask), **options),
            strict=True,
        ):
            for key in ("images", "features", "logits", "path"):
                torch.testing.assert_close(a[key], b[key], rtol=0, atol=1e-8)
    assert (b["features"] - h).abs().max() > 1e-4


def test_an_overlay_computes_the_holes_part_only():
    """Far from the hole G's activations may hold anything: nothing of them is read, and nothing of them moves."""
    G, D = nets(64)
    y, mask = images(2, 64), center_mask(64)
    h = features(G, latents(2), 2)  # 16x16: the hole's pixels 16 to 47 depend on 3 to 12
    spoilt = h.clone()
    spoilt[..., :2, :] = spoilt[..., 14:, :] = 1e30
    options = dict(layer=2, steps=3, step_size=0.2, compose=Overlay(y, mask))
    a, b = (last(refine(G, D, start, **options)) for start in (h, spoilt))
    assert torch.equal(a["images"], b["images"]) and torch.equal(b["features"][..., :2, :], spoilt[..., :2, :])


def test_an_overlay_of_all_images_serves_micro_batches():
    G, D = nets()
    z, y, masks = latents(7), images(7), torch.cat([block_mask(SIZE, generator(i)) for i in range(7)]).double()
    options = dict(layer=1, steps=4, step_size=0.2, mode="batch", batch_size=3)
    a, _ = refine_all(G, D, z, compose=Overlay(y, masks), **options)
    b, _ = refine_all(G, D, z, compose=lambda x, rows: composite(y[rows], x, masks[rows]), **options)
    torch.testing.assert_close(a, b, rtol=0, atol=1e-8)


@pytest.mark.parametrize("norm", ["group", "instance", "none"])
def test_an_overlay_suits_every_normalisation(norm):
    G, D = nets(32)[0], lively(Discriminator(16, size=32, norm=norm), 1)
    y, mask, h = images(2, 32), center_mask(32), features(nets(32)[0], latents(2), 1)
    a, b = (
        last(refine(G, D, h, layer=1, steps=3, compose=c)) for c in (Overlay(y, mask), lambda x: composite(y, x, mask))
    )
    torch.testing.assert_close(a["images"], b["images"], rtol=0, atol=1e-8)
    torch.testing.assert_close(a["path"], b["path"], rtol=0, atol=1e-8)


@pytest.mark.parametrize(
    "y, mask, message",
    [
        (images(3), center_mask(SIZE), "3 images and 1 masks for 2 activations"),
        (images(2), center_mask(SIZE).expand(3, -1, -1, -1), "2 images and 3 masks for 2 activations"),
        (images(2, size=64), center_mask(64), r"shape \(N, 1, 16, 16\)"),
        (images(2), center_mask(64), "A mask must have shape"),
        (images(2) * 255, center_mask(SIZE), r"must lie in \[-1, 1\]"),
    ],
)
def test_an_overlay_that_does_not_fit_is_one_sentence(y, mask, message):
    G, D = nets()
    with pytest.raises(ValueError, match=message) as error:
        next(refine(G, D, features(G, latents(2), 1), layer=1, compose=Overlay(y, mask)))
    assert "\n" not in str(error.value)


# --- G and D are only looked at


@pytest.mark.parametrize("mode", ["independent", "batch"])
@pytest.mark.parametrize("training", [False, True])
def test_networks_are_untouched(mode, training):
    G, D = nets()
    h, options = features(G, latents(4), 1), dict(layer=1, steps=3, step_size=0.1, mode=mode)
    kept = h.clone()
    expected = last(refine(G, D, h, **options))["images"]
    G.train(training), D.train(training)
    next(G.parameters()).requires_grad_(False)

    def flags():
        return [[p.requires_grad for p in net.parameters()] + [m.training for m in net.modules()] for net in (G, D)]

    state, before = [{k: v.clone() for k, v in net.state_dict().items()} for net in (G, D)], flags()
    for _ in refine(G, D, h, **options):  # also between the steps
        assert flags() == before
    refine_all(G, D, latents(4), **options)
    assert flags() == before and torch.equal(h, kept) and not h.requires_grad
    for net, old in zip((G, D), state):
        assert all(torch.equal(v, old[k]) for k, v in net.state_dict().items())
        assert all(p.grad is None for p in net.parameters())
    assert torch.equal(last(refine(G, D, h, **options))["images"], expected)  # G in eval mode inside, whatever it was


def test_the_part_of_g_below_the_layer_never_runs():
    G, D = nets()
    h = features(G, latents(2), 1)
    calls = []
    for i, module in enumerate((G.project, *G.blocks)):
        module.register_forward_hook(lambda *_, i=i: calls.append(i))
    last(refine(G, D, h, layer=1, steps=3))
    assert calls == [2] * 4  # blocks[1] alone: the last one


def test_works_inside_no_grad():
    G, D = nets()
    h = features(G, latents(2), 1)
    with torch.no_grad():
        inside = last(refine(G, D, h, layer=1, steps=3))["images"]
    assert torch.equal(inside, last(refine(G, D, h, layer=1, steps=3))["images"])


# --- bad input: one sentence, before the first step


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(layer=3), "Layer must be an integer from 0 .4x4. to 2 .the image. but is 3"),
        (dict(layer=-1), "Layer must be"),
        (dict(layer=1.5), "Layer must be"),
        (dict(steps=-1), "refinement steps must be an integer >= 0 but is -1"),
        (dict(steps=2.5), "refinement steps must be an integer >= 0 but is 2.5"),
        (dict(steps="50"), "refinement steps must be an integer >= 0 but is '50'"),
        (dict(step_size=0), "step size must be positive but is 0"),
        (dict(step_size=-0.1), "step size must be positive"),
        (dict(step_size=math.nan), "step size must be positive"),
        (dict(stop="mean"), "Unknown stopping rule 'mean': use one of best, median, probabilistic"),
        (dict(mode="train"), "Unknown discriminator mode 'train'"),
    ],
)
def test_bad_options_are_one_sentence(change, message):
    G, D = nets()
    arguments = {**dict(layer=1, steps=2, step_size=0.1), **change}
    with pytest.raises(ValueError, match=message) as error:
        next(refine(G, D, features(G, latents(2), 1), **arguments))
    assert "\n" not in str(error.value)
    if not {"mode"} & set(change):
        with pytest.raises(ValueError, match=message):
            check_options(G, **arguments)


@pytest.mark.parametrize(
    "y, message",
    [
        (images(2) * 255, r"must lie in \[-1, 1\]"),
        (images(2, size=64), "Images and mask must be of one size"),
        (torch.where(images(2) > 0.9, torch.nan, images(2)), "NaN"),
    ],
    ids=["range", "size", "nan"],
)
def test_a_bad_context_is_one_sentence(y, message):
    G, D = nets()
    with pytest.raises(ValueError, match=message) as error:
        next(refine(G, D, features(G, latents(2), 1), layer=1, compose=lambda x: composite(y, x, center_mask(SIZE))))
    assert "\n" not in str(error.value)
