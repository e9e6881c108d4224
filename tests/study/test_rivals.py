"""Rivals: limits and known answers on images that the tests make, 16x16 or smaller where the method allows."""

import contextlib

import pytest
import torch

from cgi_helpers.data import Split
from cgi_helpers.method.masks import center_mask, composite, scattered_mask
from cgi_helpers.method.runtime import generator
from cgi_helpers.study import rivals
from cgi_helpers.study.metrics import psnr
from cgi_helpers.study.rivals import Completion, fit, poisson

with contextlib.suppress(ImportError):
    import cv2  # noqa: F401  sets environment variables when first imported, so before any test looks at them

SIZE = 16
MASK = center_mask(SIZE)


class Tensors(Split):
    """A split whose images are floats already."""

    def batch(self, index, device="cpu"):
        return self.images[index].to(device)


def split(x):
    return Tensors(x, torch.zeros(len(x), dtype=torch.long), x.shape[-1])


def images(n, channels=1, size=SIZE, seed=0):
    """Smooth random images in [-1, 1]."""
    coarse = torch.randn(n, channels, 4, 4, generator=generator(seed))
    return torch.nn.functional.interpolate(coarse, size=(size, size), mode="bilinear").tanh()


def linear_images(n, rank=5, seed=0):
    """Images in a `rank`-dimensional linear space, the same for every seed."""
    basis = torch.randn(rank, SIZE * SIZE, generator=generator("basis"))
    codes = torch.rand(n, rank, generator=generator(seed)) - 0.5
    return (codes @ basis / 6).clamp(-1, 1).view(n, 1, SIZE, SIZE)


def hole_error(x, y):
    return float((x - y).abs().max())


# ---- known answers


def test_mean_fills_with_the_mean():
    train = images(7)
    x = fit("mean", split(train), MASK)(images(3, seed=1), MASK)
    hole = (MASK == 0).expand_as(x)
    torch.testing.assert_close(x[hole], train.mean(0, keepdim=True).expand_as(x)[hole])


def test_ridge_is_exact_where_the_hole_is_linear_in_the_known_pixels():
    y = linear_images(20, seed=1)
    x = fit("ridge", split(linear_images(200)), MASK, penalties=(1e-6,))(y, MASK)
    assert hole_error(x, y) < 1e-3 < hole_error(fit("mean", split(linear_images(200)), MASK)(y, MASK), y)


def test_a_large_penalty_gives_the_mean():
    train, y = split(images(30)), images(3, seed=1)
    ridge, mean = fit("ridge", train, MASK, penalties=(1e12,)), fit("mean", train, MASK)
    torch.testing.assert_close(ridge(y, MASK), mean(y, MASK), atol=1e-5, rtol=0)


def test_the_penalty_is_the_one_with_the_best_validation_psnr():
    train, y = split(linear_images(200)), linear_images(20, seed=2)
    found = fit("ridge", train, MASK, y, penalties=(1e6, 1e-6, 10.0))
    assert found.facts["penalty"] == 1e-6 and set(found.facts["tried"]) == {1e6, 1e-6, 10.0}
    assert found.facts["tried"][1e-6] == pytest.approx(float(psnr(found(y, MASK), y).mean()))


def test_ridge_refuses_another_hole():
    ridge = fit("ridge", split(images(30)), MASK, penalties=(1.0,))
    with pytest.raises(ValueError, match="another hole"):
        ridge(images(2), center_mask(SIZE, 0.5))


@pytest.mark.parametrize("name", ["nearest_neighbour", "nearest_ring"])
@pytest.mark.parametrize("channels", [1, 3])
def test_nearest_neighbour_finds_the_same_image(name, channels):
    train = images(1100, channels)  # more than one batch of training images
    y = train[[3, 1050, 500]]
    assert torch.equal(fit(name, split(train), MASK)(y, MASK), y)


def test_nearest_neighbour_by_brute_force():
    train, y = images(40), images(6, seed=1)
    distance = ((y[:, None] - train[None]).square() * MASK).flatten(2).sum(2)
    assert torch.equal(rivals.nearest(split(train), y, MASK, 3), distance.topk(3, largest=False).indices)


