"""The benchmark at a size that measures nothing: its keys, ratios, and that a foreign reference run is never used."""

import json
import sys
import time
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from cgi_helpers.method.masks import center_mask, composite, weight_map
from cgi_helpers.pipeline import stages
from cgi_helpers.pipeline.plan import plan
from cgi_helpers.pipeline.presets import changed, get_preset
from cgi_helpers.pipeline.session import Session

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
MODULES = [path.stem for path in BENCHMARKS.glob("*.py")]


@pytest.fixture
def bench(monkeypatch):
    """benchmarks/run.py, scale.py and what they import, as their own folder sees them."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    for name in MODULES:
        monkeypatch.delitem(sys.modules, name, raising=False)
    import run

    yield run
    for name in MODULES:
        sys.modules.pop(name, None)


FEW = dict(
    training=dict(iterations=3, encoder_iterations=3), searches={"report": {"iterations": 6}}, study={"test_images": 8}
)


CHAIN = dict(
    size=16,
    networks=dict(z_dim=4, g_width=4, d_width=4, classifier_width=2, encoder_width=2, judge_width=2, features=4),
    training=dict(iterations=3, classifier_iterations=3, encoder_iterations=3, judge_iterations=3),
    searches=dict.fromkeys(("report", "best", "unet_inverted", "nearest_inverted"), dict(iterations=2, pool=40)),
    shapings={
        row: dict(batch=10, epochs=(0, 0.5), layer=1, steps=2)
        for row in ("sampling", "report", "best", "per_image", "unet_inverted", "nearest_inverted")
    }
    | dict.fromkeys(("unet", "context_encoder"), dict(batch=10, epochs=(0, 0.02), layer=1, steps=2)),
    feedforward={row: dict(iterations=3, width=2) for row in ("unet", "context_encoder")},
    study=dict(
        validation_images=20,
        test_images=20,
        families={
            row: dict(epochs=(0.5,), companions=10, steps=2)
            for row in (
                "collaborative_field",
                "collaborative_long",
                "collaborative_unet_inverted",
                "collaborative_nearest_inverted",
            )
        }
        | dict.fromkeys(("collaborative_unet", "collaborative_context_encoder"), dict(epochs=(0.02,), companions=10))
        | {"collaborative_sampling": dict(epochs=(0.5,))},
    ),
)


@pytest.fixture
def session(root):
    """Networks that have seen a few batches, stored in a folder of this test."""
    s = Session(get_preset("smoke", **FEW), progress=False)
    stages.train_gan(s)
    stages.train_encoder(s)
    return s


def committed():
    return {p: p.read_bytes() for p in (BENCHMARKS / "results").iterdir()}


def test_all_keys_and_ratios_without_touching_committed_results(bench, session, tmp_path):
    before = committed()
    bench.measure(session, steps=1, turns=1, images=4, encodings=6, folder=tmp_path / "out")
    r = json.loads((tmp_path / "out" / "smoke.json").read_text())
    assert {
        "search_speedup",
        "search_warm_speedup",
        "refine_speedup",
        "train_step_speedup",
        "encode_60000_minutes",
        "machine",
        "versions",
        "threads",
        "precision",
    } <= set(r)
    assert r["extrapolated"] is True and r["encode"]["extrapolated"] is True and r["encode"]["images"] == 6
    for ways in r["steps"].values():
        assert ways["plain"]["speedup"] == 1 and all(w["seconds"] > 0 for w in ways.values())
        assert ways["ours"]["speedup"] == pytest.approx(ways["plain"]["seconds"] / ways["ours"]["seconds"])
        assert 0 < ways["ours"]["flop"] < ways["plain"]["flop"]
    assert r["refine_speedup"] == r["steps"]["refine_step"]["ours"]["speedup"]
    assert r["encode_60000_minutes"] == pytest.approx(
        r["encode"]["seconds"] / 6 * 1000 + r["time_to_target"]["whitening_seconds"] / 60
    )
    unclipped = json.loads((tmp_path / "out" / "smoke_reference_unclipped.json").read_text())
    assert unclipped["recipe"]["clip"] is None and unclipped["fingerprint"] != r["reference_run"]["fingerprint"]
    goals = {name: row["goal"] for name, row in r["time_to_target"].items() if isinstance(row, dict)}
    assert set(goals.values()) == {r["time_to_target"]["goal"], unclipped["mean_context"]}
    # no stored encodings by the report's recipe to compare with
    assert r["time_to_target"]["encoder"]["psnr_gain_all"] is None
    for name in ("search", "refine", "train"):
        assert r[f"ablation_{name}"][0][0] == "reference" and len(r[f"ablation_{name}"]) > 2
    table = (tmp_path / "out" / "smoke.md").read_text()
    assert all(
        name in table for name in ("refine_speedup", "BatchNorm folded", "fused Adam", "share of its precision's peak")
    )
    assert (tmp_path / "out" / "smoke.png").stat().st_size > 1000 and committed() == before


def test_operations_are_counted_from_shapes(bench, session):
    """One search iteration of the reference: forward, input and weight gradients of every convolution, by hand."""
    b = bench.Bench(session, 1, 1, images=2)
    levels = [
        (p.shape[0] * p.shape[1] * 16, side)
        for p, side in [
            *((block[0].weight, s) for block, s in zip(b.G0.blocks, (4, 8, 16, 32))),
            *((c.weight, s) for c, s in zip([m for m in b.D0.features if hasattr(m, "stride")], (32, 16, 8, 4))),
        ]
    ]
    convolutions = sum(2 * 2 * n * side**2 for n, side in levels)
    linear = 2 * 2 * (b.G0.project.weight.numel() + b.D0.head.weight.numel())
    assert bench.flops(b, b.plain_search) == pytest.approx(3 * (convolutions + linear), rel=0.01)


def test_a_reference_run_is_made_once_and_a_foreign_one_never_used(bench, session, tmp_path, capsys):
    import target

    made = target.load(session, tmp_path)
    path = tmp_path / "smoke_reference.json"
    assert (
        made["images"] == 8
        and made["iterations"] == 6
        and len(made["context"]) == len(made["psnr"]) == 8
        and made["seconds"] > 0
    )
    stamp = path.read_bytes()
    again = target.load(session, tmp_path)
    assert "seconds" not in again and again["context"] == made["context"] and path.read_bytes() == stamp
    path.write_text(path.read_text().replace(made["fingerprint"], "0" * 16).replace(f"{made['context'][0]}", "0.001"))
    capsys.readouterr()
    assert target.load(session, tmp_path)["context"] == made["context"] and path.read_bytes() == stamp
    assert "belongs to other weights" in capsys.readouterr().out
    for change in (dict(searches={"report": {"iterations": 5}}), dict(study={"test_images": 7})):
        other = Session(get_preset(get_preset("smoke", **FEW), **change))
        assert target.load(other, tmp_path)["fingerprint"] != made["fingerprint"]


def test_the_committed_reference_run_fits_its_recipe(bench):
    import reference

    stored = json.loads((BENCHMARKS / "results" / "laptop_reference.json").read_text())
    assert (
        stored["recipe"] == reference.RECIPE
        and stored["iterations"] == 1000
        and len(stored["context"]) == stored["images"] == 256
    )
    assert (
        stored["mean_context"]
        == pytest.approx(sum(stored["context"]) / 256)
        == pytest.approx(stored["curve"][-1][1], abs=1e-3)
    )


def test_parameter_gradients_change_no_number_of_the_reference(bench, session):
    import reference
    import target

    y, z = session.data["test"].batch(slice(0, 3)), target.starts(session, 3)
    ends = []
    for flag in (True, False):
        G, D = (net.requires_grad_(flag) for net in target.plain_networks(session))
        ends.append(list(reference.search(G, D, y, weight_map(session.mask), z, 4))[-1])
    assert torch.equal(ends[0][0], ends[1][0]) and torch.equal(ends[0][1], ends[1][1])


def test_the_reference_is_the_packages_recipe(bench, session):
    """Our loops and the reference's, written apart, walk the same path."""
    from cgi_helpers.method.refine import Overlay, refine
    from cgi_helpers.method.search import find_latent

    import reference
    import target

    y, z = session.data["test"].batch(slice(0, 3)).double(), target.starts(session, 3).double()
    G, D = (net.double() for net in target.plain_networks(session))
    mask = session.mask.double()
    ours = [s for _, s in find_latent(G, D, y, mask, z=z.clamp(-1, 1), iterations=5, clip=1.0)]
    plain = list(reference.search(G, D, y, weight_map(mask), z.clamp(-1, 1), 5))
    torch.testing.assert_close(ours[-1]["z"], plain[-1][0], rtol=0, atol=1e-9)
    h = G.to_features(z, 2).detach()
    moved, velocity = h, torch.zeros_like(h)
    for _ in range(3):
        moved, velocity = reference.refine_step(G, D, z, moved, velocity, y, mask, 2)
    *_, (_, state) = refine(
        G, D, h, layer=2, steps=3, step_size=0.1, compose=Overlay(y, mask), stop="median", threshold=float("inf")
    )
    torch.testing.assert_close(state["features"], moved, rtol=0, atol=1e-9)
    torch.testing.assert_close(state["images"], composite(y, G.to_image(moved, 2), mask), rtol=0, atol=1e-9)


