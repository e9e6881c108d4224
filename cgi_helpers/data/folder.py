"""A reader's own images: a folder of PNG, JPEG or WebP files, with or without a subfolder per class."""

import hashlib
import warnings
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps

from .convert import open_picture

ENDINGS = (".png", ".jpg", ".jpeg", ".webp")
LEAST = 64  # images: a batch
STORED = 128  # pixels per side that are kept


def read(path: str, split: str, limit: int | None = None) -> tuple[torch.Tensor, torch.Tensor | None]:
    """(images (N, 3, 128, 128) uint8, labels (N,) or None) of a split: by a hash of each file's content 8 : 1 : 1.

    The middle square of every picture. Files that cannot be read are named in a warning and skipped. Raises ValueError
    for a folder without images, with fewer than a batch, or with a class of fewer than two training images.
    """
    images, labels, splits, _ = scan(Path(path).expanduser().resolve())
    rows = (splits == split).nonzero()[0][:limit]
    return torch.from_numpy(images[rows]), None if labels is None else torch.from_numpy(labels[rows])


def classes(path: str) -> tuple | None:
    """Names of the class subfolders, or None."""
    return scan(Path(path).expanduser().resolve())[3]


def content(path: str) -> str:
    """A hash of what the folder holds: images, and the classes that they are sorted into."""
    images, labels, _, names = scan(Path(path).expanduser().resolve())
    return hashlib.sha256(images.tobytes() + repr((names, labels is not None and labels.tolist())).encode()).hexdigest()


@lru_cache(maxsize=2)
def scan(path: Path) -> tuple:
    """(images, labels or None, split of each image, class names or None), in the order of the contents' hashes."""
    if not path.is_dir():
        raise ValueError(f"{path} is no folder: name one with PNG, JPEG or WebP files.")
    files = sorted(f for f in path.rglob("*") if f.suffix.lower() in ENDINGS)
    names = tuple(sorted({f.relative_to(path).parts[0] for f in files if len(f.relative_to(path).parts) > 1}))
    labelled = names and all(len(f.relative_to(path).parts) > 1 for f in files)
    found, broken = {}, []
    for file in files:
        try:
            content = file.read_bytes()
            square = ImageOps.fit(open_picture(file).convert("RGB"), (STORED, STORED), Image.Resampling.BILINEAR)
            label = names.index(file.relative_to(path).parts[0]) if labelled else 0
            found[hashlib.sha256(content).hexdigest()] = np.array(square).transpose(2, 0, 1), label
        except (OSError, ValueError):
            broken.append(file.name)
    if broken:
        warnings.warn(
            f"{len(broken)} files of {path} could not be read and are skipped: {', '.join(broken[:5])}"
            f"{', ...' if len(broken) > 5 else ''}.",
            stacklevel=3,
        )
    if len(found) < LEAST:
        raise ValueError(f"{path} holds {len(found)} readable different images, but a batch needs {LEAST}: add more.")
    images, labels = (np.stack(values) for values in zip(*(found[key] for key in sorted(found))))
    tenths = np.array([int(key[:8], 16) % 10 for key in sorted(found)])
    splits = np.where(tenths == 8, "validation", np.where(tenths == 9, "test", "train"))
    if labelled:
        counts = np.bincount(labels[splits == "train"], minlength=len(names))
        if counts.min() < 2:
            name = names[counts.argmin()]
            total = int((labels == names.index(name)).sum())
            raise ValueError(
                f"Class {name!r} of {path} has {total} images, {counts.min()} of them for training, "
                "but at least 2 are needed: add more, or put all images into one folder."
            )
    return images, labels.astype(np.int64) if labelled else None, splits, names if labelled else None
