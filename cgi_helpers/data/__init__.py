"""Data sets: a table NAME -> loader, read split by split only when a split is asked for."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial

import torch

from . import folder, sets
from .convert import as_mask, from_image, in_channels, to_network  # noqa: F401
from .places import DATA, ROOT  # noqa: F401
from .sets import download  # noqa: F401

SPLITS = ("train", "validation", "test")
FOLDER = "folder:"  # and a path: a reader's own images
# classes of a data set without labels: its classifiers tell by how many quarter turns an image was turned (Gidaris et
# al. 2018), and label agreement then is the share of images that stand upright for them
TURNS = ("no labels", "a quarter turn", "half a turn", "three quarters")


@dataclass(frozen=True)
class Split:
    """Images as stored bytes (N, H, W) or (N, C, H, W) uint8, labels (N,) int64 or None; `batch` makes network input.

    size, channels: of the network input (channels None: as stored). classes: names of the labels or None.
    flips: whether a mirrored image keeps its meaning (`train_classifier` then mirrors at random).
    turned: the data set has no labels: they are all 0, of TURNS, and `train_classifier` turns images at random.
    """

    images: torch.Tensor
    labels: torch.Tensor | None
    size: int = 64
    channels: int | None = None
    classes: tuple | None = None
    flips: bool = False
    turned: bool = False

    def __len__(self) -> int:
        return len(self.images)

    def batch(self, index: slice | list | torch.Tensor, device: str | torch.device = "cpu") -> torch.Tensor:
        """Images at `index` (slice, list or LongTensor) as (N, C, size, size) float32 in [-1, 1]."""
        return to_network(self.images[index].to(device), self.size, self.channels)

    def first(self, n: int) -> "Split":
        """The first `n` images (all, if fewer exist)."""
        labels = None if self.labels is None else self.labels[:n]
        return replace(self, images=self.images[:n], labels=labels)


@dataclass(frozen=True)
class DataSet:
    """One row of the table: facts of a data set, stated once.

    read(split, limit) -> (images, labels) as in `Split`. channels: of the stored images. flips: as in `Split`.
    source: one clause that says where the images come from.
    """

    read: Callable
    channels: int
    classes: tuple | None
    flips: bool
    source: str


@dataclass
class Splits(Mapping):
    """{"train", "validation", "test"} -> Split; a split is read when it is first asked for."""

    make: Callable
    ready: dict = field(default_factory=dict)

    def __getitem__(self, name):
        if name not in SPLITS:
            raise KeyError(name)
        if name not in self.ready:
            self.ready[name] = self.make(name)
        return self.ready[name]

    def __iter__(self):
        return iter(SPLITS)

    def __len__(self) -> int:
        return len(SPLITS)


CLASSES = ("T-shirt", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")
DIGITS = tuple(str(i) for i in range(10))
CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
# as in data/avatars/make.mjs
LOOKS = (
    "bun",
    "bun, long hair",
    "bun, wavy hair",
    "parting",
    "parting, wavy hair",
    "parting, shoulder length",
    "undercut",
    "undercut, neck length",
    "spikes",
    "spikes, long hair",
)

DATASETS = {
    "fashion_mnist": DataSet(sets.fashion_mnist, 1, CLASSES, True, "shipped"),
    "mnist": DataSet(
        sets.mnist, 1, DIGITS, False, "its test images are shipped, the others are downloaded by torchvision"
    ),
    "kmnist": DataSet(
        sets.kmnist, 1, ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"), False, "torchvision"
    ),
    "cifar10": DataSet(sets.cifar10, 3, CIFAR10, True, "torchvision"),
    "avatars": DataSet(sets.avatars, 3, LOOKS, True, "shipped: drawn faces"),
    "celeba": DataSet(sets.celeba, 3, None, True, "torchvision, or a folder"),
}


def described(name: str) -> DataSet:
    """The row of a data set; "folder:PATH" makes one of a folder of own images. ValueError for an unknown name."""
    if name.startswith(FOLDER):
        path = name.removeprefix(FOLDER)
        return DataSet(partial(folder.read, path), 3, folder.classes(path), False, "own images")
    if name not in DATASETS:
        raise ValueError(f"Unknown data set {name!r}: use one of {', '.join(DATASETS)}, or folder:PATH for own images.")
    return DATASETS[name]


def content(name: str) -> str | None:
    """A hash of what a data set of a reader's own holds today; None for a data set whose name says it."""
    return folder.content(name.removeprefix(FOLDER)) if name.startswith(FOLDER) else None


def load(name: str, size: int = 64, channels: int | None = None, limit: dict[str, int] | None = None) -> Splits:
    """Return {"train", "validation", "test"} -> Split, read lazily.

    size, channels: of the network input (None: the data set's own). limit: {split: N}, the first N images of a split.
    Raises ValueError for an unknown name; FileNotFoundError or ValueError, when a split is read, with what to do.
    """
    row = described(name)

    def make(split):
        images, labels = row.read(split, (limit or {}).get(split))
        if labels is not None:
            return Split(images, labels, size, channels, row.classes, row.flips)
        return Split(images, torch.zeros(len(images)).long(), size, channels, TURNS, row.flips, turned=True)

    return Splits(make)
