"""Complete images by every method, score them per image, choose on validation images, report on test images."""

import math
import time

import torch

from . import parallel
from ..study import metrics
from ..method.masks import composite
from ..method.refine import Overlay, refine_all
from ..method.runtime import clock, draw_z, last
from ..method.search import find_latent
from .session import done, save

# family of rows -> (start of the refinement, discriminator mode, artifact of its shaped discriminators)
FAMILIES = {
    "collaborative": ("report", "batch", "inpainting"),
    "collaborative_best": ("best", "batch", "inpainting_best"),
    "collaborative_independent": ("report", "independent", "independent"),
    "collaborative_independent_best": ("best", "independent", "independent"),
}
PER_IMAGE = ("psnr", "ssim", "psnr_hole", "ssim_hole", "label_agreement")
METRICS = PER_IMAGE + ("frechet_distance", "inception_score")
SMALLER_IS_BETTER = ("frechet_distance",)
DISTANCE_RESAMPLES = 100  # of the bootstrap for distances and scores: each costs an eigendecomposition


def report_search(session, G, y, rows, iterations=None):
    """Encodings of images y by the report's recipe: Nesterov from a random start; row i starts from its own stream."""
    p = session.preset
    starts = torch.stack([draw_z(1, p.z_dim, "normal", session.seed, "search z", i)[0] for i in rows]).to(y)
    return last(find_latent(G, None, y, session.mask, z=starts, iterations=p.report_iterations if iterations is None else iterations,
                            lr=p.report_lr, window=p.window, clip=p.report_clip))["z"]


def best_search(session, G, E, y, iterations=None):
    """Encodings of images y by our best search: the encoder's answer, then whitened Adam."""
    p = session.preset
    with torch.no_grad():
        z = E(y, session.mask)
    return last(find_latent(G, None, y, session.mask, z=z, iterations=p.best_iterations if iterations is None else iterations,
                            optimiser="adam", lr=p.best_lr, window=p.window, whiten=session.whitening))["z"]


def collaborate(session, G, D, z, y, mode, steps=None):
    """Composites (N, C, H, W) after collaborative inpainting of y from latents z with the preset's knobs."""
    p = session.preset
    images, _ = refine_all(G, D, z, layer=p.layer, steps=p.refine_steps if steps is None else steps, mode=mode,
                           step_size=p.step_size if mode == "batch" else p.step_size_independent, batch_size=p.micro_batch,
                           compose=Overlay(y, session.mask), key=(session.seed, "refine"))
    return images


def semantic(session, G, z, y, batch=500):
    """Composites of semantic inpainting: the hole from G(z), the rest from y."""
    with torch.no_grad():
        x = torch.cat([G(z[i:i + batch]) for i in range(0, len(z), batch)])
    return composite(y, x, session.mask)


def classify(C, images, device="cpu", batch=500):
    """(features (N, 128), accuracy) of a classifier on a `data.Split`."""
    C.eval()
    with torch.no_grad():
        f = torch.cat([C.features(images.batch(slice(i, i + batch), device)) for i in range(0, len(images), batch)])
        right = (C.head(f).argmax(1).cpu() == images.labels).double().mean()
    return f.cpu(), float(right)


def score(x, y, mask, C, labels, batch=500):
    """Everything measured on one method's composites: {metric: (N,)} plus "features" (N, 128), "probabilities" (N, 10)."""
    out = []
    with torch.no_grad():
        for i in range(0, len(x), batch):
            a, b = x[i:i + batch], y[i:i + batch]
            f = C.features(a)
            p = C.head(f).softmax(1)
            hit = p.argmax(1).cpu() == labels[i:i + batch]
            out.append({"psnr": metrics.psnr(a, b), "ssim": metrics.ssim(a, b), "psnr_hole": metrics.psnr(a, b, 1 - mask),
                        "ssim_hole": metrics.ssim(a, b, 1 - mask), "label_agreement": hit.double(),
                        "features": f, "probabilities": p})
    return {k: torch.cat([o[k] for o in out]).cpu() for k in out[0]}