def test_a_missing_network_is_one_sentence(bench, root, capsys):
    with pytest.raises(SystemExit, match="Error: Artifact 'generator' of preset 'smoke' does not exist yet"):
        bench.main(["--preset", "smoke"])


def test_scale_measures_every_point_in_a_process_of_its_own(bench, tmp_path, monkeypatch):
    """One point is measured so; for the others this process is enough."""
    import scale

    before, apart, kept = committed(), scale.measured, []

    def measured(**what):
        kept.append(apart(**what) if not kept else scale.point(**what))
        return kept[-1]

    monkeypatch.setattr(scale, "measured", measured)
    r = scale.measure(counts=(1, 3), sizes=(16, 32), widths=(4, 8), iterations=2, folder=tmp_path)
    assert (
        [p["images"] for p in r["images"]] == [1, 3]
        and [p["size"] for p in r["size"]] == [16, 32]
        and [p["width"] for p in r["width"]] == [4, 8]
    )
    assert all(p["seconds"] > 0 and p["peak_mib"] > 10 for key in ("images", "size", "width") for p in r[key])
    assert (
        json.loads((tmp_path / "scale.json").read_text()) == r
        and (tmp_path / "scale.png").stat().st_size > 1000
        and committed() == before
    )


TINY = dict(
    width=4,
    snapshots=(2, 3),
    classifier=2,
    samples=100,
    checked=80,
    near=30,
    tuning=1,
    looks=(1, 2),
    steps=2,
    images=300,
    proposals=500,
)