def test_a_training_image_need_not_be_its_own_neighbour():
    train = images(40)
    other = fit("nearest_neighbour", split(train), MASK, itself=False)
    second = rivals.nearest(split(train), train[:6], MASK, 2)[:, 1]
    assert torch.equal(other(train[:6], MASK), composite(train[:6], train[second], MASK))
    y = images(6, seed=1)  # of others nothing changes
    assert torch.equal(other(y, MASK), fit("nearest_neighbour", split(train), MASK)(y, MASK))


def test_the_ring_looks_at_nothing_beyond_it():
    train, y = images(20), images(2, seed=1)
    far = y.clone()
    far[..., 0, :] = 1  # the first row is 4 pixels from the hole, W reaches 3
    near = rivals.fit("nearest_ring", split(train), MASK)
    hole = (MASK == 0).expand_as(y)
    assert torch.equal(near(y, MASK)[hole], near(far, MASK)[hole])


@pytest.mark.parametrize("name", ["telea", "navier_stokes", "biharmonic"])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_constant_image_is_continued(name, channels):
    if name == "biharmonic":
        pytest.importorskip("skimage")
    else:
        pytest.importorskip("cv2")
    settings = {} if name == "biharmonic" else {"radii": (3,)}
    y = torch.linspace(-0.9, 0.9, 3).view(3, 1, 1, 1).expand(3, channels, SIZE, SIZE).contiguous()
    x = fit(name, split(y), MASK, **settings)(y, MASK)
    # Telea's answer lies 1.4 grey levels off
    torch.testing.assert_close(x, y, atol=1e-5 if name == "biharmonic" else 0.02, rtol=0)


def test_biharmonic_continues_a_plane():
    pytest.importorskip("skimage")
    ramp = torch.linspace(-0.5, 0.5, SIZE)
    y = torch.stack([ramp.expand(SIZE, SIZE), ramp[:, None] * 0.5 + ramp[None]])[:, None].clamp(-1, 1)
    masks = torch.cat([MASK, center_mask(SIZE, 0.1)])
    torch.testing.assert_close(fit("biharmonic", split(y), MASK)(y, masks), y, atol=1e-4, rtol=0)


def test_low_rank_recovers_a_matrix_of_rank_one_from_scattered_pixels():
    a, b = torch.rand(4, 1, 32, 1, generator=generator(0)), torch.rand(4, 1, 1, 32, generator=generator(1))
    y = (a * 0.8 + 0.2) * (b * 0.8 + 0.2) * 2 - 1
    mask = scattered_mask(32, generator(2), missing=0.4)
    x = fit("low_rank", split(y), mask, ranks=(1,), outer=3, inner=100)(y, mask)
    assert hole_error(x, y) < 0.01 < hole_error(fit("mean", split(y), mask)(y, mask), y)


def test_patchmatch_continues_a_texture():
    pytest.importorskip("patchmatch")
    stripes = torch.tensor([-0.8, -0.8, 0.8, 0.8]).repeat(16).expand(1, 1, 64, 64).contiguous()
    mask = center_mask(64, 0.05)
    x = fit("patchmatch", split(stripes), mask, patches=(3,))(stripes, mask)
    assert (x - stripes).abs().mean() < 0.01


def test_patchmatch_takes_patches_from_training_images():
    pytest.importorskip("patchmatch")
    train = images(4, 3, 64)
    y = train[1:2]
    mask = center_mask(64)
    alone = fit("patchmatch", split(train), mask, patches=(2,))(y, mask)
    with_training = fit("patchmatch_training", split(train), mask, patches=(2,), neighbours=1)(y, mask)
    assert psnr(with_training, y) > psnr(alone, y) + 6


def test_poisson_of_the_right_gradients_is_exact():
    y = 0.5 * images(3)
    darker = Completion("darker", lambda y_, mask: y[: len(y_)] - 0.2, whole=True)
    assert hole_error(darker(y, MASK), y) == pytest.approx(0.2)
    torch.testing.assert_close(poisson(darker)(y, MASK), y, atol=1e-5, rtol=0)
    assert poisson(darker).name == "darker_poisson"


def test_poisson_refuses_composites():
    with pytest.raises(ValueError, match="'my method' returns composites"):
        poisson(bad(batch_mean))


