"""Where data lie: the repository's folder `data/`, or the folder that an environment variable names."""

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT / "data"


def named(variable):
    """The folder in `$variable`, None if it is unset; FileNotFoundError if it is no folder."""
    path = os.environ.get(variable)
    if path and not Path(path).is_dir():
        raise FileNotFoundError(f"{variable} points to {path}, which is not a folder: correct or unset it.")
    return Path(path) if path else None
