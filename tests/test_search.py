"""The latent search against a scalar reference, one image at a time."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from cgi_helpers.method import runtime
from cgi_helpers.method.losses import context_loss
from cgi_helpers.method.masks import block_mask, center_mask, half_mask, weight_map
from cgi_helpers.method.models import Discriminator, Generator
from cgi_helpers.method.runtime import generator, last
from cgi_helpers.method.search import best_starts, find_latent, whitening

from nets import lively

SIZE = 16


def problem(n=3, size=SIZE, seed=0):
    """(G, D, y, mask, z): y are samples of G, seen through a hole."""
    G, D = lively(Generator(6, 4, size=size)), lively(Discriminator(4, size=size), 1)
    rng = generator("search", seed)
    with torch.no_grad():
        y = G(torch.randn(n, 6, generator=rng, dtype=torch.float64))
    return G, D, y, center_mask(size), torch.randn(n, 6, generator=rng, dtype=torch.float64)


def weight_by_loops(mask, window):
    """Share of hole pixels near each known pixel (as in test_masks)."""
    m, n, reach = mask[0, 0].numpy(), mask.shape[-1], window // 2
    w = np.zeros((n, n))
    for i in range(n):
        for j in range(n):
            if m[i, j]:
                near = m[max(0, i - reach) : i + reach + 1, max(0, j - reach) : j + reach + 1]
                w[i, j] = (near == 0).sum() / near.size
    return torch.from_numpy(w)


def scalar_search(G, D, y, mask, z, iterations, optimiser, lr, lam, window, saturating, clip):
    """Yields (z, context, prior) of one image; the optimisers are written as in their papers, one number at a time."""
    w, z = weight_by_loops(mask, window), [float(v) for v in z]
    momentum, m, v = [0.0] * len(z), [0.0] * len(z), [0.0] * len(z)
    for t in range(iterations + 1):
        point = torch.tensor([z], dtype=torch.float64, requires_grad=True)
        x = G(point)[0]
        context = sum((w * (plane - known)).abs().sum() for plane, known in zip(x, y))
        probability = 1 / (1 + torch.exp(-D(x[None], "independent")[0])) if D else None
        prior = (
            torch.zeros(())
            if D is None
            else lam * (torch.log(1 - probability) if saturating else -torch.log(probability))
        )
        (gradient,) = torch.autograd.grad(context + prior, point)
        yield list(z), context.item(), prior.item()
        for i, g in enumerate(gradient[0].tolist()):
            if optimiser == "nesterov":  # Sutskever: look ahead along the new velocity
                previous, momentum[i] = momentum[i], 0.9 * momentum[i] - lr * 0.95 ** (t // 100) * g
                z[i] += -0.9 * previous + 1.9 * momentum[i]
            else:
                rate = lr * (0.1 + 0.9 * (1 + math.cos(math.pi * t / iterations)) / 2)
                m[i], v[i] = 0.9 * m[i] + 0.1 * g, 0.999 * v[i] + 0.001 * g * g
                z[i] -= rate * (m[i] / (1 - 0.9 ** (t + 1))) / (math.sqrt(v[i] / (1 - 0.999 ** (t + 1))) + 1e-8)
            if clip:
                z[i] = min(max(z[i], -clip), clip)


@pytest.mark.parametrize("optimiser, lr", [("nesterov", 0.01), ("adam", 0.1)])
@pytest.mark.parametrize(
    "lam, saturating, clip, window", [(0.5, False, None, 7), (0.5, True, 0.8, 5), (None, False, 1.0, 3)]
)
def test_equals_the_scalar_reference(optimiser, lr, lam, saturating, clip, window):
    G, D, y, mask, z = problem()
    if lam is None:
        D, lam = None, 1e-4
    z = z.clamp(-clip, clip) if clip else z
    options = dict(iterations=25, optimiser=optimiser, lr=lr, lam=lam, window=window, saturating=saturating, clip=clip)
    steps = list(find_latent(G, D, y, mask, z=z, **options))
    assert [s for s, _ in steps] == list(range(26))
    for k in range(len(z)):
        lowest, best = math.inf, None
        for (step, state), (point, context, prior) in zip(
            steps, scalar_search(G, D, y[k], mask, z[k], **options), strict=True
        ):
            if context + prior < lowest:
                lowest, best = context + prior, point
            assert state["context"][k].item() == pytest.approx(context, rel=1e-9)
            assert state["prior"][k].item() == pytest.approx(prior, rel=1e-9)
            assert state["loss"][k].item() == pytest.approx(context + prior, rel=1e-9)
            assert state["best"][k].item() == pytest.approx(lowest, rel=1e-9)
            assert state["z"][k].tolist() == pytest.approx(best, rel=1e-8, abs=1e-9)
            torch.testing.assert_close(
                state["fill"][k], G(torch.tensor([point], dtype=torch.float64))[0].detach(), rtol=0, atol=1e-8
            )


def test_nesterov_slows_down_every_100_iterations():
    G, _, y, mask, z = problem(1)
    options = dict(iterations=205, optimiser="nesterov", lr=0.003, lam=0, window=7, saturating=False, clip=None)
    state = last(find_latent(G, None, y, mask, z=z, **options))
    *_, (_, context, _) = scalar_search(G, None, y[0], mask, z[0], **options)
    assert state["loss"].item() == pytest.approx(context, rel=1e-6)


@pytest.mark.parametrize("optimiser, lr", [("nesterov", 0.003), ("adam", 0.1)])
def test_the_loss_goes_down(optimiser, lr):
    G, _, y, mask, z = problem(16)
    losses = torch.stack(
        [s["best"] for _, s in find_latent(G, None, y, mask, z=z, iterations=150, optimiser=optimiser, lr=lr)]
    )
    assert (losses.diff(dim=0) <= 0).all()
    assert (losses[-1] < losses[0]).all() and losses[-1].mean() < 0.5 * losses[0].mean()


def test_the_kept_z_has_the_lowest_loss_ever_seen():
    """With a step far too large the last iterate is not the best one."""
    G, D, y, mask, z = problem(8)
    states = [s for _, s in find_latent(G, D, y, mask, z=z, iterations=30, lr=0.5, lam=0.1)]
    lowest, at = torch.stack([s["loss"] for s in states]).min(0)
    assert torch.equal(states[-1]["best"], lowest) and len(at.unique()) > 2 and (at < 30).any()
    again = last(find_latent(G, D, y, mask, z=states[-1]["z"], iterations=0, lam=0.1))
    torch.testing.assert_close(again["loss"], lowest, rtol=1e-9, atol=0)


def test_no_iteration_returns_the_start_and_never_changes_it():
    G, D, y, mask, z = problem()
    before = z.clone()
    assert torch.equal(last(find_latent(G, D, y, mask, z=z, iterations=0))["z"], z)
    last(find_latent(G, D, y, mask, z=z, iterations=3))
    assert torch.equal(z, before) and not z.requires_grad


def test_known_pixels_far_from_the_hole_and_missing_ones_do_not_matter():
    G, _, y, mask, z = problem(size=32)
    other, far = y.clone(), torch.zeros(32, 32, dtype=torch.bool)
    far[:5] = far[-5:] = True  # the hole's rows are 8 to 23, W reaches rows 5 to 26
    other[..., far | (mask[0, 0] == 0)] = 0.123
    results = [last(find_latent(G, None, image, mask, z=z, iterations=5))["z"] for image in (y, other)]
    assert torch.equal(*results)
    other[..., 6, 16] = -0.9
    assert not torch.equal(results[0], last(find_latent(G, None, other, mask, z=z, iterations=5))["z"])


# --- independence


@pytest.mark.parametrize("dtype, iterations, tolerance", [(torch.float64, 20, 1e-9), (torch.float32, 1, 1e-5)])
@pytest.mark.parametrize("optimiser", ["nesterov", "adam"])
def test_an_image_alone_or_among_64(dtype, iterations, tolerance, optimiser):
    G, D, y, mask, z = problem(64)
    G, D, y, z = G.to(dtype), D.to(dtype), y.to(dtype), z.to(dtype)
    options = dict(iterations=iterations, optimiser=optimiser, lr=0.02, lam=0.3)
    together = last(find_latent(G, D, y, mask, z=z, **options))
    for i in (0, 17, 63):
        alone = last(find_latent(G, D, y[i : i + 1], mask, z=z[i : i + 1], **options))
        for key in ("z", "fill"):
            torch.testing.assert_close(alone[key][0], together[key][i], rtol=0, atol=tolerance)


def test_every_image_may_have_its_own_mask():
    G, _, y, _, z = problem(4)
    masks = torch.cat([block_mask(SIZE, generator(i)) for i in range(4)])
    together = last(find_latent(G, None, y, masks, z=z, iterations=5))
    for i in range(4):
        alone = last(find_latent(G, None, y[i : i + 1], masks[i : i + 1], z=z[i : i + 1], iterations=5))
        torch.testing.assert_close(alone["z"][0], together["z"][i], rtol=0, atol=1e-9)


# --- only what the loss sees is computed, and the answer is the same


@pytest.mark.parametrize("mask", [center_mask(64), half_mask(64), block_mask(64, generator(3))])
def test_without_d_the_search_equals_one_through_whole_networks(mask):
    """A D that weighs nothing (lam = 0) forces whole images; known pixels beyond W's reach do not enter either way."""
    G, D, y, _, z = problem(3, 64)
    for (_, part), (_, whole) in zip(
        find_latent(G, None, y, mask, z=z, iterations=8, lr=0.003),
        find_latent(G, D, y, mask, z=z, iterations=8, lr=0.003, lam=0),
        strict=True,
    ):
        for key in ("z", "loss", "best", "fill"):
            torch.testing.assert_close(part[key], whole[key], rtol=1e-9, atol=1e-9)


