"""`python benchmarks/all_images.py PRESET`: the rows that take seconds per thousand images, over *all* test images;
writes `results/all_images_PRESET.json`.

The evaluation scores the first `test_images` of them, because the report's search takes hours for 10,000. Here the
starts of our own rows are found for every test image, and each row is scored by both classifiers: means with half of
their 95 % interval, distances, and paired gains over the row's start. Resumable: a row that is in the file is not made
again.
"""

import json
from functools import partial

import torch
from sweep import command

from cgi_helpers.method.feedforward import Pool
from cgi_helpers.pipeline.artifacts import write_json
from cgi_helpers.pipeline.card import CHOOSE_ON
from cgi_helpers.pipeline.evaluation import bases, collaborate, find_all
from cgi_helpers.study import judges, metrics, rivals
from cgi_helpers.study.evaluation import semantic

RIVALS = ("mean", "ridge", "telea", "nearest_neighbour")
BATCH = 1_000  # images completed and scored at a time


def parts(n):
    """The slices of n images, BATCH at a time."""
    return [slice(i, min(i + BATCH, n)) for i in range(0, n, BATCH)]


def starts(session, cache, search, y):
    """(G, latents of y) of a row of the searches or of a feed-forward net; latents are kept, see `cache`."""
    if search in session.preset.feedforward:
        images = session.data["test"]
        return session.start_of(search, "test", 1)[0], Pool(images, session.device)
    if search not in cache:
        cache[search] = find_all(session, search, y)
    return session.net("generator"), cache[search]


def rows_of(session):
    """{row: (row it is compared with or None, function (cache, y) -> composites)}, what is compared with first."""
    p, rows = session.preset, {}
    chosen = session.load("selection")[0]["stages"]
    names = {start: row for row, start in bases(p).items()}
    for name in (name for name in RIVALS if name in p.study.rivals):
        rows[name] = (None, partial(by_rival, session, name))
    families = {k: f for k, f in p.study.families.items() if f.mode == "field" and f.search != "report"}
    for search in dict.fromkeys(f.search for f in families.values()):
        rows[names[search]] = (None, partial(by_start, session, search))
    for name, family in families.items():
        epochs = next(e for e in family.epochs if str(e) == chosen[name])
        rows[name] = (names[family.search], partial(refined, session, family, epochs))
    return rows


def by_rival(session, name, cache, y):
    """Composites of a row of `rivals`."""
    validation = session.data["validation"].batch(slice(0, CHOOSE_ON), session.device)
    method = rivals.fit(name, session.data["train"], session.mask, validation)
    return torch.cat([method(part, session.mask) for part in y.split(BATCH)])


def by_start(session, search, cache, y):
    """Composites of a start alone."""
    G, z = starts(session, cache, search, y)
    return torch.cat([semantic(G, z[part], y[part], session.mask) for part in parts(len(y))])


def refined(session, family, epochs, cache, y):
    """Composites of a start after refinement in the recorded field."""
    G, z = starts(session, cache, family.search, y)
    return torch.cat([collaborate(session, G, family, epochs, z[part], y[part]) for part in parts(len(y))])


def meaned(values):
    """{"mean", "half_interval"}: half of the 95 % interval of the mean."""
    return {
        "mean": round(float(values.mean()), 5),
        "half_interval": round(1.96 * float(values.std()) / len(values) ** 0.5, 5),
    }


def distances(scores, reference):
    """Frechet distances to `reference` in the features of both classifiers, and the first one's extrapolated."""
    found = {"frechet_limit": metrics.frechet_limit(scores["features"], reference["features"])}
    for key in ("features", "features_2"):
        name = key.replace("features", "frechet_distance")
        found[name] = metrics.frechet_distance(metrics.moments(scores[key]), metrics.moments(reference[key]))
    return found


def measured(scores, before, reference):
    """What is stored of a row: means with half of their 95 % interval, distances, paired gains over `before`."""
    found = {}
    for key in ("psnr", "ssim", "label_agreement", "label_agreement_2"):
        found[key] = meaned(scores[key])
        if before is not None:
            found[f"{key}_gain"] = meaned(scores[key] - before[key])
    return found | distances(scores, reference)


def run_all(session, out, images=None):
    """Every row that `out`, the JSON file, does not have yet, over the first `images` test images (None: all)."""
    C, cache, kept = (session.net("classifier"), session.net("judge")), {}, {}
    split = session.data["test"] if images is None else session.data["test"].first(images)
    y = split.batch(slice(None), session.device)
    reference = judges.recognise(session.data["validation"].batch(slice(None), session.device), C)
    found = json.loads(out.read_text()) if out.exists() else {"preset": session.preset.name, "rows": {}}
    found["images"], rows = len(y), rows_of(session)
    wanted = {base for row, (base, _) in rows.items() if row not in found["rows"]} - {None}
    for row, (base, make) in rows.items():
        if row in found["rows"] and row not in wanted:
            continue
        x = make(cache, y)
        scored = [judges.score_card(x[p], y[p], session.mask, C, split.labels[p]) for p in parts(len(y))]
        scores = {k: torch.cat([s[k] for s in scored]) for k in scored[0] if k != "images" and scored[0][k].ndim}
        kept |= {row: scores} if row in wanted else {}
        found["rows"][row] = {"over": base, **measured(scores, kept.get(base), reference)}
        print(session.preset.name, row, {k: v for k, v in found["rows"][row].items() if "_2" not in k}, flush=True)
        write_json(out, found)
    found["originals"] = distances(judges.recognise(y, C), reference)
    write_json(out, found)
    return found


if __name__ == "__main__":
    command(__doc__, "all_images", run_all)
