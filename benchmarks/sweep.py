"""Sweeps on validation images behind the numbers that a preset carries;
every try is written to `results/sweep_PRESET.json`.

    python benchmarks/sweep.py gan mnist average=0.999 r1=1.0
        one more variant of the GAN's training, judged by its samples
    python benchmarks/sweep.py shape mnist best step_size=0.004
        one more variant of a row of the shapings, shaped and judged
    python benchmarks/sweep.py refine laptop collaborative_field companions=64 steps=40 step_size=0.004
        a variant of a family
    python benchmarks/sweep.py pick mnist
        what the rule of `tune` chooses among what was tried so far

A variant lies beside the preset in `artifacts/PRESET~VARIANT/`, with what it shares linked; a chosen one is copied into
`artifacts/PRESET/`, where it fits once the preset carries the same values.
"""

import argparse
import json
import os
import shutil
import time
from dataclasses import replace
from pathlib import Path

import torch

from cgi_helpers.method.runtime import draw_z, pick_device
from cgi_helpers.pipeline.evaluation import collaborate, find_all, gains, merit, stages_of, validation
from cgi_helpers.pipeline.presets import changed, get_preset
from cgi_helpers.pipeline.session import Session
from cgi_helpers.pipeline.stages import run
from cgi_helpers.study import metrics
from cgi_helpers.study.evaluation import classify, score, semantic

RESULTS = Path(__file__).resolve().parent / "results"
SAMPLES = 5_000  # of a generator, against all validation images


def command(doc, kind, run):
    """`PRESET [--device D] [--out FILE]` from the command line: run(session, Path of `results/KIND_PRESET.json`)."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("preset")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--out", help=f"JSON file; default: results/{kind}_PRESET.json")
    o = parser.parse_args()
    session = Session(get_preset(o.preset), device=pick_device(o.device), progress=False)
    run(session, Path(o.out or RESULTS / f"{kind}_{o.preset}.json"))


def carried(preset):
    """The preset with the choices that were made beside it (`choices.json`,
    before they are written into presets.py)."""
    path = Session(preset).store.own / "choices.json"
    return changed(preset, json.loads(path.read_text())) if path.exists() else preset


def variant(session, tag, changes):
    """A session with `changes` in a folder of its own,
    where every artifact of `session` is linked that it could share."""
    other = Session(
        replace(changed(session.preset, changes), name=f"{session.preset.name}~{tag}"),
        device=session.device,
        progress=False,
    )
    other.store.own.mkdir(parents=True, exist_ok=True)
    for folder in (session.store.shipped, session.store.own):
        for path in folder.glob("*.*") if folder.exists() else ():
            link = other.store.own / path.name
            if path.suffix in (".safetensors", ".json") and ".partial" not in path.name and not link.is_file():
                link.unlink(missing_ok=True)
                link.symlink_to(path.resolve())
    return other


def write(session, kind, tag, found):
    """One try, as a file of its own, so that many may run at a time; `pick` collects them."""
    folder = session.store.own.parent / "sweeps" / session.preset.name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{kind} {tag}.json").write_text(json.dumps(found, indent=1) + "\n")
    print(session.preset.name, kind, tag, json.dumps(found), flush=True)


def tried(session):
    """{kind: {tag: what was found}} of every try so far."""
    result = {}
    for path in sorted((session.store.own.parent / "sweeps" / session.preset.name).glob("*.json")):
        kind, _, tag = path.stem.partition(" ")
        result.setdefault(kind, {})[tag] = json.loads(path.read_text())
    return result


def sweep_gan(session, tag, changes):
    """Train a variant of the GAN and measure its samples in the classifier's features."""
    began, fields = time.time(), {"training": {}, "networks": {}}
    for key, value in changes.items():
        fields["networks" if hasattr(session.preset.networks, key) else "training"][key] = value
    other = variant(session, f"gan,{tag}", fields)
    run(other, "train")
    G, C, n = other.net("generator"), session.net("classifier"), session.preset.networks
    with torch.no_grad():
        z = draw_z(SAMPLES, n.z_dim, n.prior, "sweep", device=session.device)
        features = torch.cat([C.features(G(part)).cpu() for part in z.split(500)])
    reference = classify(C, session.data["validation"], session.device)[0]
    found = {"changes": fields, "seconds": round(time.time() - began, 1)}
    found["frechet_distance"] = metrics.frechet_distance(metrics.moments(features), metrics.moments(reference))
    write(session, "gan", tag, found)