def tune(session, fresh=False):
    """Stage `tune`: choose each family's shaping stage on validation images; writes `selection.json`.

    Rule: among the stages whose mean PSNR gain over semantic inpainting from the same start is not negative, the
    smallest Frechet distance to the other validation images; if there is none, the largest PSNR gain. Also measures
    how many search iterations cost as much as one refinement (the row `semantic_equal_time`).
    """
    if done(session, "tune", fresh):
        return
    began, p = time.time(), session.preset
    G, C = session.net("generator"), session.net("classifier")
    images, n = session.data["validation"], min(p.validation_images, len(session.data["validation"]))
    y, labels = images.batch(slice(0, n), session.device), images.labels[:n]
    reference = metrics.moments(classify(C, images, session.device)[0][n:])
    z = {how: session.encodings("validation", how) for how in ("report", "best")}
    base = {how: score(semantic(session, G, z[how], y), y, session.mask, C, labels) for how in z}
    table, chosen = {}, {}
    for family, (how, mode, kind) in FAMILIES.items():
        rows = {}
        for stage in p.shape_stages:
            s = score(collaborate(session, G, session.shaped(kind, stage), z[how], y, mode), y, session.mask, C, labels)
            rows[str(stage)] = {"psnr_gain": float((s["psnr"] - base[how]["psnr"]).mean()),
                                "ssim_gain": float((s["ssim"] - base[how]["ssim"]).mean()),
                                "frechet_distance": metrics.frechet_distance(metrics.moments(s["features"]), reference)}
            if session.progress:
                print(f"tune {family}_{stage}: {rows[str(stage)]}", flush=True)
        harmless = [k for k, r in rows.items() if r["psnr_gain"] >= 0]
        chosen[family] = (min(harmless, key=lambda k: rows[k]["frechet_distance"]) if harmless
                          else max(rows, key=lambda k: rows[k]["psnr_gain"]))
        table[family] = rows
    save(session, "tune", {"selection": {"stages": chosen, "equal_time_iterations": equal_time_iterations(session, G),
                                         "validation": table}}, time.time() - began)


