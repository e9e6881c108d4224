"""The evaluation: completions, scores per image, the rule of `tune`, and the table with its intervals."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from cgi_helpers.data import Split
from cgi_helpers.method.losses import context_loss
from cgi_helpers.method.masks import center_mask, composite, weight_map
from cgi_helpers.method.models import Classifier, Discriminator, Encoder, Generator
from cgi_helpers.method.refine import refine
from cgi_helpers.method.runtime import draw_z, generator, last
from cgi_helpers.pipeline import evaluation as rows
from cgi_helpers.pipeline.presets import Family, get_preset
from cgi_helpers.study import evaluation, metrics

from nets import lively

SIZE = 16


def opened(**fields):
    """What the functions under test use of a session."""
    rows = {
        row: dict(layer=1, steps=3, step_size=0.1 if row == "per_image" else 0.3)
        for row in ("report", "best", "per_image")
    }
    preset = get_preset(
        "smoke",
        size=SIZE,
        networks={"z_dim": 5},
        shapings=rows,
        study={"micro_batch": 4},
        searches={"report": {"iterations": 6}, "best": {"iterations": 4}},
    )
    preset = get_preset(preset, **fields)
    return SimpleNamespace(
        preset=preset,
        mask=center_mask(SIZE),
        seed=0,
        device=torch.device("cpu"),
        progress=False,
        whitening=torch.diag(torch.linspace(0.5, 2, 5, dtype=torch.float64)),
    )


def images(n=10):
    return torch.rand(n, 1, SIZE, SIZE, generator=generator("evaluation"), dtype=torch.float64) * 2 - 1


G, D, E, C = (
    lively(net, i)
    for i, net in enumerate(
        (Generator(5, 4, size=SIZE), Discriminator(4, size=SIZE), Encoder(5, 4, size=SIZE), Classifier(4, size=SIZE))
    )
)


# --- completions


def test_the_reports_search_starts_each_image_from_its_own_stream():
    y = images()
    whole = rows.find(opened(), "report", G, None, y, range(10))
    part = rows.find(opened(), "report", G, None, y[4:7], range(4, 7))
    torch.testing.assert_close(part, whole[4:7], rtol=0, atol=1e-9)
    assert not torch.allclose(rows.find(opened(), "report", G, None, y[4:7], range(3)), part)
    start = rows.find(opened(), "report", G, None, y[4:7], range(4, 7), iterations=0)
    expected = torch.stack([draw_z(1, 5, "normal", 0, "search z", i)[0] for i in (4, 5, 6)]).double()
    assert torch.equal(start, expected) or torch.equal(start, expected.clamp(-1, 1))


def test_the_best_search_improves_on_the_encoder():
    y, session = images(), opened(searches={"best": {"iterations": 40, "lr": 0.05}})
    z = rows.find(session, "best", G, E, y, range(10))
    assert torch.equal(rows.find(session, "best", G, E, y, range(10), iterations=0), E(y, session.mask).detach())

    def context(z):
        return context_loss(G(z), y, weight_map(session.mask.double(), session.preset.window))

    assert (context(z) < context(E(y, session.mask))).all()


@pytest.mark.parametrize("row, mode, step_size", [("report", "batch", 0.3), ("per_image", "independent", 0.1)])
def test_collaborate_refines_in_micro_batches_with_the_knobs_of_its_shaping(row, mode, step_size):
    y, z, session = images(), torch.randn(10, 5, generator=generator("z")).double(), opened()
    asked = []
    session.shaped = lambda *what: asked.append(what) or D
    found = rows.collaborate(session, G, Family("best", row), 0.5, z, y)
    assert asked == [(row, 0.5)]
    for part in (slice(0, 4), slice(4, 8), slice(8, 10)):
        state = last(
            refine(
                G,
                D,
                G.to_features(z[part], 1).detach(),
                layer=1,
                steps=3,
                step_size=step_size,
                mode=mode,
                compose=lambda x, part=part: composite(y[part], x, session.mask),
            )
        )
        assert torch.equal(found[part], state["images"])
    known = session.mask.bool().expand_as(y)
    assert torch.equal(found[known], y[known])
    session.preset = get_preset(session.preset, shapings={row: {"steps": 0}})
    torch.testing.assert_close(
        rows.collaborate(session, G, Family("best", row), 0.5, z, y),
        evaluation.semantic(G, z, y, session.mask),
        rtol=0,
        atol=1e-12,
    )


def test_semantic_is_the_overlay_in_any_batches():
    y, z, session = images(), torch.randn(10, 5, generator=generator("z")).double(), opened()
    whole = evaluation.semantic(G, z, y, session.mask)
    torch.testing.assert_close(whole, composite(y, G(z).detach(), session.mask), rtol=0, atol=1e-12)
    torch.testing.assert_close(evaluation.semantic(G, z, y, session.mask, batch=3), whole, rtol=0, atol=1e-12)


# --- scores


def test_score_measures_each_image_by_itself():
    y, session = images(), opened()
    x, labels = composite(y, images().flip(0), session.mask), torch.arange(10)
    s = evaluation.score(x, y, session.mask, C, labels, batch=4)
    assert {k: tuple(v.shape) for k, v in s.items()} == {
        **dict.fromkeys(evaluation.PER_IMAGE, (10,)),
        "features": (10, C.head.in_features),
        "probabilities": (10, 10),
    }
    hole = 1 - session.mask
    for key, expected in (
        ("psnr", metrics.psnr(x, y)),
        ("ssim", metrics.ssim(x, y)),
        ("psnr_hole", metrics.psnr(x, y, hole)),
        ("ssim_hole", metrics.ssim(x, y, hole)),
        ("features", C.features(x)),
        ("probabilities", C(x).softmax(1)),
        ("label_agreement", (C(x).argmax(1) == labels).double()),
    ):
        torch.testing.assert_close(s[key], expected.detach(), rtol=1e-9, atol=1e-12)
    assert (s["psnr_hole"] < s["psnr"]).all() and (s["ssim_hole"] < s["ssim"]).all()
    perfect = evaluation.score(y, y, session.mask, C, C(y).argmax(1))
    assert perfect["label_agreement"].eq(1).all() and perfect["ssim"].min() > 1 - 1e-9


def test_classify_gives_features_in_order_and_the_share_of_right_labels():
    split = Split(
        torch.randint(0, 256, (11, 28, 28), generator=generator("split"), dtype=torch.uint8),
        torch.zeros(11).long(),
        SIZE,
    )
    net = lively(Classifier(4, size=SIZE)).float().train()
    features, _ = evaluation.classify(net, split, batch=4)
    predicted = net(split.batch(slice(None))).argmax(1)
    torch.testing.assert_close(features, net.features(split.batch(slice(None))).detach(), rtol=0, atol=1e-5)
    labels = predicted.clone()
    labels[:3] = (labels[:3] + 1) % 10
    assert evaluation.classify(net, Split(split.images, labels, SIZE), batch=4)[1] == pytest.approx(8 / 11)


# --- tune

FAMILIES = tuple(get_preset("smoke").study.families)
# family -> stage -> (mean PSNR gain, Frechet distance); and what the rule must choose
TABLES = {
    "smallest distance among the harmless": ({0: (0.1, 9), 0.5: (0.0, 5), 1: (-0.01, 2), 2: (0.3, 6)}, "0.5"),
    "all harmless": ({0: (0.1, 9), 0.5: (0.2, 5), 1: (0.1, 2), 2: (0.5, 6)}, "1"),
    "none harmless": ({0: (-0.4, 9), 0.5: (-0.2, 5), 1: (-0.3, 2), 2: (-0.5, 1)}, "0.5"),
}


@pytest.mark.parametrize("case", list(TABLES))
def test_the_rule_of_tune(monkeypatch, case):
    table, expected = TABLES[case]
    session, saved, base = (
        opened(
            shapings={row: {"epochs": tuple(table)} for row in get_preset("smoke").shapings if row != "sampling"},
            study={"validation_images": 4, "families": dict.fromkeys(FAMILIES, {"epochs": tuple(table)})},
        ),
        {},
        {
            "report": 20.0,
            "best": 25.0,
            "unet": 28.0,
            "context_encoder": 26.0,
            "unet_inverted": 27.0,
            "nearest_inverted": 24.0,
        },
    )
    session.data = {"validation": Split(torch.zeros(9, 28, 28, dtype=torch.uint8), torch.zeros(9).long(), SIZE)}
    session.net, session.start_of = (lambda kind: kind), (lambda row, split, n: ("G", row))
    asked = []

    def collaborate(session, G, family, epochs, z, y):
        asked.append((z, family.shaping, family.mode))
        assert len(y) == 4
        return z, epochs

    def score(x, y, mask, C, labels):
        how, stage = x
        gain, distance = (0, 0) if stage is None else table[stage]
        return {
            "psnr": torch.tensor([base[how] + gain - 1, base[how] + gain + 1]),
            "ssim": torch.zeros(2),
            "features": distance,
        }

    for name, value in dict(
        done=lambda *a: False,
        classify=lambda *a: (torch.zeros(9, 3), 1.0),
        collaborate=collaborate,
        score=score,
        semantic=lambda G, z, y, mask: (z, None),
        equal_time_iterations=lambda *a: 7,
        save=lambda session, stage, trees, seconds: saved.update(trees),
    ).items():
        monkeypatch.setattr(rows, name, value)
    monkeypatch.setattr(metrics, "moments", lambda features, counts=None: features)
    monkeypatch.setattr(metrics, "frechet_distance", lambda a, b: float(a))
    rows.tune(session, "tune")
    selection = saved["selection"]
    families = session.preset.study.families
    assert selection["stages"] == dict.fromkeys(families, expected) and selection["equal_time_iterations"] == 7
    assert set(asked) == {(f.search, f.shaping, f.mode) for f in families.values()} and len(asked) == len(table) * len(
        families
    )
    for measured in selection["validation"].values():
        assert {k: (pytest.approx(v["psnr_gain"], abs=1e-5), v["frechet_distance"]) for k, v in measured.items()} == {
            str(k): v for k, v in table.items()
        }


def test_equal_time_is_the_median_ratio_of_measured_times(monkeypatch):
    now, refinements, searches = [0.0], iter((90.0, 3.0, 60.0, 2.0)), iter((1.0, 1.0, 1.0, 1.0))

    def spend(seconds):
        now[0] += next(seconds)

    session = opened(shapings={"best": {"steps": 10}})
    session.data = {"validation": Split(torch.zeros(9, 28, 28, dtype=torch.uint8), torch.zeros(9).long(), SIZE)}
    session.net = lambda kind: D.float()
    monkeypatch.setattr(rows, "collaborate", lambda *a, **k: spend(refinements))
    monkeypatch.setattr(rows, "last", lambda loop: spend(searches))
    monkeypatch.setattr(rows, "clock", lambda device: now[0])
    assert rows.equal_time_iterations(session, G) == 30  # the first, cold measurement is left out
    D.double()


# --- the table

N, WIDTH = 300, 8


def made_up(shift, psnr, agreement, spread, seed):
    """Scores of one row: its PSNR follows the common difficulty of each image."""
    rng, common = np.random.default_rng(seed), np.random.default_rng(0)
    difficulty = common.normal(0, 3, N)
    s = {
        k: torch.from_numpy(scale * (psnr + difficulty + rng.normal(0, 0.3, N)))
        for k, scale in (("psnr", 1), ("ssim", 0.03), ("psnr_hole", 0.8), ("ssim_hole", 0.02))
    }
    s["label_agreement"] = torch.from_numpy((common.random(N) < agreement).astype(float))
    s["features"] = torch.from_numpy(common.normal(0, 1, (N, WIDTH)) + shift)
    s["probabilities"] = torch.softmax(spread * torch.from_numpy(common.normal(0, 1, (N, 10))), 1)
    return s


@pytest.fixture(scope="module")
def summary():
    good, bad = dict(shift=0.2, psnr=24.5, agreement=0.9, spread=3), dict(shift=0.8, psnr=24.0, agreement=0.7, spread=1)
    rows = {
        name: good if name.startswith("collaborative") else bad for pair in evaluation.PAIRS.values() for name in pair
    }
    rows["collaborative_best"] = {**bad, "psnr": 23.0}  # worse than semantic_best in one number, equal in the others
    scores = {name: made_up(**r, seed=i + 1) for i, (name, r) in enumerate(rows.items())}
    reference = torch.from_numpy(np.random.default_rng(9).normal(0, 1, (3000, WIDTH)))
    return scores, reference, evaluation.summarise(scores, reference, 300, seed=2)


def test_means_are_those_of_the_scores(summary):
    scores, reference, table = summary
    assert set(table["methods"]) == set(scores)
    for row, s in scores.items():
        means = {m: v["mean"] for m, v in table["methods"][row].items()}
        assert set(means) == set(evaluation.METRICS)
        for m in evaluation.PER_IMAGE:
            assert means[m] == pytest.approx(s[m].mean().item())
        assert means["frechet_distance"] == pytest.approx(
            metrics.frechet_distance(metrics.moments(s["features"]), metrics.moments(reference))
        )
        assert means["frechet_limit"] == pytest.approx(metrics.frechet_limit(s["features"], reference))
        assert means["inception_score"] == pytest.approx(metrics.inception_score(s["probabilities"]))


def test_gains_are_positive_where_collaborative_is_better(summary):
    _, _, table = summary
    for name, (a, b) in evaluation.PAIRS.items():
        for m in evaluation.METRICS:
            difference = table["methods"][a][m]["mean"] - table["methods"][b][m]["mean"]
            gain = table[name][m]
            assert gain["mean"] == pytest.approx(-difference if m.startswith("frechet") else difference)
            assert gain["ci95"][0] <= gain["mean"] <= gain["ci95"][1]
    for m in evaluation.METRICS:  # a truly better method, hundreds of images: no interval reaches zero
        assert table["paired_gain"][m]["ci95"][0] > 0, m
    assert table["paired_gain_best"]["psnr"]["ci95"][1] < 0
    assert table["paired_gain_best"]["frechet_distance"]["mean"] == pytest.approx(0, abs=1e-9)


def test_paired_intervals_are_narrower(summary):
    _, _, table = summary

    def width(v):
        return v["ci95"][1] - v["ci95"][0]

    for m in ("psnr", "ssim", "label_agreement", "frechet_distance"):
        unpaired = (
            width(table["methods"]["collaborative"][m]) ** 2 + width(table["methods"]["semantic"][m]) ** 2
        ) ** 0.5
        assert width(table["paired_gain"][m]) < 0.8 * unpaired, m
    noise = 2 * 1.96 * (2 * 0.3**2 / N) ** 0.5  # difficulty cancels: only the rows' own noise is left
    assert width(table["paired_gain"]["psnr"]) == pytest.approx(noise, rel=0.15)
    assert width(table["methods"]["semantic"]["psnr"]) == pytest.approx(2 * 1.96 * 3 / N**0.5, rel=0.15)


def test_the_table_depends_on_the_seed_in_its_intervals_only(summary):
    scores, reference, table = summary
    few = {k: {m: v[:40] for m, v in s.items()} for k, s in scores.items()}
    a, b, c = (evaluation.summarise(few, reference, 20, seed=s)["paired_gain"]["psnr"] for s in (1, 1, 2))
    assert a == b and a["mean"] == c["mean"] and a["ci95"] != c["ci95"]


def test_disagreements_take_the_most_telling_images_of_both_kinds():
    first = {"psnr": torch.tensor([20.0, 20, 20, 20]), "label_agreement": torch.tensor([0.0, 0, 1, 1])}
    second = {"psnr": torch.tensor([19.0, 17, 24, 21]), "label_agreement": torch.tensor([1.0, 1, 0, 0])}
    assert rows.disagreements(first, second, count=2).tolist() == [1, 0, 2, 3]
