"""The evaluation: every row of the preset's study completes the same images;
choices on validation images, scores on test images."""

import math
import time

import torch

from ..data.convert import to_bytes
from ..method.fast import Overlay
from ..method.judge import Judge, Term
from ..method.masks import composite
from ..method.refine import record_field, refine_all
from ..method.runtime import clock, draw_z, last
from ..method.search import find_latent
from ..study import metrics
from ..study.evaluation import PAIRS, PER_IMAGE, classify, score, semantic, summarise
from . import parallel
from .plan import starts
from .session import done, save

COMPANIONS = 32  # training images that a field is recorded on while somebody waits (validation: as good as 64)


def find(session, row, G, E, y, index, iterations=None):
    """z-hat (N, z_dim) of images y by this row of the preset's searches;
    noise of image i comes from its own stream `index[i]`."""
    p, s = session.preset, session.preset.searches[row]
    if s.start == "encoder":
        with torch.no_grad():
            z = E(y, session.mask)
    else:
        z = torch.stack([draw_z(1, p.networks.z_dim, "normal", session.seed, "search z", i)[0] for i in index]).to(y)
    loop = find_latent(
        G,
        None,
        y,
        session.mask,
        z=z,
        iterations=s.iterations if iterations is None else iterations,
        lr=s.lr,
        optimiser=s.optimiser,
        window=p.window,
        clip=s.clip,
        whiten=session.whitening if s.whiten else None,
        guess=session.guess(s.guess, y) if s.guess else None,
        guess_weight=s.weight_inside,
    )
    return last(loop)["z"]


def find_all(session, row, y, iterations=None):
    """`find` for any number of images y, the first ones of their split, in the row's micro-batches."""
    s, G = session.preset.searches[row], session.net("generator")
    E = session.net("encoder") if s.start == "encoder" else None
    parts = [range(i, min(i + s.batch, len(y))) for i in range(0, len(y), s.batch)]
    return torch.cat([find(session, row, G, E, y[part.start : part.stop], part, iterations) for part in parts])


def stages_of(preset, family):
    """The epochs of shaping that are rows of a family."""
    return family.epochs or preset.shapings[family.shaping].epochs


def path_of(session, family):
    """The path that a family walks: `layer`, `steps` and `step_size` of `refine`."""
    s = session.preset.shapings[family.shaping]
    steps = family.steps if family.steps is not None else s.steps
    return {"layer": s.layer, "steps": steps, "step_size": family.step_size or s.step_size}


def judge_of(session, family, epochs):
    """The Judge of a family after `epochs` of its shaping, in mode "field" before the field is played: in its company.

    The partner is the D that its row had after the same epochs.
    """
    p, mode = session.preset, family.mode or session.preset.shapings[family.shaping].mode
    terms = [Term(session.shaped(family.shaping, epochs), "batch" if mode == "field" else mode)]
    if family.partner:
        other = session.shaped(family.partner, epochs)
        terms.append(Term(other, p.shapings[family.partner].mode, weight=family.weight))
    return Judge(*terms)


def record(session, family, epochs, mask=None, companions=None):
    """The field of a family, recorded on the first companions of its start's pool, in the preset's hole or `mask`."""
    n, path = companions or family.companions, path_of(session, family)
    (G, z), y = session.start_of(family.search, "pool", n), session.data["train"].batch(slice(0, n), session.device)
    with torch.no_grad():
        h = G.to_features(z[:n], path["layer"])
    compose = Overlay(y, session.mask if mask is None else mask)
    return record_field(G, judge_of(session, family, epochs), h, compose=compose, **path)


def recorded(session, family, epochs):
    """The field that stage `field ROW` wrote; that of a family outside the study is recorded once per session."""
    row = next((name for name, known in session.preset.study.families.items() if known == family), None)
    if row:
        return session.load(f"field_{row}")[0][str(epochs)]
    key = "field", session.fingerprint(f"shape {family.shaping}"), repr(family), epochs
    if key not in session.cache:
        session.cache[key] = record(session, family, epochs)
    return session.cache[key]


def guide(session, family, epochs):
    """(D or a Judge, keyword arguments of `refine`) of a family after `epochs` of its shaping."""
    path, judge = path_of(session, family), judge_of(session, family, epochs)
    if family.mode == "field":
        return judge.played(recorded(session, family, epochs)), path
    if family.partner:
        return judge, path
    return judge.terms[0].D, {**path, "mode": judge.terms[0].mode}


def field(session, stage, fresh=False):
    """Stage `field ROW`: what `guide` plays to single images for a family in mode "field", at each of its epochs."""
    if done(session, stage, fresh):
        return
    began, row = time.time(), session.plan[stage].row
    family = session.preset.study.families[row]
    fields = {str(e): record(session, family, e) for e in stages_of(session.preset, family)}
    save(session, stage, {f"field_{row}": fields}, time.time() - began)