def test_samplers_on_images_search_choose_on_validation_and_score_once(bench, tmp_path):
    """Two seeds at a size that measures nothing: the first searches, the second takes its best; another run scores."""
    import samplers as s

    before, methods, Classifier = committed(), s.methods, s.Classifier
    s.methods = lambda *place: [(*row, knobs and knobs[:2]) for *row, knobs in methods(*place)]
    s.Classifier = lambda width, channels, size: Classifier(8, channels, size, features=32)  # hence few samples do
    s.GRID, numbers = [{}, dict(mode="batch"), dict(continued=True, average=0.5)], {**s.FULL, **TINY}
    run = dict(folder=tmp_path / "weights", out=tmp_path / "out", sweep=1e6, shape=1e6, best=2, numbers=numbers)
    paths = s.run_images(["fashion_mnist"], [0, 1], **run)
    results = [json.loads(Path(p).read_text()) for p in paths]
    assert [r["seed"] for r in results] == [0, 1] and committed() == before
    for result, settings in zip(results, (3, 2)):
        assert list(result["checkpoints"]) == ["2", "3"]
        for checkpoint in result["checkpoints"].values():
            tried, rows = checkpoint["tried"], checkpoint["rows"]
            assert len(tried) == settings and len(rows) == 12
            assert tried == sorted(tried, key=lambda row: row["validation"])
            assert all(row["validation"] == min(v for _, v, _ in row["curve"]) and row["ended"] for row in tried)
            assert checkpoint["setting"].items() <= tried[0].items() and checkpoint["shaping_iterations"] in (1, 2)
            assert rows["plain"]["G_calls"] == 100 and rows["plain"]["D_calls"] == 0
            for name in ("collaborative", "collaborative, D unshaped", "collaborative, D tuned on plain samples"):
                assert rows[name]["G_calls"] == rows[name]["D_calls"] == 100 * 3 and rows[name]["gradients"] == 100 * 2
            for name in ("Langevin", "gradient flow KL", "gradient flow JS", "optimal transport"):
                seen = [row for row in rows[name]["seen"] if row["validation"] is not None]
                best = min(seen, key=lambda row: row["validation"], default=rows[name]["seen"][0])
                assert rows[name]["chosen"]["step_size"] == best["step_size"]
            assert all("refused" in row or row["frechet_distance"] > 0 for row in rows.values())
    place = ("fashion_mnist", str(run["folder"]), None, "cpu", tuple(sorted(numbers.items())))
    best = s.tried(run["folder"], "fashion_mnist", 1, 3)[0]
    G, D, _ = (b := s.bench(*place)).pair(1, 3)
    D.load_state_dict(s.load_file(b.folder / "seed1" / "tried" / f"3_{s.label(s.options_of(best))}.safetensors"))
    images, _ = s.samplers.collaborative(G, D, TINY["checked"], key=(1, "choice"), **s.walk_of(best))
    assert s.chooser(b)(images, fast=True)["frechet_distance"] == pytest.approx(best["validation"])  # the kept D is it
    s.try_setting(place, 1, 3, s.options_of(best), time.time() + 1e6, 0)  # cut off after one iteration: not better
    assert s.tried(run["folder"], "fashion_mnist", 1, 3)[0] == best
    stamps = {p: p.stat().st_mtime_ns for p in run["folder"].rglob("*") if p.is_file()}
    again = json.loads(Path(s.run_images(["fashion_mnist"], [1], **{**run, "sweep": 0})[0]).read_text())
    assert stamps == {p: p.stat().st_mtime_ns for p in stamps} and len(stamps) == len(list(run["folder"].rglob("*.*")))
    for result in (again, results[1]):
        for checkpoint in result["checkpoints"].values():
            [row.pop("seconds", None) for row in checkpoint["rows"].values()]
    assert again == results[1]


