"""Stored results of the samplers: whichever seeds and data sets there are become one table, compared within a seed."""

import json
import math
from pathlib import Path

import pytest

from cgi_helpers.study import sampled
from cgi_helpers.study.statistics import over_seeds

RESULTS = Path(__file__).resolve().parents[1] / "benchmarks" / "results"


def row(distance, calls=0):
    numbers = dict.fromkeys(sampled.NUMBERS, 0.5)
    return {**numbers, "frechet_distance": distance, "D_calls": calls, "gradients": calls}


def stored(folder, name, seed, checkpoints):
    rows = {k: {"rows": rows} for k, rows in checkpoints.items()}
    (folder / f"samplers_{name}_seed{seed}.json").write_text(json.dumps({"samples": 10, "checkpoints": rows}))


@pytest.fixture
def results(tmp_path):
    """Two seeds of MNIST of which one lacks a checkpoint and refuses a method; one of Fashion-MNIST; other files."""
    early = {"plain": row(8.0), "collaborative": row(2.0, 210), "rejection": {"refused": "nothing passes"}}
    stored(tmp_path, "mnist", 10, {"1000": early, "5000": {"plain": row(3.0), "collaborative": row(1.0)}})
    stored(tmp_path, "mnist", 2, {"1000": {"plain": row(9.0), "collaborative": row(9.0), "rejection": row(4.5)}})
    stored(tmp_path, "fashion_mnist", 0, {"1000": {"plain": row(6.0)}})
    (tmp_path / "samplers_plane.json").write_text("{}")
    return sampled.read(tmp_path)


def test_every_seed_and_data_set_that_is_there_is_read(results):
    assert {name: set(seeds) for name, seeds in results.items()} == {"mnist": {2, 10}, "fashion_mnist": {0}}
    assert sampled.read(Path("nowhere")) == {}


def test_gains_are_ratios_within_a_seed(results):
    table = sampled.images(results)
    mean = table.loc[("mnist", 1000, "collaborative")]
    assert mean["seeds"] == 2 and mean["frechet_distance"] == pytest.approx(5.5) and mean["calls"] == 10.5
    logs = [math.log(1), math.log(4)]
    assert mean["gain"] == pytest.approx(2) and mean["gain"] == pytest.approx(math.exp(over_seeds(logs)["mean"]))
    assert mean["low"] == pytest.approx(math.exp(over_seeds(logs)["ci95"][0])) and mean["low"] < 1 < mean["high"]
    assert table.loc[("mnist", 1000, "rejection"), "seeds"] == 1  # the other seed refused
    late = table.loc[("mnist", 5000, "collaborative")]
    assert late["gain"] == pytest.approx(3) and math.isnan(late["low"]) and math.isnan(late["high"])
    assert (table.xs("plain", level="method")["gain"] == 1).all()


def test_a_method_that_every_seed_refused_stands_without_numbers(tmp_path):
    stored(tmp_path, "mnist", 0, {"1000": {"plain": row(2.0), "rejection": {"refused": "nothing passes"}}})
    refused = sampled.images(sampled.read(tmp_path)).loc[("mnist", 1000, "rejection")]
    assert refused["seeds"] == 0 and refused.drop("seeds").isna().all()


def test_beside_liu_are_only_rows_that_both_have(results):
    beside = sampled.beside_liu(sampled.images(results))
    assert list(beside.index) == [(1000, "plain"), (1000, "collaborative"), (5000, "plain"), (5000, "collaborative")]
    assert beside["Liu et al."]["gain"][1000, "collaborative"] == pytest.approx(6.07 / 0.70)
    assert beside["ours"]["distance"][1000, "collaborative"] == pytest.approx(5.5)
    assert len(sampled.beside_liu(sampled.images({}))) == 0


def test_in_the_plane_methods_are_compared_within_a_seed():
    runs = {"plain": [{"good": 0.2}, {"good": 0.6}], "rejection": [{"good": 0.5}, {"refused": "x"}], "none": [{}, {}]}
    table = sampled.plane({"rows": {"ring": runs}}, ["good"])["ring"]["good"]
    assert list(table.index) == ["rejection"] and table.loc["rejection", "values"] == pytest.approx([0.3])


def test_student_interval_of_few_seeds():
    found = over_seeds([1.0, 2.0, 3.0])
    assert found["mean"] == 2 and found["ci95"] == pytest.approx([2 - 4.302653 / 3**0.5, 2 + 4.302653 / 3**0.5])
    assert over_seeds([5.0])["mean"] == 5 and all(map(math.isnan, over_seeds([5.0])["ci95"]))
    assert math.isnan(over_seeds([])["mean"])


def test_the_shipped_results_make_tables():
    table = sampled.images(sampled.read(RESULTS))
    assert {"plain", "collaborative"} <= set(table.loc[("mnist", 1000)].index) and len(sampled.beside_liu(table)) >= 6
    gained = sampled.plane(json.loads((RESULTS / "samplers_plane.json").read_text()))
    assert all(len(v) == 3 for row in gained.values() for t in row.values() for v in t["values"]) and len(gained) == 3