def equal_time_iterations(session, G, repeats=3):
    """Search iterations that cost as much as one refinement of the same images, measured in turns (median)."""
    p = session.preset
    y = session.data["validation"].batch(slice(0, p.micro_batch), session.device)
    z = draw_z(len(y), p.z_dim, p.prior, "equal time", device=session.device)
    D, ratios = session.net("discriminator"), []
    for _ in range(repeats + 1):
        began = clock(session.device)
        collaborate(session, G, D, z, y, "batch")
        middle = clock(session.device)
        last(find_latent(G, None, y, session.mask, z=z, iterations=p.refine_steps, optimiser="adam", lr=p.best_lr, whiten=session.whitening))
        ratios.append((middle - began) / (clock(session.device) - middle))
    return max(1, round(p.refine_steps * sorted(ratios[1:])[repeats // 2]))


def rows_of(session):
    """Row name -> function(G, z, y) that completes the test images; the whole table of the evaluation."""
    p = session.preset
    selection = session.load("selection")[0]
    rows = {"semantic": lambda G, z, y: semantic(session, G, z["report"], y),
            "semantic_best": lambda G, z, y: semantic(session, G, z["best"], y),
            "semantic_equal_time": lambda G, z, y: semantic(session, G, longer_search(session, G, y, selection), y)}
    for family, (how, mode, kind) in FAMILIES.items():
        for stage in p.shape_stages:
            rows[f"{family}_{stage}"] = (lambda G, z, y, how=how, mode=mode, kind=kind, stage=stage:
                                         collaborate(session, G, session.shaped(kind, stage), z[how], y, mode))
    return rows


def longer_search(session, G, y, selection):
    """Best search with as many more iterations as refinement takes time."""
    p, E = session.preset, session.net("encoder")
    return torch.cat([best_search(session, G, E, y[i:i + p.search_batch], iterations=p.best_iterations + selection["equal_time_iterations"])
                      for i in range(0, len(y), p.search_batch)])


def block(preset):
    """Images of one piece of the evaluation: about 500, whole micro-batches of the refinement and of the search."""
    whole = math.lcm(preset.micro_batch, preset.search_batch)
    return whole * max(1, 512 // whole)


def evaluate(session, fresh=False):
    """Stage `evaluate`: score every row on the test images once; `evaluation` (per image) and `metrics` (means, intervals)."""
    if done(session, "evaluate", fresh):
        return
    p = session.preset
    n = min(p.test_images, len(session.data["test"]))
    G, C = session.net("generator"), session.net("classifier")
    images = session.data["test"]
    y, labels = images.batch(slice(0, n), session.device), images.labels[:n]
    z = {how: session.encodings("test", how) for how in ("report", "best")}
    rows = rows_of(session)
    work = [(name, slice(i, min(i + size, n))) for name in rows for size in [block(p)] for i in range(0, n, size)]

    def compute(item):
        name, part = item
        x = rows[name](G, {how: z[how][part] for how in z}, y[part])
        return {**score(x, y[part], session.mask, C, labels[part]), "images": ((x + 1) * 127.5).round().byte().cpu()}

    pieces = parallel.Pieces(session, "evaluate", fresh, work)
    found = pieces.run(compute)
    if not found:
        return
    trees, facts = found
    scores = {name: {k: torch.cat([t[k] for (row, _), t in zip(work, trees) if row == name]) for k in trees[0]} for name in rows}
    seconds, selected = sum(f["seconds"] for f in facts), session.load("selection")[0]["stages"]
    reference = metrics.moments(classify(C, images, session.device)[0][n:])
    floor = metrics.frechet_distance(metrics.moments(score(y, y, session.mask, C, labels)["features"]), reference)
    table = summarise(scores, reference, p.resamples, session.seed, {f: f"{f}_{s}" for f, s in selected.items()})
    table["floor"] = {"frechet_distance": floor}
    table["selected_stages"] = selected
    for row in set(scores) - {"semantic", "semantic_best", "semantic_equal_time", *(f"{f}_{s}" for f, s in selected.items())}:
        del scores[row]["images"]
    keep = {row: {k: v for k, v in s.items() if k != "features"} for row, s in scores.items()}
    save(session, "evaluate", {"evaluation": keep, "metrics": table}, seconds, images=n)
    pieces.remove()


PAIRS = {"paired_gain": ("collaborative", "semantic"), "paired_gain_best": ("collaborative_best", "semantic_best"),
         "paired_gain_equal_time": ("collaborative_best", "semantic_equal_time"),
         "paired_gain_independent": ("collaborative_independent", "semantic"),
         "paired_gain_independent_best": ("collaborative_independent_best", "semantic_best")}


def summarise(scores, reference, resamples, seed=0, aliases=None):
    """{"methods": {row: {metric: V}}, each pair of PAIRS: {metric: V}}, V = {"mean", "ci95"}; gains: positive is better.

    `aliases`: second name -> row, e.g. the chosen stage of a family; computed once.
    """
    counts = metrics.bootstrap_counts(len(next(iter(scores.values()))["psnr"]), resamples, seed)
    estimate, draws = {}, {}
    for row, s in scores.items():
        estimate[row] = {m: float(s[m].double().mean()) for m in PER_IMAGE}
        draws[row] = {m: counts @ s[m].double() / counts.shape[1] for m in PER_IMAGE}
        estimate[row]["frechet_distance"] = metrics.frechet_distance(metrics.moments(s["features"]), reference)
        estimate[row]["inception_score"] = metrics.inception_score(s["probabilities"])
        few = counts[:DISTANCE_RESAMPLES]
        draws[row]["frechet_distance"] = torch.tensor([metrics.frechet_distance(metrics.moments(s["features"], c), reference) for c in few])
        draws[row]["inception_score"] = torch.tensor([metrics.inception_score(s["probabilities"], c) for c in few])
    for name, row in (aliases or {}).items():
        estimate[name], draws[name] = estimate[row], draws[row]
    result = {"methods": {row: {m: metrics.interval(estimate[row][m], draws[row][m]) for m in METRICS} for row in estimate}}
    for name, (a, b) in PAIRS.items():
        sign = {m: -1 if m in SMALLER_IS_BETTER else 1 for m in METRICS}
        result[name] = {m: metrics.interval(sign[m] * (estimate[a][m] - estimate[b][m]), sign[m] * (draws[a][m] - draws[b][m]))
                        for m in METRICS}
    return result