def test_d_at_the_reports_lambda_is_lost_in_rounding():
    """Why it may be left out: the whole prior is less than 1e-4 of the loss, where bfloat16 resolves 4e-3 of it."""
    G, D, y, mask, z = problem(16, 64)
    state = next(find_latent(G, D, y, mask, z=z))[1]
    assert (state["prior"] < 1e-4 * state["loss"]).all()
    a, b = (last(find_latent(G, net, y, mask, z=z, iterations=20, lr=0.003)) for net in (D, None))
    torch.testing.assert_close(a["best"], b["best"], rtol=2**-8, atol=0)


def test_float32_agrees_with_float64():
    G, _, y, mask, z = problem(8, 32)
    exact = last(find_latent(G, None, y, mask, z=z, iterations=5, lr=0.003))
    plain = last(find_latent(G.float(), None, y.float(), mask, z=z.float(), iterations=5, lr=0.003))
    torch.testing.assert_close(plain["fill"].double(), exact["fill"], rtol=0, atol=1e-4)


def test_bfloat16_stays_within_a_tenth_of_a_decibel(monkeypatch):
    """The bound for machines with bfloat16 units: mean PSNR of 32 completions, float32 against lowered weights."""
    from cgi_helpers.method.masks import composite
    from cgi_helpers.study.metrics import psnr

    results = {}
    for amp in (None, torch.bfloat16):
        monkeypatch.setattr(runtime, "fast_dtype", lambda device, amp=amp: amp)
        G, _, y, mask, z = problem(32, 32)
        G, noise = runtime.accelerate(G.float(), "cpu"), torch.randn(y.shape, generator=generator("noise"))
        y = (y.float() + 0.2 * noise).clamp(-1, 1)  # what no z can reach, as with real images
        assert G.amp is amp  # what the machine has decides, nothing else
        state = last(find_latent(G, None, y, mask, z=z.float(), iterations=60, optimiser="adam", lr=0.1))
        results[amp] = psnr(composite(y, state["fill"], mask), y).mean().item()
        assert state["z"].dtype == torch.float32 and G.amp is amp
    start = psnr(composite(y, G.float()(z.float()).detach(), mask), y).mean().item()
    assert results[None] - start > 1 and abs(results[None] - results[torch.bfloat16]) < 0.1