def collaborate(session, G, family, epochs, z, y):
    """Composites (N, C, H, W) of y after collaborative inpainting from latents z, as this family refines.

    If D was shaped without overlay, the whole image is refined and laid under y afterwards (report, IV.B).
    """
    D, options = guide(session, family, epochs)
    overlay = Overlay(y, session.mask) if session.preset.shapings[family.shaping].overlay else None
    images, _ = refine_all(
        G,
        D,
        z,
        batch_size=session.preset.study.micro_batch,
        key=(session.seed, "refine"),
        **({"compose": overlay} if overlay else {}),
        **options,
    )
    return images if overlay else composite(y, images, session.mask)


def validation(session, n=None):
    """(y, labels, reference) of the first n validation images, as far as there are so many (None: as the study says):
    the reference of their distances are the moments of the others."""
    images, C = session.data["validation"], session.net("classifier")
    n = min(n or session.preset.study.validation_images, len(images))
    reference = metrics.moments(classify(C, images, session.device)[0][n:])
    return images.batch(slice(0, n), session.device), images.labels[:n], reference


def gains(after, before, reference):
    """{"psnr_gain", "ssim_gain", "frechet_distance"} of a refinement over its start, both as scores per image."""
    return {
        "psnr_gain": float((after["psnr"] - before["psnr"]).mean()),
        "ssim_gain": float((after["ssim"] - before["ssim"]).mean()),
        "frechet_distance": metrics.frechet_distance(metrics.moments(after["features"]), reference),
    }


def merit(found):
    """What `gains` are worth, larger is better: no loss of PSNR, then the smallest distance; else the least loss."""
    return (1, -found["frechet_distance"]) if found["psnr_gain"] >= 0 else (0, found["psnr_gain"])


def tune(session, stage, fresh=False):
    """Stage `tune`: choose each family's epochs of shaping on validation images; writes `selection.json`.

    Rule: the largest `merit`, distances to the other validation images. Also measures how many search iterations cost
    as much as one refinement (the row `semantic_equal_time`).
    """
    if done(session, stage, fresh):
        return
    began, p, C = time.time(), session.preset, session.net("classifier")
    y, labels, reference = validation(session)
    begin = {row: session.start_of(row, "validation", len(y)) for row in starts(p)}
    base = {row: score(semantic(G, z, y, session.mask), y, session.mask, C, labels) for row, (G, z) in begin.items()}
    table, chosen = {}, {}
    for name, family in p.study.families.items():
        rows, before, (G, z) = {}, base[family.search], begin[family.search]
        for epochs in stages_of(p, family):
            after = score(collaborate(session, G, family, epochs, z, y), y, session.mask, C, labels)
            rows[str(epochs)] = gains(after, before, reference)
            if session.progress:
                print(f"tune {name}_{epochs}: {rows[str(epochs)]}", flush=True)
        chosen[name], table[name] = max(rows, key=lambda epochs: merit(rows[epochs])), rows
    save(
        session,
        stage,
        {
            "selection": {
                "stages": chosen,
                "equal_time_iterations": equal_time_iterations(session, begin["best"][0]),
                "validation": table,
            }
        },
        time.time() - began,
    )


