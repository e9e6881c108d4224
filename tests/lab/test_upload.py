"""Own pictures: what becomes of them, and a sentence for everything that is none. Every file is made here."""

import io
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from cgi_helpers.lab.upload import TAKEN, read_image


def file(picture, kind="PNG", **options):
    out = io.BytesIO()
    picture.save(out, kind, **options)
    return out.getvalue()


def grey(array):
    return Image.fromarray(np.asarray(array, np.uint8))


def chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def huge_png(width, height):
    """A PNG whose header promises so many pixels; there are none."""
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
        + chunk(b"IDAT", zlib.compress(b"\0"))
        + chunk(b"IEND", b"")
    )


def test_a_picture_of_the_right_size_keeps_its_pixels():
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64))
    x, note = read_image(file(grey(pixels)))
    assert note == "" and x.dtype == torch.float32
    torch.testing.assert_close(x, torch.tensor(pixels).float()[None, None] / 127.5 - 1)


def test_large_pictures_are_averaged_and_small_ones_enlarged():
    checker = np.indices((640, 640)).sum(0) % 2 * 255
    assert read_image(file(grey(checker)))[0].abs().max() < 0.01  # every pixel is the mean of 100
    assert (read_image(file(grey(np.full((5, 5), 255))))[0] == 1).all()


@pytest.mark.parametrize(
    "shape, rows, columns", [((30, 90), slice(21, 42), slice(0, 64)), ((5000, 1), slice(0, 64), slice(31, 32))]
)
def test_the_whole_picture_is_kept_on_black(shape, rows, columns):
    x, _ = read_image(file(grey(np.full(shape, 255))))
    white = x[0, 0] > 0.99
    assert white[rows, columns].float().mean() > 0.95 and (x[0, 0][~white] == -1).float().mean() > 0.95
    assert white.sum() <= (rows.stop - rows.start + 1) * (columns.stop - columns.start + 1)


def test_jpeg_and_colour_become_grey():
    x, _ = read_image(file(Image.new("RGB", (200, 200), (0, 255, 0)), "JPEG", quality=95))
    # luminance of green
    assert x.shape == (1, 1, 64, 64) and x.mean().item() == pytest.approx(150 / 127.5 - 1, abs=0.02)
    assert read_image(file(Image.new("RGB", (20, 20), (255, 0, 0))), channels=3)[0][0, :, 5, 5].tolist() == [1, -1, -1]
    assert read_image(file(Image.new("CMYK", (20, 20)), "JPEG"))[0].min() > 0.98


@pytest.mark.parametrize("kind, options", [("WEBP", {"lossless": True}), ("BMP", {})])
def test_webp_and_bmp_keep_their_pixels(kind, options):
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3))
    content = file(grey(pixels), kind, **options)
    assert torch.equal(
        read_image(content, channels=3)[0], torch.tensor(pixels).permute(2, 0, 1)[None].float() / 127.5 - 1
    )
    assert read_image(content)[0].shape == (1, 1, 64, 64)
    see_through = file(Image.new("RGBA", (9, 9), (255, 255, 255, 0)), kind, **options)
    assert kind == "BMP" or read_image(see_through)[1] == "Its transparent parts became black."


def test_modes_of_png():
    white = [
        file(Image.fromarray(np.full((9, 9), 65535, np.uint16))),
        file(Image.new("1", (9, 9), 1)),
        file(Image.new("P", (9, 9), 0), transparency=None),
    ]
    assert (read_image(white[0])[0] == 1).all() and (read_image(white[1])[0] == 1).all()
    half = read_image(file(Image.fromarray(np.full((9, 9), 32896, np.uint16))))[0]
    assert half.abs().max() < 0.01
    palette = Image.new("P", (8, 8), 7)
    palette.putpalette([v for i in range(256) for v in (20 * i % 256,) * 3])
    assert read_image(file(palette))[0].mean().item() == pytest.approx(140 / 127.5 - 1, abs=0.01)


def test_the_camera_is_turned_upright():
    pixels = np.zeros((64, 64))
    pixels[:32] = 255  # the upper half is white
    exif = Image.Exif()
    exif[274] = 6  # to be turned by 90 degrees clockwise
    x, _ = read_image(file(grey(pixels), "JPEG", exif=exif, quality=95))
    assert x[0, 0, :, 40:].mean() > 0.9 and x[0, 0, :, :24].mean() < -0.9


