"""Fashion-MNIST: where it is found, how it is split, and how 28x28 bytes become network input."""

import gzip
import hashlib
import os
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from ..method.checks import check_images

ROOT = Path(__file__).resolve().parents[2]
SAMPLE = ROOT / "data" / "fashion_mnist_sample.npz"
DEBIAN = Path("/usr/share/datasets/fashion-mnist")
CLASSES = ("T-shirt", "Trouser", "Pullover", "Dress", "Coat",
           "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")
TRAIN, VALIDATION = 55_000, 5_000

# sha256 of the decompressed files: Debian recompresses them, so the .gz checksums of torchvision differ.
SHA256 = {
    "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}


@dataclass(frozen=True)
class Split:
    """Images as stored bytes (N, 28, 28) uint8 and labels (N,) int64; `batch` makes network input."""
    images: torch.Tensor
    labels: torch.Tensor
    size: int = 64
    classes: tuple | None = CLASSES

    def __len__(self):
        return len(self.images)

    def batch(self, index, device="cpu"):
        """Images at `index` (slice, list or LongTensor) as (N, 1, size, size) float32 in [-1, 1]."""
        return to_network(self.images[index].to(device), self.size)

    def first(self, n):
        """The first `n` images (all, if fewer exist)."""
        return Split(self.images[:n], self.labels[:n], self.size)


def to_network(images, size=64):
    """Bytes (N, H, W) -> (N, 1, size, size) in [-1, 1]: bilinear, `align_corners=False`, then x / 127.5 - 1."""
    x = images.unsqueeze(1).float()
    if x.shape[-1] != size:
        x = F.interpolate(x, size=(size, size), mode="bilinear", align_corners=False)
    return x / 127.5 - 1


def from_array(image, size=64):
    """One own image, 28x28 or 64x64 (uint8 in 0..255 or float in [-1, 1]), as network input (1, 1, size, size)."""
    array = np.asarray(image)
    if array.shape not in ((28, 28), (64, 64), (size, size)):
        raise ValueError(f"An image must be 28x28 or 64x64 grey values but has shape {array.shape}: "
                         "convert it to grey and resize it first.")
    if array.dtype == np.uint8:
        return to_network(torch.from_numpy(array.copy())[None], size)
    if not np.issubdtype(array.dtype, np.floating):
        raise ValueError(f"An image must be uint8 (0..255) or float ([-1, 1]) but has dtype {array.dtype}: convert it first.")
    x = torch.from_numpy(array.astype(np.float32))[None, None]
    if not torch.isfinite(x).all():
        raise ValueError("Images contain NaN or infinite values: clean them before inpainting.")
    if x.shape[-1] != size:
        x = F.interpolate(x, size=(size, size), mode="bilinear", align_corners=False)
    return check_images(x, size=size)


def load(dataset="fashion_mnist", size=64, root=None, limit=None):
    """Return {"train", "validation", "test"} -> Split.

    `fashion_mnist`: 55,000 / 5,000 / 10,000, looked for in `data/FashionMNIST`, `$FASHION_MNIST_DIR`,
    Debian's `dataset-fashion-mnist`, then downloaded by torchvision. `fashion_mnist_sample`: the bundled
    excerpt. Raises FileNotFoundError or ValueError (checksum) with what to do.
    """
    if dataset != "fashion_mnist":
        raise ValueError(f"Unknown dataset {dataset!r}: use 'fashion_mnist' or 'fashion_mnist_sample'.")
    raw = _find_raw(Path(root) if root else ROOT / "data")
    train_x, train_y = _read(raw, "train")
    test_x, test_y = _read(raw, "t10k")
    splits = {"train": Split(train_x[:TRAIN], train_y[:TRAIN], size),
            "validation": Split(train_x[TRAIN:], train_y[TRAIN:], size),
            "test": Split(test_x, test_y, size)}
    return {k: s.first(limit[k]) if limit else s for k, s in splits.items()}


def _load_sample(size):
    if not SAMPLE.exists():
        raise FileNotFoundError(f"The bundled sample {SAMPLE.name} is missing from data/: restore it with git checkout.")
    with np.load(SAMPLE, allow_pickle=False) as f:
        return {s: Split(torch.from_numpy(f[f"{s}_images"]), torch.from_numpy(f[f"{s}_labels"]).long(), size)
                for s in ("train", "validation", "test")}


def _find_raw(root):
    """Folder with the four decompressed files, unpacking or downloading them on first use."""
    raw = root / "FashionMNIST" / "raw"
    env = os.environ.get("FASHION_MNIST_DIR")
    if env and not Path(env).is_dir():
        raise FileNotFoundError(f"FASHION_MNIST_DIR points to {env}, which is not a folder: correct or unset it.")
    places = [raw, root / "FashionMNIST"] + [Path(p) for p in (env,) if p] + [DEBIAN]
    for place in places:
        if all((place / n).exists() or (place / f"{n}.gz").exists() for n in SHA256):
            return place if all((place / n).exists() for n in SHA256) else _unpack(place, raw)
    return _download(root, raw)


def _unpack(source, raw):
    for name in SHA256:
        if (raw / name).exists():
            continue
        try:
            content = gzip.decompress((source / f"{name}.gz").read_bytes())
        except (EOFError, OSError, zlib.error) as error:
            raise ValueError(f"{source / name}.gz is truncated or corrupt ({error}): delete it and fetch it again.") from error
        try:
            raw.mkdir(parents=True, exist_ok=True)
            partial = raw / f".{name}.{os.getpid()}.partial"
            partial.write_bytes(content)
            os.replace(partial, raw / name)
        except OSError as error:
            raise ValueError(f"Cannot unpack Fashion-MNIST into {raw} ({error.strerror}): make the folder writable, or let "
                             "FASHION_MNIST_DIR point to a folder with the unpacked files.") from error
    return raw


def _download(root, raw):
    from torchvision.datasets import FashionMNIST
    try:
        FashionMNIST(str(root), train=True, download=True)
    except Exception as error:  # torchvision raises many kinds; the user needs one sentence
        raise FileNotFoundError(
            f"Fashion-MNIST was found neither in {root / 'FashionMNIST'}, nor in $FASHION_MNIST_DIR, nor in {DEBIAN} "
            f"(Debian: apt install dataset-fashion-mnist), and torchvision could not download it ({type(error).__name__}).") from error
    return raw


def _read(raw, prefix):
    images = _verified(raw / f"{prefix}-images-idx3-ubyte")[16:].reshape(-1, 28, 28)
    labels = _verified(raw / f"{prefix}-labels-idx1-ubyte")[8:]
    return torch.from_numpy(images.copy()), torch.from_numpy(labels.astype(np.int64))


def _verified(path):
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != SHA256[path.name]:
        raise ValueError(f"{path} is corrupt or half-downloaded (checksum differs): delete it and run again.")
    return np.frombuffer(content, np.uint8)
