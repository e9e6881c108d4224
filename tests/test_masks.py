"""Masks, the weight map W, overlay and Poisson blending, against loops written here."""

import numpy as np
import pytest
import torch

from cgi_helpers.method import masks
from cgi_helpers.method.runtime import generator


def random_mask(n=1, size=12, seed=0, known=0.6):
    """(n, 1, size, size) of independent pixels."""
    return (torch.rand(n, 1, size, size, generator=generator(seed)) < known).float()


def images(n=2, channels=1, size=12, seed=0, scale=1.0):
    """(n, channels, size, size) uniform in [-scale, scale], float64."""
    return scale * (
        torch.rand(n, channels, size, size, generator=generator("image", seed), dtype=torch.float64) * 2 - 1
    )


# --- the masks


@pytest.mark.parametrize("size", [28, 64])
@pytest.mark.parametrize("name", list(masks.MASKS))
def test_every_named_mask_is_valid_and_a_function_of_its_generator(name, size):
    for seed in range(8):
        mask = masks.named_mask(name, size, generator(seed))
        assert masks.check_mask(mask, size) is mask and mask.dtype == torch.float32 and len(mask) == 1
        assert torch.equal(mask, masks.named_mask(name, size, generator(seed)))
    if name != "center":
        assert len({masks.named_mask(name, size, generator(s)).numpy().tobytes() for s in range(20)}) > 1


def test_center_mask_is_the_reports_32x32_square():
    expected = torch.ones(1, 1, 64, 64)
    for row in range(16, 48):
        for column in range(16, 48):
            expected[0, 0, row, column] = 0
    assert torch.equal(masks.center_mask(), expected)
    assert (masks.center_mask(28) == 0).sum() == 14**2
    assert (masks.center_mask(64, 0.5) == 0).sum() == 45**2


@pytest.mark.parametrize("fraction", [0, 1, 1e-9, 1.5, -0.1])
def test_center_mask_refuses_a_fraction_without_hole_or_context(fraction):
    with pytest.raises(ValueError, match="fraction must leave both"):
        masks.center_mask(64, fraction)


def test_block_mask_is_one_rectangle_of_the_promised_sides():
    for seed in range(30):
        rows, columns = torch.nonzero(masks.block_mask(64, generator(seed))[0, 0] == 0, as_tuple=True)
        height, width = int(rows.max() - rows.min()) + 1, int(columns.max() - columns.min()) + 1
        assert len(rows) == height * width and 16 <= height <= 32 and 16 <= width <= 32


def test_half_mask_takes_all_four_sides_and_the_right_one_by_default():
    half = {"left": torch.ones(8, 8), "right": torch.ones(8, 8), "top": torch.ones(8, 8), "bottom": torch.ones(8, 8)}
    half["left"][:, :4] = half["right"][:, 4:] = half["top"][:4] = half["bottom"][4:] = 0
    found = {
        next(k for k, m in half.items() if torch.equal(m, masks.half_mask(8, generator(s))[0, 0])) for s in range(40)
    }
    assert found == set(half) and torch.equal(masks.half_mask(8)[0, 0], half["right"])


def test_scattered_and_pattern_masks_miss_their_share():
    assert masks.scattered_mask(64, generator(0)).sum() == round(4096 * 0.2)
    assert masks.pattern_mask(64, generator(0)).mean() == pytest.approx(0.75, abs=0.001)


# --- bad input


def test_unknown_mask_lists_the_known_ones():
    with pytest.raises(ValueError, match="Unknown mask 'hexagon': use one of center, block, half, scattered, pattern"):
        masks.named_mask("hexagon")


@pytest.mark.parametrize(
    "array",
    [
        np.eye(8, dtype=bool),
        np.eye(8, dtype=np.uint8),
        np.eye(8),
        torch.eye(8).int(),
        np.eye(8).tolist(),
        torch.eye(8)[None, None],
        np.eye(8, dtype=np.uint8) * 255,
        np.eye(8) * 255,
    ],
    ids=["bool", "bytes", "doubles", "ints", "list", "4d", "black and white", "up to 255"],
)
def test_own_mask_takes_arrays_of_zeros_and_ones(array):
    mask = masks.own_mask(array, 8)
    assert mask.shape == (1, 1, 8, 8) and mask.dtype == torch.float32 and torch.equal(mask[0, 0], torch.eye(8))