def equal_time_iterations(session, G, repeats=3):
    """Best-search iterations that cost as much as one refinement of the same images, measured in turns (median)."""
    p, s = session.preset, session.preset.searches["best"]
    y = session.data["validation"].batch(slice(0, p.study.micro_batch), session.device)
    z = draw_z(len(y), p.networks.z_dim, p.networks.prior, "equal time", device=session.device)
    steps, family, ratios = p.shapings["best"].steps, p.study.families["collaborative_best"], []
    for _ in range(repeats + 1):
        began = clock(session.device)
        collaborate(session, G, family, 0, z, y)
        middle = clock(session.device)
        last(
            find_latent(
                G,
                None,
                y,
                session.mask,
                z=z,
                iterations=steps,
                optimiser=s.optimiser,
                lr=s.lr,
                whiten=session.whitening if s.whiten else None,
            )
        )
        ratios.append((middle - began) / (clock(session.device) - middle))
    return max(1, round(steps * sorted(ratios[1:])[repeats // 2]))


def longer_search(session, y):
    """z-hat of y by our best search with as many more iterations as refinement takes time."""
    more = session.preset.searches["best"].iterations + session.load("selection")[0]["equal_time_iterations"]
    return find_all(session, "best", y, more)


def bases(preset):
    """{row of the evaluation: the start that it shows, not refined}."""
    names = {"report": "semantic"}
    return {row if row in preset.feedforward else names.get(row, f"semantic_{row}"): row for row in starts(preset)}


def pairs(preset):
    """{paired gain: (family, its start alone)}: those of every preset, and one for each further family."""
    base = {start: row for row, start in bases(preset).items()}
    known = {family for family, _ in PAIRS.values()}
    more = {name: base[family.search] for name, family in preset.study.families.items() if name not in known}
    return {
        **PAIRS,
        **{f"paired_gain_{name.removeprefix('collaborative_')}": (name, row) for name, row in more.items()},
    }


def row_names(session):
    """The rows of the evaluation: starts alone,
    then families by D as trained (0) and at the epochs chosen on validation.

    Test images are scored for these only: how a family changes along shaping was seen on validation images.
    """
    rows = [*bases(session.preset), "semantic_equal_time"]
    for name, chosen in session.load("selection")[0]["stages"].items():
        family = session.preset.study.families[name]
        rows += [
            f"{name}_{epochs}" for epochs in stages_of(session.preset, family) if epochs == 0 or str(epochs) == chosen
        ]
    return rows


def complete(session, row, begin, y):
    """Composites of images y by a row of the evaluation; begin = {start: (G, latents of y)}, see `Session.start_of`."""
    if row == "semantic_equal_time":
        G, _ = begin["best"]
        return semantic(G, longer_search(session, y), y, session.mask)
    if row in bases(session.preset):
        return semantic(*begin[bases(session.preset)[row]], y, session.mask)
    name, _, stage = row.rpartition("_")
    family = session.preset.study.families[name]
    epochs = next(e for e in stages_of(session.preset, family) if str(e) == stage)
    G, z = begin[family.search]
    return collaborate(session, G, family, epochs, z, y)


def block(preset):
    """Images of one piece of the evaluation: about 500, whole micro-batches of the refinement and of the search."""
    whole = math.lcm(preset.study.micro_batch, preset.searches["best"].batch)
    return whole * max(1, 512 // whole)


def disagreements(first, second, count=3):
    """Images where PSNR and label agreement disagree: `count` recognised only in `second` at the lowest PSNR gains,
    then `count` only in `first` at the highest. first, second: scores per image."""
    gain, turn = second["psnr"] - first["psnr"], second["label_agreement"] - first["label_agreement"]
    return torch.cat([(turn.clamp(min=0) * gain).argsort()[:count], (turn.clamp(max=0) * gain).argsort()[:count]])


def evaluate(session, stage, fresh=False):
    """Stage `evaluate`: score every row on the test images once;
    `evaluation` (per image) and `metrics` (means, intervals).

    Stored images are those that notebook 06 shows (`disagreements`). Distances are taken to the validation images: the
    reference shares no image with what is judged, whatever the number of test images.
    """
    if done(session, stage, fresh):
        return
    p = session.preset
    n = min(p.study.test_images, len(session.data["test"]))
    images, C = session.data["test"], session.net("classifier")
    y, labels = images.batch(slice(0, n), session.device), images.labels[:n]
    begin = {row: session.start_of(row, "test", n) for row in starts(p)}
    rows, size = row_names(session), block(p)
    work = [(row, slice(i, min(i + size, n))) for row in rows for i in range(0, n, size)]

    def compute(item):
        row, part = item
        x = complete(session, row, {start: (G, z[part]) for start, (G, z) in begin.items()}, y[part])
        return {**score(x, y[part], session.mask, C, labels[part]), "images": to_bytes(x)}

    pieces = parallel.Pieces(session, stage, fresh, work)
    found = pieces.run(compute)
    if not found:
        return
    trees, metas = found
    scores = {
        name: {k: torch.cat([t[k] for (row, _), t in zip(work, trees) if row == name]) for k in trees[0]}
        for name in rows
    }
    chosen = {name: f"{name}_{epochs}" for name, epochs in session.load("selection")[0]["stages"].items()}
    reference = classify(C, session.data["validation"], session.device)[0]
    table = summarise(scores, reference, p.study.resamples, session.seed, chosen, pairs(p))
    originals = score(y, y, session.mask, C, labels)
    table["floor"] = {
        "frechet_distance": metrics.frechet_distance(
            metrics.moments(originals["features"]), metrics.moments(reference)
        ),
        "frechet_limit": metrics.frechet_limit(originals["features"], reference),
        "label_agreement": float(originals["label_agreement"].mean()),
        "inception_score": metrics.inception_score(originals["probabilities"]),
    }
    table["selected_stages"] = session.load("selection")[0]["stages"]
    pair = scores["semantic"], scores[chosen["collaborative"]]
    index = disagreements(*pair)
    shown = {"index": index, "semantic": pair[0]["images"][index], "collaborative": pair[1]["images"][index]}
    kept = {
        row: {**{k: s[k].float() for k in PER_IMAGE}, "label": s["probabilities"].argmax(1).short()}
        for row, s in scores.items()
    }
    save(
        session,
        stage,
        {"evaluation": {"rows": kept, "shown": shown}, "metrics": table},
        sum(m["seconds"] for m in metas),
        images=n,
    )
    pieces.remove()