def test_poisson_takes_a_hole_per_image():
    train, y = split(images(20)), images(4, seed=1)
    masks = torch.cat([MASK, center_mask(SIZE, 0.1), MASK, center_mask(SIZE, 0.5)])
    method = poisson(fit("mean", train, MASK))
    together, alone = method(y, masks), torch.cat([method(y[i : i + 1], masks[i : i + 1]) for i in range(4)])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ["unet", "fourier_conv", "context_encoder"])
def test_feed_forward_rivals_repeat_with_their_seed(name):
    train, y = split(images(64)), images(3, seed=1)
    first, again, other = (fit(name, train, MASK, iterations=3, width=4, seed=s)(y, MASK) for s in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other)


# ---- one interface


SETTINGS = {
    "ridge": {"penalties": (1.0,)},
    "telea": {"radii": (3,)},
    "navier_stokes": {"radii": (3,)},
    "low_rank": {"ranks": (1,), "inner": 5},
    "patchmatch": {"patches": (1,)},
    "patchmatch_training": {"patches": (1,)},
    "unet": {"iterations": 2, "width": 4},
    "fourier_conv": {"iterations": 2, "width": 4},
    "context_encoder": {"iterations": 2, "width": 4},
}
NEEDS = {
    "telea": "cv2",
    "navier_stokes": "cv2",
    "biharmonic": "skimage",
    "patchmatch": "patchmatch",
    "patchmatch_training": "patchmatch",
}


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", rivals.RIVALS)
def test_every_rival_keeps_known_pixels_and_takes_a_hole_per_image(name, channels):
    if name in NEEDS:
        pytest.importorskip(NEEDS[name])
    size = 64 if "patchmatch" in name else SIZE
    train, y, mask = split(images(64, channels, size)), images(3, channels, size, seed=1), center_mask(size)
    method = fit(name, train, mask, **SETTINGS.get(name, {}))
    x = method(y, mask)  # the Completion checks shape, dtype, range, known pixels, repeatability, independence
    assert not torch.equal(x, y)
    if name != "ridge":
        masks = torch.cat([mask, center_mask(size, 0.1), mask])
        torch.testing.assert_close(method(y, masks)[::2], x[::2], atol=rivals.BATCH_TOLERANCE, rtol=0)


def bad(function, coupled=False):
    return Completion("my method", function, coupled=coupled)


def random_hole(y, mask):
    return composite(y, torch.rand_like(y), mask)


def batch_mean(y, mask):
    return composite(y, y.mean(0, keepdim=True).expand_as(y), mask)


@pytest.mark.parametrize(
    "function, what",
    [
        (lambda y, mask: y * 0.5, "changes known pixels"),
        (lambda y, mask: y[:1], "returns"),
        (lambda y, mask: y.double(), "returns"),
        (lambda y, mask: y.numpy(), "returns ndarray"),
        (lambda y, mask: composite(y, torch.full_like(y, torch.nan), mask), "not finite"),
        (lambda y, mask: composite(y, torch.full_like(y, 2), mask), "outside"),
        (random_hole, "another answer when called twice"),
        (batch_mean, "depend on its batch"),
    ],
)
def test_a_bad_method_is_refused_by_name(function, what):
    with pytest.raises(ValueError, match=f"'my method'.*{what}"):
        bad(function)(images(4), MASK)


def test_a_declared_coupling_is_accepted():
    assert bad(batch_mean, coupled=True)(images(4), MASK).shape == (4, 1, SIZE, SIZE)


def test_a_later_call_is_still_checked_for_known_pixels():
    method = bad(lambda y, mask: y if len(y) < 5 else -y)
    method(images(4), MASK)
    with pytest.raises(ValueError, match="changes known pixels"):
        method(images(5), MASK)


@pytest.mark.parametrize(
    "call, what",
    [
        (lambda: fit("lama", split(images(4)), MASK), "Unknown rival 'lama'.*mean, ridge"),
        (lambda: fit("mean", split(images(4)), MASK, rank=3), "Rival 'mean' has no such setting"),
        (lambda: fit("mean", split(images(4)), torch.ones(1, 1, SIZE, SIZE)), "nothing is missing"),
        (lambda: fit("ridge", split(images(4)), MASK), "Choosing penalty among .* needs validation images"),
        (lambda: fit("nearest_neighbour", split(images(4)), MASK, pixels="all"), "not 'all'"),
    ],
)
def test_bad_input_is_one_sentence(call, what):
    with pytest.raises(ValueError, match=what):
        call()