@pytest.mark.parametrize(
    "array, message",
    [
        (np.eye(7), r"must have shape \(1 or N, 1, 8, 8\) but has \(1, 1, 7, 7\)"),
        (np.eye(8)[0], r"must have shape .* but has \(8,\)"),
        (np.zeros((3, 8, 8)), r"must have shape .* but has \(3, 8, 8\)"),
        (np.zeros((1, 3, 8, 8)), r"must have shape"),
        (np.ones((8, 8)), "all ones, so nothing is missing"),
        (np.zeros((8, 8)), "all zeros, so nothing is known"),
        (np.eye(8) / 2, r"only 0 .hole. and 1 .known. but 8 of its 64 pixels .* mask > 0\.5"),
        (np.eye(8) * 254, r"only 0 .hole. and 255 .known. but 8 of its 64 pixels .* mask > 127\.5"),
        (np.where(np.eye(8), np.nan, 1), "only 0 .hole. and 1 .known. but 8 of its 64 pixels"),
        (-np.eye(8), "8 of its 64 pixels"),
        (None, "but is a NoneType"),
    ],
)
def test_own_mask_refuses_in_one_sentence(array, message):
    with pytest.raises(ValueError, match=message) as error:
        masks.own_mask(array, 8)
    assert "\n" not in str(error.value)


def test_check_mask_looks_at_every_mask_of_a_batch():
    good = torch.eye(8)[None, None]
    assert len(masks.check_mask(torch.cat([good, good]), 8)) == 2
    with pytest.raises(ValueError, match="all ones"):
        masks.check_mask(torch.cat([good, torch.ones_like(good)]), 8)
    with pytest.raises(ValueError, match="all zeros"):
        masks.check_mask(torch.cat([good, torch.zeros_like(good)]), 8)
    with pytest.raises(ValueError, match="shape .* has str"):
        masks.check_mask("center", 8)


# --- W


def brute_force_weight(mask, window):
    """The weight of Yeh et al. by loops: the neighbourhood's part inside the image."""
    result, reach = torch.zeros_like(mask), window // 2
    n, _, height, width = mask.shape
    for k in range(n):
        for i in range(height):
            for j in range(width):
                if mask[k, 0, i, j] == 1:
                    near = [
                        mask[k, 0, a, b].item()
                        for a in range(max(0, i - reach), min(height, i + reach + 1))
                        for b in range(max(0, j - reach), min(width, j + reach + 1))
                    ]
                    result[k, 0, i, j] = near.count(0) / len(near)
    return result


@pytest.mark.parametrize("window", [3, 5, 7, 9])
def test_weight_map_equals_brute_force(window):
    mask = torch.cat([random_mask(2), masks.block_mask(12, generator(1)), masks.half_mask(12)])
    torch.testing.assert_close(masks.weight_map(mask, window), brute_force_weight(mask, window))


def test_weight_map_of_a_non_square_image():
    mask = random_mask(size=12)[..., :7]
    torch.testing.assert_close(masks.weight_map(mask, 5), brute_force_weight(mask, 5))


def test_window_7_counts_only_a_ring_of_three_pixels():
    weight = masks.weight_map(masks.center_mask())
    ring = torch.zeros(1, 1, 64, 64)
    ring[..., 13:51, 13:51] = 1
    ring[..., 16:48, 16:48] = 0
    assert torch.equal(weight > 0, ring == 1)
    assert weight[0, 0, 32, 15] == pytest.approx(21 / 49) and weight[0, 0, 13, 13] == pytest.approx(1 / 49)
    assert torch.equal(masks.weight_map(masks.center_mask()), masks.weight_map(masks.center_mask(), window=7))


