"""The four idx files of MNIST and of the sets made in its image, plain or gzipped."""

import gzip
import struct
import zlib
from pathlib import Path

import numpy as np
import torch

VALIDATION = 12  # one of so many training images, the last ones: 5,000 of 60,000


def read(folder: Path, split: str, limit: int | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """(images (N, H, W) uint8, labels (N,) int64): train and validation from the `train-*` files, test from `t10k-*`.

    Of a file only the images up to `limit` are unpacked. Raises FileNotFoundError and ValueError with what to do.
    """
    prefix = "t10k" if split == "test" else "train"
    (count, *_), _ = _read(folder / f"{prefix}-images-idx3-ubyte", 3, 0)
    known = count - count // VALIDATION
    start, stop = {"train": (0, known), "validation": (known, count), "test": (0, count)}[split]
    stop = stop if limit is None else min(stop, start + limit)
    shape, images = _read(folder / f"{prefix}-images-idx3-ubyte", 3, stop)
    (labelled,), labels = _read(folder / f"{prefix}-labels-idx1-ubyte", 1, stop)
    if labelled != count:
        raise ValueError(f"{folder} holds {count} {prefix} images but {labelled} labels: fetch the four files again.")
    return (
        torch.from_numpy(images.reshape(-1, *shape[1:])[start:].copy()),
        torch.from_numpy(labels[start:].astype(np.int64)),
    )


def complete(folder: Path, prefixes: tuple = ("train", "t10k")) -> bool:
    """True if images and labels of every prefix lie in `folder`."""
    names = [f"{p}-{kind}-ubyte" for p in prefixes for kind in ("images-idx3", "labels-idx1")]
    return all((folder / n).exists() or (folder / f"{n}.gz").exists() for n in names)


def _read(path, dimensions, n):
    """(shape in the header, the first n items as bytes) of one file."""
    packed = not path.exists()
    path = path.with_name(f"{path.name}.gz") if packed else path
    if not path.exists():
        raise FileNotFoundError(
            f"{path.with_suffix('')} is missing, plain or as .gz: put all four files into {path.parent}."
        )
    damaged = f"{path} is truncated or not an idx file of {dimensions} dimensions: delete it and fetch it again."
    try:
        with gzip.open(path) if packed else path.open("rb") as file:
            magic, *shape = struct.unpack(f">{dimensions + 1}I", file.read(4 * dimensions + 4))
            content = file.read(min(n, shape[0]) * int(np.prod(shape[1:], dtype=np.int64)))
            rest = n >= shape[0] and file.read(1)  # reaching the end makes gzip compare its checksum
    except (EOFError, gzip.BadGzipFile, zlib.error, struct.error) as error:
        raise ValueError(damaged) from error
    if magic != 0x800 + dimensions or rest or len(content) < min(n, shape[0]) * np.prod(shape[1:]):
        raise ValueError(damaged)
    return shape, np.frombuffer(content, np.uint8)