# --- several starts, screened starts, whitening, early stopping


def test_the_best_of_several_starts_is_kept():
    G, _, y, mask, _ = problem(4)
    starts = torch.randn(4, 3, 6, generator=generator("starts"), dtype=torch.float64)
    options = dict(iterations=12, optimiser="adam", lr=0.05)
    apart = [last(find_latent(G, None, y, mask, z=starts[:, k], **options)) for k in range(3)]
    together = last(find_latent(G, None, y, mask, z=starts, **options))
    best, which = torch.stack([a["best"] for a in apart]).min(0)
    assert len(which.unique()) > 1 and together["z"].shape == (4, 6) and together["fill"].shape == y.shape
    torch.testing.assert_close(together["best"], best, rtol=1e-9, atol=0)
    for k, w in enumerate(which):
        for key in ("z", "loss", "fill"):
            torch.testing.assert_close(together[key][k], apart[w][key][k], rtol=0, atol=1e-8)


def test_a_guess_is_fitted_inside_the_hole_too():
    G, _, y, mask, z = problem()
    with torch.no_grad():
        guess = G(z.flip(1))
    mask, weight = mask.double(), weight_map(mask.double())
    both = weight + 2.0 * weight.amax() * (1 - mask)
    state = next(find_latent(G, None, y, mask, z=z, guess=guess, guess_weight=2.0))[1]
    with torch.no_grad():
        here = (both * (G(z) - (mask * y + (1 - mask) * guess)).abs()).flatten(1).sum(1)
    torch.testing.assert_close(state["context"], here)
    alone, led = (
        last(find_latent(G, None, y, mask, z=z, iterations=60, optimiser="adam", lr=0.03, **options))["z"]
        for options in ({}, {"guess": guess, "guess_weight": 2.0})
    )

    def away(z):
        with torch.no_grad():
            return ((1 - mask) * (G(z) - guess)).abs().flatten(1).sum(1)

    assert away(led).sum() < 0.95 * away(alone).sum()
    whole, part = (last(find_latent(G, None, y[:n], mask, z=z[:n], guess=guess[:n], iterations=3))["z"] for n in (3, 1))
    torch.testing.assert_close(whole[:1], part, rtol=0, atol=1e-9)
    masks = torch.cat([block_mask(SIZE, generator(0)), mask, half_mask(SIZE)]).double()
    whole, part = (
        last(find_latent(G, None, y[:n], masks[:n], z=z[:n], guess=guess[:n], iterations=3))["z"] for n in (3, 1)
    )
    torch.testing.assert_close(whole[:1], part, rtol=0, atol=1e-9)


