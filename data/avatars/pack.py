"""python pack.py FOLDER: what make.mjs drew there becomes lossless WebP files of 250 images,
labels and SHA256SUMS, beside this file."""

import hashlib
import sys
from pathlib import Path

import numpy as np
from PIL import Image

SIZE, PER_FILE, HERE = 64, 250, Path(__file__).parent

for split in ("train", "validation", "test"):
    source = Path(sys.argv[1]) / split
    images = np.fromfile(f"{source}.rgb", np.uint8).reshape(-1, SIZE, SIZE, 3)
    np.save(HERE / f"{split}-labels.npy", np.fromfile(f"{source}.labels", np.uint8))
    for i in range(0, len(images), PER_FILE):
        strip = Image.fromarray(images[i : i + PER_FILE].reshape(-1, SIZE, 3))
        strip.save(HERE / f"{split}-{i // PER_FILE:02d}.webp", lossless=True, quality=100, method=6)
files = sorted(p for p in HERE.iterdir() if p.suffix in (".webp", ".npy"))
(HERE / "SHA256SUMS").write_text("".join(f"{hashlib.sha256(p.read_bytes()).hexdigest()}  {p.name}\n" for p in files))