@pytest.mark.parametrize("window", [0, 1, 2, 8, -3])
def test_weight_map_refuses_windows_without_a_centre_or_a_neighbour(window):
    with pytest.raises(ValueError, match="odd number of at least 3"):
        masks.weight_map(random_mask(), window)


# --- overlay


def test_composite_keeps_known_pixels_bit_for_bit_and_fills_the_hole():
    mask, y, x = random_mask(3), images(3, 2).float(), images(3, 2, seed=1).float()
    y[0, 0, 0] = torch.tensor([-0.0, 1e-40, 1 / 3] * 4)  # x * 1 + y * 0 would lose the sign and the last bits of these
    x[..., 1, 1] = float("nan")
    out = masks.composite(y, x, mask)
    for k in range(3):
        for c in range(2):
            for i in range(12):
                for j in range(12):
                    source = y if mask[k, 0, i, j] == 1 else x
                    assert out[k, c, i, j].view(torch.int32) == source[k, c, i, j].view(torch.int32)


def test_composite_sends_gradients_into_the_hole_only():
    mask, x = random_mask(), images().requires_grad_()
    (gradient,) = torch.autograd.grad(masks.composite(images(seed=1), x, mask).sum(), x)
    assert torch.equal(gradient, (1 - mask.double()).expand_as(x))


def test_composite_refuses_other_sizes():
    for y, x, mask in (
        (images(size=8), images(), random_mask()),
        (images(), images(), random_mask(size=8)),
        (images(), images(size=8), random_mask()),
    ):
        with pytest.raises(ValueError, match="Images and mask must be of one size but y is"):
            masks.composite(y, x, mask)


# --- Poisson blending


def neighbours(i, j, size):
    return [(a, b) for a, b in ((i - 1, j), (i + 1, j), (i, j - 1), (i, j + 1)) if 0 <= a < size and 0 <= b < size]


@pytest.mark.parametrize(
    "mask",
    [masks.center_mask(12), masks.half_mask(12), random_mask(), masks.pattern_mask(12, generator(3))],
    ids=["center", "half", "scattered", "pattern"],
)
def test_poisson_blend_solves_the_poisson_equation(mask):
    y, x = images(2, 3, scale=0.3), images(2, 3, seed=1, scale=0.3)
    out = masks.poisson_blend(y, x, mask)
    assert torch.equal(out[:, :, mask[0, 0] == 1], y[:, :, mask[0, 0] == 1])
    assert out.abs().max() < 1  # nothing was clamped, so the equation must hold everywhere
    for i, j in torch.nonzero(mask[0, 0] == 0).tolist():
        laplacian = sum(out[..., i, j] - out[..., a, b] for a, b in neighbours(i, j, 12))
        wanted = sum(x[..., i, j] - x[..., a, b] for a, b in neighbours(i, j, 12))
        torch.testing.assert_close(laplacian, wanted, rtol=0, atol=1e-12)


def test_poisson_blend_equals_composite_where_the_fill_is_right_up_to_a_constant():
    y, mask = images(scale=0.5), masks.center_mask(12)
    torch.testing.assert_close(masks.poisson_blend(y, y, mask), masks.composite(y, y, mask), rtol=0, atol=1e-12)
    torch.testing.assert_close(masks.poisson_blend(y, y + 0.3, mask), y, rtol=0, atol=1e-12)


def test_poisson_blend_stays_in_range_and_leaves_its_input():
    y, x, mask = images(seed=2), images(seed=3), random_mask()
    before = x.clone(), y.clone()
    assert masks.poisson_blend(y, x, mask).abs().max() == 1  # uniform noise overshoots: it is clamped
    assert torch.equal(x, before[0]) and torch.equal(y, before[1])


def test_poisson_blend_refuses_bad_masks():
    y = images()
    for mask, message in (
        (torch.ones(1, 1, 12, 12), "all ones"),
        (torch.zeros(1, 1, 12, 12), "all zeros"),
        (torch.full((1, 1, 12, 12), 0.5), "only 0"),
        (random_mask(2), "one mask for all images but got 2"),
    ):
        with pytest.raises(ValueError, match=message):
            masks.poisson_blend(y, y, mask)
