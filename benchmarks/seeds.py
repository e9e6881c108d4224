"""`python benchmarks/seeds.py PRESET --gans 0,1,2 --shapings 0,1,2`: what another training changes; writes
`results/seeds_PRESET.json`, which notebook 09 reads.

A GAN seed trains generator, discriminator, encoder and U-Net anew, a shaping seed takes the images of the shaping in
another order. Judges are those of seed 0 and images the first test images, as on the report card. Resumable: stages lie
in `artifacts/PRESET~seeds/`, and a run whose scores are in the file is not made again.
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path

from sweep import RESULTS, variant

from cgi_helpers.method.runtime import pick_device
from cgi_helpers.pipeline.artifacts import write_json
from cgi_helpers.pipeline.evaluation import collaborate
from cgi_helpers.pipeline.presets import get_preset
from cgi_helpers.pipeline.session import Session
from cgi_helpers.pipeline.stages import run
from cgi_helpers.study import judges, metrics
from cgi_helpers.study.evaluation import semantic

# rows that are not refined, and what is refined from them
STARTS = {"semantic_best": "best", "unet": "unet", "semantic_unet_inverted": "unet_inverted"}
REFINED = ("collaborative_best", "collaborative_field", "collaborative_unet", "collaborative_unet_inverted")


def rows_of(preset, chosen, shapings):
    """({row of the shapings: Shaping}, {(name, shaping seed): Family}): every row of REFINED that the preset has,
    once per shaping seed, after as many epochs as `chosen` {name: epochs} says."""
    anew, families = {}, {}
    for name in (name for name in REFINED if name in preset.study.families):
        family = preset.study.families[name]
        for seed in shapings:
            row, shaping = f"{family.search}_{seed}", preset.shapings[family.shaping]
            epochs = next(e for e in shaping.epochs if str(e) == chosen[name])
            kept = anew.get(row, replace(shaping, epochs=(0,), seed=seed)).epochs
            anew[row] = replace(shaping, epochs=tuple(sorted({*kept, epochs})), seed=seed)
            families[name, seed] = replace(family, shaping=row, epochs=(epochs,), companions=64)
    return anew, families


def measured(session, judge, complete, n):
    """Means over the first n test images of what the report card shows, of completions `complete(split, n)`; judge:
    the session whose two classifiers judge."""
    C, p = (judge.net("classifier"), judge.net("judge")), session.preset
    y = session.data["test"].batch(slice(0, n), session.device)
    real = session.data["validation"].batch(slice(0, p.study.validation_images), session.device)
    reference = judge.cache.setdefault(
        "reference", judges.recognise(session.data["validation"].batch(slice(None), session.device), C)
    )
    x, fake = complete("test", n), complete("validation", len(real))
    card = judges.score_card(x, y, session.mask, C)
    D = judges.train_detector(real, fake, iterations=p.study.detector_iterations, seed=session.seed)
    found = {k: card[k].mean() for k in ("psnr", "ssim", "seam")}
    found["frechet_distance"] = metrics.frechet_limit(card["features"], reference["features"])
    found["kernel_distance_2"] = metrics.kernel_distance(card["features_2"], reference["features_2"])
    found["detectability"] = judges.detectability(D, y, x).mean()
    return {k: round(float(v), 5) for k, v in found.items()}


def run_seeds(name, gans, shapings, out, device):
    """Every row of every GAN seed and shaping seed; `out`: the JSON file."""
    judge = Session(get_preset(name), device=device, progress=False)
    preset, n = judge.preset, judge.preset.study.card_images
    anew, families = rows_of(preset, judge.load("selection")[0]["stages"], shapings)
    result = json.loads(out.read_text()) if out.exists() else {"preset": name, "images": n, "runs": []}
    for gan in gans:
        changes = {"shapings": anew, "study": {"families": {f"{k}_{s}": f for (k, s), f in families.items()}}}
        # seed 0 is the shipped one: `variant` links what it has
        session = variant(judge, "seeds", changes)
        if gan:
            session = Session(session.preset, gan, judge.device, progress=False)
        begun = {family.search for family in families.values()}
        todo = {(row, None): start for row, start in STARTS.items() if start in begun} | families
        there = {(r["row"], r["shaping"]) for r in result["runs"] if r["gan"] == gan}
        for (row, shaping), what in todo.items():
            if (row, shaping) in there:
                continue
            start = what if shaping is None else what.search
            search = session.preset.searches.get(start)
            net = search.guess if search else start
            stages = ["train", *((f"fit {net}",) if net else ()), *(("encoder", f"encode {start}") if search else ())]
            if shaping is not None:
                stages += [f"shape {what.shaping}", *([f"field {row}_{shaping}"] if what.mode == "field" else [])]
            for stage in stages:
                run(session, stage)

            def complete(split, count, what=what, shaping=shaping, start=start):
                G, z = session.start_of(start, split, count)
                y = session.data[split].batch(slice(0, count), session.device)
                if shaping is None:
                    return semantic(G, z, y, session.mask)
                return collaborate(session, G, what, what.epochs[0], z, y)

            found = measured(session, judge, complete, n)
            result["runs"].append({"gan": gan, "shaping": shaping, "row": row, **found})
            print(name, gan, shaping, row, found, flush=True)
            write_json(out, result)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("preset")
    parser.add_argument("--gans", default="0,1,2", help="seeds of the GAN, with commas")
    parser.add_argument("--shapings", default="0,1,2", help="seeds of the shaping, with commas")
    parser.add_argument("--out", help="JSON file; default: results/seeds_PRESET.json")
    parser.add_argument("--device", default="auto")
    o = parser.parse_args()
    gans, shapings = ([int(seed) for seed in seeds.split(",")] for seeds in (o.gans, o.shapings))
    run_seeds(
        o.preset,
        gans,
        shapings,
        Path(o.out or RESULTS / f"seeds_{o.preset}.json"),
        pick_device(o.device),
    )
