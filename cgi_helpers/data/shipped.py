"""Data sets that come with the repository:
PNG or lossless WebP files of many images, one below the other, `.npy` labels, SHA256SUMS."""

import hashlib
import io
from functools import lru_cache

import numpy as np
import torch
from PIL import Image

from .places import DATA, lost


def read(name: str, split: str, limit: int | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """(images (N, H, W) or (N, C, H, W) uint8, labels (N,) int64) of a shipped set; only the files that `limit` needs.

    Raises FileNotFoundError for a missing file and ValueError for a checksum that differs, each with what to do.
    """
    labels = np.load(io.BytesIO(_verified(name, f"{split}-labels.npy")), allow_pickle=False)
    n = len(labels) if limit is None else min(limit, len(labels))
    ending = ".webp" if (DATA / name / f"{split}-00.webp").exists() else ".png"
    pieces, found, number = [], 0, 0
    while found < n:
        pieces.append(_strip(name, f"{split}-{number:02d}{ending}"))
        found, number = found + len(pieces[-1]), number + 1
    images = torch.cat(pieces)[:n] if pieces else torch.zeros(0, 1, 1, dtype=torch.uint8)
    return images, torch.from_numpy(labels[:n].astype(np.int64))


@lru_cache(maxsize=4)
def _strip(name, file):
    """The square images of one file, as tensor;
    the last few files stay in memory (several sessions read the same first ones)."""
    pixels = np.array(Image.open(io.BytesIO(_verified(name, file)), formats=("PNG", "WEBP")))
    images = torch.from_numpy(pixels.reshape(-1, pixels.shape[1], *pixels.shape[1:]))
    return images.permute(0, 3, 1, 2).contiguous() if images.ndim == 4 else images


def _verified(name, file):
    folder = DATA / name
    if not (folder / file).is_file() or not (folder / "SHA256SUMS").is_file():
        raise FileNotFoundError(
            f"{folder / file} or the SHA256SUMS beside it is missing{lost()}: restore the folder with "
            f"git checkout -- data/{name}."
        )
    content = (folder / file).read_bytes()
    if f"{hashlib.sha256(content).hexdigest()}  {file}" not in (folder / "SHA256SUMS").read_text().splitlines():
        raise ValueError(
            f"{folder / file} is corrupt or half-downloaded (checksum differs): restore it with "
            f"git checkout -- data/{name}."
        )
    return content