def test_seeds_are_rows_of_their_own_that_keep_the_shaping_of_the_card(bench):
    import seeds

    preset = get_preset("smoke")
    chosen = {name: str(preset.shapings["best"].epochs[-1]) for name in ("collaborative_best", "collaborative_field")}
    chosen |= dict.fromkeys(("collaborative_unet", "collaborative_unet_inverted"), "0.1")
    anew, families = seeds.rows_of(preset, chosen, [0, 3])
    assert set(anew) == {f"{start}_{seed}" for start in ("best", "unet", "unet_inverted") for seed in (0, 3)}
    assert len(families) == 8 and families["collaborative_unet_inverted", 0].steps == 6
    for row, shaping in anew.items():
        start, _, seed = row.rpartition("_")
        assert shaping.seed == int(seed) and shaping.step_size == preset.shapings[start].step_size
    assert families["collaborative_field", 3].mode == "field" and families["collaborative_field", 3].shaping == "best_3"
    plan_ = plan(changed(preset, {"shapings": anew}))
    assert plan_["shape best_0"].settings != plan_["shape best_3"].settings  # so that neither is taken for the other


def test_a_sealed_hole_hides_every_pixel_that_shows_something_of_it(bench):
    import controls

    mask, rng = center_mask(16), torch.Generator().manual_seed(0)
    known = controls.sealed(mask, 7)
    assert (known <= mask).all() and 0 < known.sum() < mask.sum()
    small = torch.rand(1, 1, 7, 7, generator=rng, requires_grad=True)
    image = F.interpolate(small, size=(16, 16), mode="bilinear", align_corners=False)
    inside, outside = (
        torch.autograd.grad((part * image).sum(), small, retain_graph=True)[0] for part in (1 - mask, known)
    )
    assert not ((inside > 0) & (outside > 0)).any()
    assert torch.equal(controls.sealed(mask, 16), mask)