def test_screening_picks_the_candidate_of_the_lowest_loss():
    G, _, y, mask, _ = problem(5, 32)
    candidates = torch.randn(40, 6, generator=generator("candidates"), dtype=torch.float64)
    weight = weight_map(mask.double())
    with torch.no_grad():
        losses = torch.stack([context_loss(G(c.expand(5, -1)), y, weight) for c in candidates])
    picked = best_starts(G, y, mask, candidates, batch=16)
    assert torch.equal(picked, candidates[losses.argmin(0)]) and len(losses.argmin(0).unique()) > 1
    assert torch.equal(best_starts(G, y[:1], mask, candidates)[0], picked[0])
    with pytest.raises(ValueError, match="one mask for all images but got 5"):
        best_starts(G, y, mask.expand(5, -1, -1, -1), candidates)


def test_whitening_makes_gradients_white_and_the_search_shorter():
    G, _, y, mask, z = problem(32, 32)
    P = whitening(G, mask, samples=64, rounds=3)
    assert P.shape == (6, 6) and P.dtype == torch.float64 and torch.equal(P, whitening(G, mask, samples=64, rounds=3))
    torch.testing.assert_close(P, P.T, rtol=0, atol=1e-9)
    far, near = (torch.randn(400, 6, generator=generator("fresh", i), dtype=torch.float64) for i in range(2))
    weight, point = weight_map(mask.double()), near.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(context_loss(G(point), G(far).detach(), weight).sum(), point)
    spread = [torch.linalg.cond(g.T @ g).item() for g in (gradient, gradient @ P)]
    assert spread[1] < 4 and spread[1] < spread[0] / 2  # identical samples would give 1
    start = z + 0.3 * far[:32]
    with torch.no_grad():
        target = G(z)
    plain, white = (
        last(find_latent(G, None, target, mask, z=start, iterations=15, optimiser="adam", lr=0.02, whiten=w))[
            "best"
        ].mean()
        for w in (None, P)
    )
    assert white < plain


def test_stalled_images_leave_the_batch_and_keep_their_rows(monkeypatch):
    from cgi_helpers.method import search

    G, _, y, mask, z = problem(6)
    options = dict(iterations=60, optimiser="adam", lr=0.1, patience=4, least_gain=0.05)
    sizes, call = [], search.Problem.__call__
    monkeypatch.setattr(
        search.Problem, "__call__", lambda self, z, rows: sizes.append(len(rows)) or call(self, z, rows)
    )
    states = [s for _, s in find_latent(G, None, y, mask, z=z, **options)]
    running = torch.stack([s["running"] for s in states])
    stops = running.sum(0)
    assert (
        sizes == [6, *running.sum(1).tolist()][: len(states)]
        and len(stops.unique()) > 2
        and not running[-1].any()
        and len(states) < 61
    )
    assert all(s["fill"].shape == y.shape and len(s["z"]) == len(s["loss"]) == 6 for s in states)
    best = torch.stack([s["best"] for s in states])
    for k, stop in enumerate(stops.tolist()):
        assert best[stop, k] >= 0.95 * best[stop - 4, k] and (best[stop:, k] == best[stop, k]).all()
        alone = last(find_latent(G, None, y[k : k + 1], mask, z=z[k : k + 1], **options))
        for key in ("z", "best", "loss", "fill"):
            torch.testing.assert_close(alone[key][0], states[-1][key][k], rtol=0, atol=1e-8)
    whole = [s for _, s in find_latent(G, None, y, mask, z=z, **{**options, "patience": None})]
    assert len(whole) == 61 and all(s["running"].all() for s in whole)
    torch.testing.assert_close(whole[int(stops.min())]["best"], states[int(stops.min())]["best"], rtol=1e-9, atol=0)


