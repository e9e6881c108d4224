"""The results that `benchmarks/samplers.py` stored, whichever seeds and data sets there are: tables with intervals.

A GAN seed is the unit: two methods are compared within each seed, and the interval covers another training.
"""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from .statistics import over_seeds

LIU = {  # Liu et al. (2020), MNIST, from their logs: Frechet distance of 50,000 samples in their own classifier
    1_000: {"plain": 6.07, "collaborative, D unshaped": 3.68, "collaborative": 0.70},
    5_000: {"plain": 2.27, "collaborative, D unshaped": 2.61, "collaborative": 0.90, "rejection": 2.23},
}
GOALS = {1_000: 6.0, 5_000: 2.5}  # how many times the shaped row should lie below the plain one
NUMBERS = ("frechet_distance", "precision", "recall", "density", "coverage")


def read(folder: str | Path) -> dict[str, dict]:
    """{data set: {seed: result}} of the files samplers_DATASET_seedN.json in a folder."""
    found: dict[str, dict] = {}
    for path in sorted(Path(folder).glob("samplers_*_seed*.json")):
        name, _, seed = path.stem.removeprefix("samplers_").rpartition("_seed")
        found.setdefault(name, {})[int(seed)] = json.loads(path.read_text("utf-8"))
    return found


def images(results: dict[str, dict]) -> pd.DataFrame:
    """A row per (data set, iteration, method) from `read`'s dict; a seed in which the method has no number is left out.

    seeds: how many have one; NUMBERS, "calls" and "gradients" (of D per sample): means over them; "gain": how many
    times its Frechet distance lies below that of `plain` of the same seed, geometric mean, with its 95 % interval
    "low" to "high" (NaN for one seed).
    """
    rows = {}
    for name, seeds in results.items():
        runs: dict[tuple, dict] = {
            (iteration, method): {}
            for result in seeds.values()
            for iteration, checkpoint in result["checkpoints"].items()
            for method in checkpoint["rows"]
        }
        for (iteration, method), found in runs.items():
            for seed, result in seeds.items():
                there = result["checkpoints"].get(iteration, {"rows": {}})["rows"]
                if "frechet_distance" in there.get(method, {}) and "plain" in there:
                    ratio = there["plain"]["frechet_distance"] / there[method]["frechet_distance"]
                    calls = {"calls": "D_calls", "gradients": "gradients"}
                    cost = {k: there[method][v] / result["samples"] for k, v in calls.items()}
                    found[seed] = {**{k: there[method][k] for k in NUMBERS}, **cost, "log": math.log(ratio)}
            table = pd.DataFrame(found.values(), columns=[*NUMBERS, "calls", "gradients", "log"], dtype=float)
            gain = over_seeds(table.pop("log").tolist())
            limits = {k: math.exp(v) for k, v in zip(("gain", "low", "high"), (gain["mean"], *gain["ci95"]))}
            rows[name, int(iteration), method] = {"seeds": len(table), **table.mean(), **limits}
    return framed(rows, ["data set", "iteration", "method"])


def framed(rows: dict, names: Sequence[str], columns: Any = None) -> pd.DataFrame:
    """DataFrame of {tuple: row}, also of none, with named levels."""
    index = pd.MultiIndex.from_arrays(list(zip(*rows)) or [()] * len(names), names=names)
    return pd.DataFrame(list(rows.values()), index=index, columns=columns)


def beside_liu(table: pd.DataFrame, name: str = "mnist") -> pd.DataFrame:
    """`images`' distances and gains of one data set next to Liu et al.'s, rows that both have."""
    columns = [("Liu et al.", k) for k in ("distance", "gain")] + [
        ("ours", k) for k in ("distance", "gain", "low", "high")
    ]
    rows = {}
    for iteration, theirs in LIU.items():
        for method, distance in theirs.items():
            if (name, iteration, method) in table.index:
                ours = table.loc[(name, iteration, method), ["frechet_distance", "gain", "low", "high"]]
                rows[iteration, method] = [distance, theirs["plain"] / distance, *ours]
    return framed(rows, ["iteration", "method"], pd.MultiIndex.from_tuples(columns))


def plane(result: dict, columns: tuple = ("good", "js", "energy"), to: str = "plain") -> dict[str, dict]:
    """{mixture: {column: DataFrame}} of the plane's file: a row per method, how far it lies above `to` within a seed.

    Columns of the DataFrame: "mean", "low", "high" (95 % interval over seeds), "values" (list, one per seed).
    """
    tables: dict[str, dict] = {}
    for mixture, rows in result["rows"].items():
        for column in columns:
            found = {}
            for method, runs in rows.items():
                pairs = [(run[column], base[column]) for run, base in zip(runs, rows[to]) if column in run]
                if method != to and pairs:
                    values = [value - base for value, base in pairs]
                    interval = over_seeds(values)
                    low, high = interval["ci95"]
                    found[method] = {"mean": interval["mean"], "low": low, "high": high, "values": values}
            tables.setdefault(mixture, {})[column] = pd.DataFrame.from_dict(found, orient="index")
    return tables