@pytest.fixture
def trained(root):
    """Every stage up to `tune` of tiny settings, in a folder of this test."""
    s = Session(get_preset("smoke", **CHAIN), progress=False)
    for stage in s.plan:
        if stage not in ("company", "evaluate", "card"):
            stages.run(s, stage)
    return s


def test_all_test_images_row_by_row_and_on_from_where_it_was_stopped(bench, trained, tmp_path, monkeypatch):
    import all_images

    monkeypatch.setattr(all_images, "BATCH", 16)
    out = tmp_path / "all.json"
    found = all_images.run_all(trained, out, images=40)
    rows = found["rows"]
    assert found["images"] == 40 and rows["collaborative_unet_inverted"]["over"] == "semantic_unet_inverted"
    assert rows["mean"]["over"] is None and rows["unet"]["psnr"]["half_interval"] > 0
    for row in rows.values():
        if row["over"]:
            gain = row["psnr"]["mean"] - rows[row["over"]]["psnr"]["mean"]
            assert row["psnr_gain"]["mean"] == pytest.approx(gain, abs=1e-4)
    dropped = rows.pop("collaborative_field")
    out.write_text(json.dumps({**found, "rows": rows}))
    monkeypatch.setattr(all_images, "by_rival", lambda *a: pytest.fail("asked again"))
    assert all_images.run_all(trained, out, images=40)["rows"]["collaborative_field"] == dropped


def test_controls_of_training_and_of_the_leak(bench, trained):
    import controls

    c, load = controls.Controls(trained, None), trained.load
    seconds = {"shaped_best": 20.0, "encodings_best": 0.0, "encoder": 10.0}

    def timed(name):
        tree, found = load(name)
        return tree, {**found, "seconds": seconds.get(name, 0), "seconds_per_image": {"pool": 0.25}}

    trained.load = timed
    assert c.equal_training()["iterations"] == 12  # 3 in 10 s, and as many more as 20 s and 40 images make
    search, refined = c.no_leak(False), c.no_leak(True)
    assert search["hidden"] == refined["hidden"] == round(float(1 - controls.sealed(trained.mask, 28).mean()), 4)
    assert refined["step_size"] == c.path["step_size"]
    seen = []
    c.searched, c.refined = (
        (lambda mask: seen.append(mask) or c.z),
        (lambda *path, start, mask: seen.append(mask) or c.y),
    )
    c.no_leak(True)
    assert torch.equal(*seen) and torch.equal(seen[0], controls.sealed(trained.mask, 28))


def test_a_random_direction_is_as_long_as_the_gradient_and_not_along_it(bench):
    import controls

    h = torch.randn(5, 3, 4, 4, generator=torch.Generator().manual_seed(0), requires_grad=True)
    weight = torch.randn(5, 3, 4, 4, generator=torch.Generator().manual_seed(1)) * torch.arange(1.0, 6).view(5, 1, 1, 1)
    rng = torch.Generator().manual_seed(2)
    (turned,) = torch.autograd.grad((controls.RandomDirection.apply(h, rng) * weight).sum(), h)
    torch.testing.assert_close(turned.flatten(1).norm(dim=1), weight.flatten(1).norm(dim=1))
    cosine = torch.cosine_similarity(turned.flatten(1), weight.flatten(1))
    assert cosine.abs().max() < 0.6 and torch.equal(controls.RandomDirection.apply(h, rng), h)