def noted(after, before, reference):
    """`gains` of a refinement over its start, both as scores per image, with half of their 95 % interval in PSNR."""
    gain = after["psnr"] - before["psnr"]
    numbers = {**gains(after, before, reference), "half_interval": 1.96 * float(gain.std()) / len(gain) ** 0.5}
    return {key: round(value, 4) for key, value in numbers.items()}


def judged(session, family, n=None):
    """{epochs: `gains` of the family over its start on n validation images, with half of their interval, and "before",
    the distance of the start}."""
    (y, labels, reference), C = validation(session, n), session.net("classifier")
    G, z = session.start_of(family.search, "validation", len(y))
    z = z if len(z) == len(y) else find_all(session, family.search, y)  # more of them than the preset encodes
    before = score(semantic(G, z, y, session.mask), y, session.mask, C, labels)
    start, found = metrics.frechet_distance(metrics.moments(before["features"]), reference), {}
    for epochs in stages_of(session.preset, family):
        after = score(collaborate(session, G, family, epochs, z, y), y, session.mask, C, labels)
        found[str(epochs)] = {**noted(after, before, reference), "before": round(start, 4)}
    return found


def sweep_shape(session, row, tag, changes):
    """Shape by a variant of a row and judge it after every snapshot."""
    began = time.time()
    other = variant(session, f"{row},{tag}", {"shapings": {row: changes}})
    own = other.store.own / f"shaped_{row}.safetensors"
    if own.is_symlink():
        own.unlink()
    run(other, f"shape {row}")
    name, family = next((n, f) for n, f in other.preset.study.families.items() if f.shaping == row)
    family = replace(family, epochs=None)
    if family.mode == "field" and family == other.preset.study.families[name]:  # whose field is read from its file
        run(other, f"field {name}")
    found = judged(other, family)
    write(session, f"shape_{row}", tag, {"changes": changes, "seconds": round(time.time() - began, 1), "epochs": found})


def sweep_refine(session, name, tag, changes, images):
    """Judge a variant of a family with the discriminators that there are."""
    began = time.time()
    family = replace(session.preset.study.families[name], **changes)
    found = judged(session, family, images)
    write(
        session, f"refine_{name}", tag, {"changes": changes, "seconds": round(time.time() - began, 1), "epochs": found}
    )


def pick(session):
    """Choose among what was tried, copy the chosen artifacts into the preset's folder,
    write `choices.json` and the results."""
    found, choices = tried(session), {}
    for kind, tries in found.items():
        if kind == "gan":
            tag = min(tries, key=lambda t: tries[t]["frechet_distance"])
            choices.update(tries[tag]["changes"])
            names = ("generator", "discriminator", "history")
        elif kind.startswith("shape_"):
            tag = max(tries, key=lambda t: max(map(merit, tries[t]["epochs"].values())))
            row = kind.removeprefix("shape_")
            choices.setdefault("shapings", {})[row] = tries[tag]["changes"]
            names = (f"shaped_{row}",)
        else:
            continue
        for name in names:
            source = (
                session.store.own.parent
                / f"{session.preset.name}~{kind.removeprefix('shape_')},{tag}"
                / f"{name}.safetensors"
            )
            shutil.copyfile(source, session.store.own / f"{name}.safetensors")
        print(session.preset.name, kind, "->", tag, flush=True)
    (session.store.own / "choices.json").write_text(json.dumps(choices, indent=1) + "\n")
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"sweep_{session.preset.name}.json").write_text(
        json.dumps({"tried": found, "chosen": choices}, indent=1) + "\n"
    )


def main():
    """One command of those at the top."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("gan", "shape", "refine", "pick"))
    parser.add_argument("preset")
    parser.add_argument("rest", nargs="*", help="the row, if the sweep has one, and field=value")
    parser.add_argument("--device", default="auto")
    parser.add_argument(
        "--images", type=int, default=2_000, help="validation images that a variant of a family is judged on"
    )
    args = parser.parse_args()
    rows, fields = ([a for a in args.rest if ("=" in a) == wanted] for wanted in (False, True))
    changes = {key: json.loads(value) for key, _, value in (f.partition("=") for f in fields)}
    tag = ",".join(fields) or "as is"
    session = Session(carried(get_preset(args.preset)), device=pick_device(args.device), progress=False)
    if args.what == "pick":
        pick(session)
    elif args.what == "gan":
        sweep_gan(session, tag, changes)
    elif args.what == "shape":
        sweep_shape(session, rows[0], tag, changes)
    else:
        sweep_refine(session, rows[0], tag, changes, args.images)


if __name__ == "__main__":
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    main()
