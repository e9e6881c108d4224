"""Where data lie: the repository's folder `data/`, or the folder that an environment variable names."""

import os
from pathlib import Path


def repository(package: Path = Path(__file__).resolve().parents[1]) -> Path:
    """The folder of data, shipped weights and notebooks: the checkout that the package lies in; a package that pip
    installed lies in none: then `$CGI_ROOT`, else the present folder."""
    checkout = package.parent
    return checkout if (checkout / "notebooks").is_dir() else Path(os.environ.get("CGI_ROOT") or Path.cwd())


def lost(root: Path | None = None) -> str:
    """A clause for a missing file if there is no repository at `root`, else nothing."""
    root = root or ROOT
    return (
        ""
        if (root / "notebooks").is_dir()
        else f" ({root} is no checkout of the repository: work in one, or name it by CGI_ROOT)"
    )


ROOT = repository()
DATA = ROOT / "data"


def named(variable: str) -> Path | None:
    """The folder in `$variable`, None if it is unset; FileNotFoundError if it is no folder."""
    path = os.environ.get(variable)
    if path and not Path(path).is_dir():
        raise FileNotFoundError(f"{variable} points to {path}, which is not a folder: correct or unset it.")
    return Path(path) if path else None
