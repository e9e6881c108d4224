"""What another training changes: the results that `benchmarks/seeds.py` stored, as tables with intervals over seeds.

A GAN seed is the unit: a refined row is compared with its start within each GAN seed, shaping seeds averaged.
"""

import json
from pathlib import Path

import pandas as pd

from .statistics import over_seeds

STARTS = {
    "collaborative_best": "semantic_best",
    "collaborative_field": "semantic_best",
    "collaborative_unet": "unet",
    "collaborative_unet_inverted": "semantic_unet_inverted",
}
MEASURES = ("psnr", "ssim", "frechet_distance", "kernel_distance_2", "detectability")


def read(path: str | Path) -> pd.DataFrame:
    """A row per run of a file `seeds_PRESET.json`: "row", "gan", "shaping" (NaN: not refined) and the measures."""
    return pd.DataFrame(json.loads(Path(path).read_text("utf-8"))["runs"])


def table(runs: pd.DataFrame) -> pd.DataFrame:
    """(row, measure) -> "mean" over GAN seeds, "change" against the row's start and its 95 % interval "low" to "high",
    "gans", "shapings": how many seeds, and "shaping_sd": standard deviation among shapings of one GAN (all NaN for
    starts, intervals NaN for one seed)."""
    by_gan = runs.groupby(["row", "gan"])[list(MEASURES)].mean()
    spread = runs.groupby(["row", "gan"])[list(MEASURES)].std().groupby("row").mean()
    rows = {}
    for row in dict.fromkeys(runs["row"]):
        found, shapings = by_gan.loc[row], runs[runs["row"] == row].groupby("gan").size().max()
        for measure in MEASURES:
            line = {"gans": len(found), "shapings": int(shapings), "mean": found[measure].mean()}
            if row in STARTS:
                change = (found - by_gan.loc[STARTS[row]].loc[found.index])[measure]
                interval = over_seeds(change.tolist())
                low, high = interval["ci95"]
                line |= {"change": interval["mean"], "low": low, "high": high, "shaping_sd": spread.loc[row, measure]}
            rows[row, measure] = line
    index = pd.MultiIndex.from_tuples(rows, names=["row", "measure"])
    return pd.DataFrame(list(rows.values()), index=index)
