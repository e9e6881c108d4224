"""An own picture as the networks see it: a file of any size becomes a small square image in [-1, 1]."""

import io
import warnings

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError

from ..data.convert import FORMATS, MOST_PIXELS

TAKEN = "a PNG, JPEG, WebP or BMP picture"


def read_image(content, name="the file", size=64, channels=1):
    """(image (1, channels, size, size) in [-1, 1], note) from the bytes of a PNG, JPEG, WebP or BMP.

    The whole picture is kept: turned as its EXIF data say, shrunk by averaging until the longer side fits, transparent
    parts put on black, padded with black to a square (the data's background is black) and, for one channel, made grey
    (ITU-R 601 luminance). `note` is "" or one sentence about what was dropped. ValueError in one sentence for anything
    else than one such file of at most 50 megapixels; the size is judged before the pixels are decoded.
    """
    if not content:
        raise ValueError(f"{name} is empty: choose {TAKEN}.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            picture = Image.open(io.BytesIO(content), formats=FORMATS)
        pixels = picture.width * picture.height
        if pixels <= MOST_PIXELS:
            small, note = _shrink(picture, size)
    except Image.DecompressionBombError as error:
        raise ValueError(f"{name} has more than {MOST_PIXELS / 1e6:.0f} megapixels: make it smaller first.") from error
    except UnidentifiedImageError as error:
        raise ValueError(f"{name} is not a picture that can be read: choose {TAKEN}.") from error
    except Exception as error:  # Pillow raises a dozen kinds of errors for damaged files
        raise ValueError(f"{name} is damaged or incomplete: choose another file.") from error
    if pixels > MOST_PIXELS:
        raise ValueError(
            f"{name} has {pixels / 1e6:.0f} megapixels, more than {MOST_PIXELS / 1e6:.0f}: make it smaller first."
        )
    small = small.convert("L" if channels == 1 else "RGB")
    square = Image.new(small.mode, (size, size))
    square.paste(small, ((size - small.width) // 2, (size - small.height) // 2))
    array = np.asarray(square, dtype=np.float32).reshape(size, size, channels).transpose(2, 0, 1)
    return torch.from_numpy(array.copy())[None] / 127.5 - 1, note


def _shrink(picture, size):
    """(the picture upright, 8 bits, opaque, its longer side `size`; note).
    It becomes small first: all else is then quick."""
    notes = ["It was animated: only its first frame is used."] * (
        picture.format in ("PNG", "WEBP") and getattr(picture, "n_frames", 1) > 1
    )
    picture.draft("RGB", (4 * size, 4 * size))  # JPEG: decode at a fraction of the size
    picture = ImageOps.exif_transpose(picture)
    # no numbers to average yet
    if picture.mode in ("1", "P") or "transparency" in picture.info and not picture.mode.startswith("I"):
        picture = picture.convert("RGBA" if picture.has_transparency_data else "RGB")
    scale = size / max(picture.size)
    picture = picture.resize(
        [max(1, round(side * scale)) for side in picture.size],
        Image.Resampling.BOX if scale < 1 else Image.Resampling.BILINEAR,
    )
    if picture.mode.startswith("I"):  # 16 bits of grey
        picture = Image.fromarray((np.asarray(picture).astype(np.float64) / 257).clip(0, 255).round().astype(np.uint8))
    if picture.mode in ("LA", "RGBA"):
        picture = picture.convert("RGBA")
        if picture.getchannel("A").getextrema()[0] < 255:
            notes.append("Its transparent parts became black.")
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, (0, 0, 0, 255)), picture)
    return picture, " ".join(notes)