def test_transparent_parts_become_black_and_that_is_said():
    picture = Image.new("RGBA", (64, 64), (255, 255, 255, 0))
    picture.paste((255, 255, 255, 255), (0, 0, 32, 64))
    x, note = read_image(file(picture))
    assert note == "Its transparent parts became black." and (x[..., :32] == 1).all() and (x[..., 32:] == -1).all()
    assert read_image(file(Image.new("RGBA", (9, 9), (9, 9, 9, 255))))[1] == ""


def test_the_first_frame_of_an_animation_and_that_is_said():
    for kind in ("PNG", "WEBP"):
        content = file(grey(np.full((64, 64), 255)), kind, save_all=True, append_images=[grey(np.zeros((64, 64)))])
        x, note = read_image(content)
        assert note == "It was animated: only its first frame is used." and (x > 0.98).all()


def test_a_large_picture_of_16_bits_becomes_small_before_anything_else():
    content = file(Image.fromarray(np.full((7_000, 7_000), 32896, np.uint16)), compress_level=1)
    tracemalloc.start()
    try:
        x, _ = read_image(content)
        # bytes of arrays; 49 million floats are 392 MB
        assert tracemalloc.get_traced_memory()[1] < 20e6 and x.abs().max() < 0.01
    finally:
        tracemalloc.stop()


def test_large_transparent_and_palette_pictures_are_averaged():
    half = np.zeros((640, 640, 4), np.uint8)
    half[::2] = 255  # white and opaque, every second row
    x, note = read_image(file(Image.fromarray(half)))
    assert x.abs().max() < 0.02 and note == "Its transparent parts became black."
    palette = Image.fromarray(np.indices((640, 640)).sum(0).astype(np.uint8) % 2, "P")
    palette.putpalette([0, 0, 0, 255, 255, 255])
    assert read_image(file(palette))[0].abs().max() < 0.02
    assert read_image(file(Image.fromarray(np.indices((640, 640)).sum(0) % 2 == 1)))[0].abs().max() < 0.02


NOISE = file(grey(np.random.default_rng(1).integers(0, 256, (99, 99))))


@pytest.mark.parametrize(
    "content, sentence",
    [
        (b"", "is empty"),
        (b"hello, I am text", "not a picture that can be read"),
        (NOISE[:3000], "damaged or incomplete"),
        (NOISE[:20], "damaged or incomplete|not a picture"),
        (file(grey(np.zeros((9, 9))), "GIF"), f"not a picture that can be read: choose {TAKEN}"),
        (file(grey(np.zeros((9, 9))), "TIFF"), f"not a picture that can be read: choose {TAKEN}"),
        (file(grey(np.zeros((7_100, 7_100))), "BMP"), "50 megapixels, more than 50"),
        (
            file(grey(np.random.default_rng(1).integers(0, 256, (99, 99))), "WEBP")[:900],
            "damaged or incomplete|not a picture",
        ),
        (file(grey(np.zeros((99, 99))), "BMP")[:900], "damaged or incomplete"),
        (file(grey(np.random.default_rng(1).integers(0, 256, (99, 99))), "JPEG")[:900], "damaged or incomplete"),
        (NOISE[:33] + chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(2**21))) + NOISE[33:], "damaged or incomplete"),
        (huge_png(10_000, 5_001), "50 megapixels, more than 50"),
        (huge_png(60_000, 60_000), "more than 50"),
    ],
)
def test_everything_else_is_refused_in_one_sentence(content, sentence):
    with pytest.raises(ValueError, match=sentence) as error:
        read_image(content, "my.png")
    assert str(error.value).startswith("my.png") and str(error.value).endswith(".") and "\n" not in str(error.value)


def test_a_huge_picture_is_refused_before_it_is_decoded():
    content = [
        file(grey(np.zeros((7_100, 7_100))), kind, **options)  # 50.4 megapixels in 50 kB and 34 bytes
        for kind, options in (("PNG", {}), ("WEBP", dict(lossless=True, quality=0, method=0)))
    ]
    tracemalloc.start()
    try:
        for one in content:
            with pytest.raises(ValueError, match="50 megapixels, more than 50"):
                read_image(one)
        assert tracemalloc.get_traced_memory()[1] < 5e6  # bytes
    finally:
        tracemalloc.stop()