def test_the_first_step_comes_before_the_second_is_computed_and_closing_leaves_nothing():
    G, D, y, mask, z = problem()
    G.train(), D.train()
    loop = find_latent(G, D, y, mask, z=z, iterations=10**9)
    step, state = next(loop)
    loop.close()
    assert step == 0 and state["fill"].shape == y.shape
    assert G.training and D.training and all(p.requires_grad for net in (G, D) for p in net.parameters())
    with pytest.raises(KeyError, match="colour"):
        state["colour"]


# --- G and D are only looked at


@pytest.mark.parametrize("training", [False, True])
def test_networks_are_untouched(training):
    G, D, y, mask, z = problem()
    expected = last(find_latent(G, D, y, mask, z=z, iterations=3, lam=0.3))["z"]
    G.train(training), D.train(training)
    next(D.parameters()).requires_grad_(False)
    nets = (G, D)
    state = [{k: v.clone() for k, v in net.state_dict().items()} for net in nets]
    flags = [[p.requires_grad for p in net.parameters()] + [m.training for m in net.modules()] for net in nets]
    for _ in find_latent(G, D, y, mask, z=z, iterations=3, lam=0.3):  # also between the steps
        assert flags == [
            [p.requires_grad for p in net.parameters()] + [m.training for m in net.modules()] for net in nets
        ]
    for net, before in zip(nets, state):
        assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
        assert all(p.grad is None for p in net.parameters())
    # G in eval mode inside
    assert torch.equal(last(find_latent(G, D, y, mask, z=z, iterations=3, lam=0.3))["z"], expected)


def test_works_inside_no_grad():
    G, D, y, mask, z = problem()
    with torch.no_grad():
        inside = last(find_latent(G, D, y, mask, z=z, iterations=3))["z"]
    assert torch.equal(inside, last(find_latent(G, D, y, mask, z=z, iterations=3))["z"])


# --- bad input: one sentence, before the first iteration


def bad(y):
    nan, far = y.clone(), y * 255
    nan[0, 0, 3, 3] = float("nan")
    one = torch.ones(1, 1, SIZE, SIZE)
    return [
        (dict(optimiser="sgd"), "Unknown optimiser 'sgd': use one of nesterov, adam"),
        (dict(iterations=-1), "iterations must be an integer >= 0 but is -1"),
        (dict(iterations=2.5), "iterations must be an integer >= 0 but is 2.5"),
        (dict(lr=0), "learning rate must be positive"),
        (dict(lr=math.nan), "learning rate must be positive"),
        (dict(window=4), "window must be an odd number"),
        (dict(y=nan), "NaN"),
        (dict(y=far), r"must lie in \[-1, 1\]"),
        (dict(y=y.mul(100).byte()), "floating point"),
        (dict(y=F.interpolate(y, size=(28, 28))), r"shape \(N, 1, 16, 16\) but got"),
        (dict(mask=center_mask(64)), "A mask must have shape"),
        (dict(mask=one[0, 0]), "A mask must have shape"),
        (dict(mask=one), "all ones"),
        (dict(mask=0 * one), "all zeros"),
        (dict(mask=one / 2), "only 0"),
        (dict(mask=center_mask(SIZE).expand(2, -1, -1, -1)), "2 masks for 3 images"),
        (dict(z=torch.zeros(2, 6, dtype=torch.float64)), "one start z per image.*2 starts"),
        (dict(whiten=torch.eye(6)), "Whitening belongs to optimiser 'adam' but the optimiser is 'nesterov'"),
        (dict(guess=y[:2]), r"guess must be images \(3, 1, 16, 16\) with a positive weight but is \(2, 1, 16, 16\)"),
        (dict(guess=y, guess_weight=0), "positive weight"),
        (dict(guess=nan), "NaN"),
        (dict(guess="unet"), "is str"),
        (dict(patience=0), "patience must be a positive number of iterations or None but is 0"),
        (dict(least_gain=1), "least gain must be a share from 0 to below 1 but is 1"),
        (dict(z=torch.zeros(3, 5, dtype=torch.float64)), r"shape \(3, 6\) or \(3, starts, 6\)"),
    ]


@pytest.mark.parametrize("case", range(25))
def test_bad_input_is_one_sentence(case):
    G, D, y, mask, z = problem()
    change, message = bad(y)[case]
    arguments = {**dict(y=y, mask=mask, z=z), **change}
    with pytest.raises(ValueError, match=message) as error:
        next(find_latent(G, D, arguments.pop("y"), arguments.pop("mask"), **arguments))
    assert "\n" not in str(error.value)
    assert len(bad(y)) == 25
