"""`python benchmarks/samplers.py plane | images`: every sampler before the same judges; writes
`results/samplers_*.json`.

plane: three mixtures, three GAN seeds each, everything trained here. images: Liu et al.'s protocol on MNIST and
Fashion-MNIST, GANs of 1,000 and 5,000 iterations, also trained here unless `--weights` holds them; README.md says how.
"""

import argparse
import copy
import hashlib
import json
import multiprocessing
import time
from concurrent.futures import ProcessPoolExecutor
from functools import lru_cache
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from cgi_helpers import data as data_sets
from cgi_helpers.data import Split, idx
from cgi_helpers.method import plane, samplers
from cgi_helpers.method.models import Classifier, Discriminator, Generator
from cgi_helpers.method.runtime import accelerate, generator, last
from cgi_helpers.method.shape import shape_discriminator
from cgi_helpers.method.train import adam, follow, train_classifier, train_gan
from cgi_helpers.study.metrics import frechet_distance, moments, neighbourhoods
from cgi_helpers.study.planes import calibrated, plane_methods, plane_pair

RESULTS = Path(__file__).resolve().parent / "results"
COUNTS = ("G_calls", "D_calls", "gradients", "acceptance", "restarted", "rises", "lipschitz")
FULL = dict(  # numbers of a run; the test has smaller ones
    width=32,
    snapshots=(1_000, 5_000),
    classifier=2_000,
    samples=50_000,
    checked=5_000,  # samples (and validation images) by which settings are chosen
    near=2_000,
    tuning=500,
    proposals=5_000,  # of rejection's burn-in; of a chain's: one in a hundred
    looks=(100, 200, 400, 700, 1_000, 1_500, 2_000, 3_000, 4_000, 6_000, 8_000),
    steps=None,  # of refinement; None: as the settings say
    images=None,  # of every split; None: all
)
BASE = dict(
    layer=1,
    steps=20,
    step_size=0.1,
    lr=1e-4,
    batch_size=128,
    mode="independent",
    stop="best",
    r1=0.0,
    continued=False,
    average=0.0,
)
GRID = [  # what differs from BASE, most promising first; continued: D's optimiser goes on where the GAN's left it;
    # average: decay of the moving average of D that refines the samples (0: D itself)
    {},
    dict(step_size=0.03),
    dict(stop="probabilistic"),
    dict(mode="batch"),
    dict(layer=2, step_size=0.03),
    dict(step_size=0.3),
    dict(lr=3e-5),
    dict(steps=50, step_size=0.03),
    dict(lr=3e-4),
    dict(layer=2),
    dict(r1=0.1),
    dict(mode="batch", layer=2, step_size=0.03),
    dict(layer=0),
    dict(continued=True),
    dict(mode="batch", step_size=0.3),
    dict(layer=3, step_size=0.01),
    dict(lr=1e-5, stop="probabilistic", batch_size=60),
    dict(layer=1, steps=10, step_size=0.3, lr=5e-4, batch_size=60),
]


def measured(name, run, judge):
    """One row: facts that are numbers, seconds, and what `judge(images)` says."""
    began = time.perf_counter()
    images, facts = run()
    row = {k: round(float(facts[k]), 4) for k in COUNTS if k in facts}
    row = {**row, "seconds": round(time.perf_counter() - began, 1), **judge(images)}
    print(name, row, flush=True)
    return row


def written(facts):
    """The facts of a calibration with lists for tensors and None for empty bins."""
    curves = {
        when: {
            k: v if isinstance(v, float) else [None if x != x else round(x, 4) for x in v.tolist()]
            for k, v in facts[when].items()
        }
        for when in ("before", "after")
    }
    return {**facts, **curves}


def write(path, result):
    """Write a JSON file whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(result, indent=1) + "\n")
    partial.replace(path)


def save(path, tensors):
    """Write a safetensors file whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({k: v.detach().cpu().contiguous() for k, v in tensors.items()}, path.with_suffix(".partial"))
    path.with_suffix(".partial").replace(path)


def run_plane(seeds=3, n=2_000):
    """All methods on all mixtures and seeds."""
    result = {"samples": n, "seeds": seeds, "rows": {}, "calibration": {}}
    for name, truth in plane.TRUTHS.items():
        fresh = plane.mixture(n, generator("test", name), truth)

        def judge(x):
            found = plane.quality(x, truth)
            return {"good": found["good"], "js": found["js"], "energy": plane.energy_distance(x, fresh)}

        rows = result["rows"][name] = {
            "real": [judge(plane.mixture(n, generator("real", s), truth)) for s in range(seeds)]
        }
        for seed in range(seeds):
            G, D, shaped, judged, facts = plane_pair(truth, seed)
            result["calibration"].setdefault(name, []).append(written(facts))
            validation = plane.mixture(500, generator(seed, "validation"), truth)
            for method, run in plane_methods(G, D, shaped, judged, validation).items():
                try:
                    row = measured(f"{name} {seed} {method}", lambda: run(n, key=(seed, "samples")), judge)
                except ValueError as error:
                    row = {"refused": str(error)}
                rows.setdefault(method, []).append(row)
            write(RESULTS / "samplers_plane.json", result)


# Images: networks


class Bench:
    """One data set, its judge and its networks on a device; `folder` keeps what was trained; numbers: as FULL."""

    def __init__(self, data_set, folder, source, device, numbers):
        self.name, self.folder, self.device, self.numbers = data_set, Path(folder) / data_set, device, dict(numbers)
        self.amp = device == "cpu"  # on a GPU nets this small wait for launches, not for arithmetic
        limit = self.numbers["images"]
        if source is None or data_set != "mnist":
            self.split = data_sets.load(data_set, 32, limit=dict.fromkeys(data_sets.SPLITS, limit))
        else:
            self.split = {p: Split(*idx.read(Path(source), p, limit), 32) for p in data_sets.SPLITS}

    def part(self, name, n=None):
        """Images of a split on the device, the first n."""
        split = self.split[name]
        rows = range(0, len(split) if n is None else min(n, len(split)), 1_000)
        return torch.cat([split.batch(slice(i, min(i + 1_000, n or len(split))), self.device) for i in rows])

    def pair(self, seed, iteration):
        """G, D and the state of D's optimiser after `iteration` iterations; trained if the file is missing."""
        path, width = self.folder / f"seed{seed}", self.numbers["width"]
        nets = [Generator(100, width, 1, 32), Discriminator(width, 1, 32)]
        if not (path / f"{iteration}.safetensors").exists():
            torch.manual_seed(seed)
            nets = [Generator(100, width, 1, 32), Discriminator(width, 1, 32)]
            G, D = (accelerate(net, self.device, self.amp) for net in nets)
            stops = self.numbers["snapshots"]
            for step, state in train_gan(
                G, D, self.split["train"], iterations=stops[-1], seed=seed, device=self.device
            ):
                if step in stops:
                    opt = state["optimisers"][1].state_dict()["state"]
                    moving = {f"opt/{i}/{k}": v for i, row in opt.items() for k, v in row.items()}
                    trees = {f"{n}/{k}": v for n, net in (("G", G), ("D", D)) for k, v in net.state_dict().items()}
                    save(path / f"{step}.safetensors", {**trees, **moving})
        tree, opt = load_file(path / f"{iteration}.safetensors"), {}
        for name, net in zip("GD", nets):
            net.load_state_dict({k[2:]: v for k, v in tree.items() if k.startswith(f"{name}/")})
            accelerate(net.eval(), self.device, self.amp)
        for k, v in tree.items():
            if k.startswith("opt/"):
                opt.setdefault(int(k.split("/")[1]), {})[k.split("/")[2]] = v
        return *nets, opt

    @property
    def classifier(self):
        """The judge; trained if its file is missing. Its accuracy on validation images lies beside it."""
        path, C = self.folder / "classifier.safetensors", Classifier(32, 1, 32)
        if not path.exists():
            torch.manual_seed(0)
            C = accelerate(Classifier(32, 1, 32), self.device, self.amp)
            last(train_classifier(C, self.split["train"], iterations=self.numbers["classifier"], device=self.device))
            save(path, C.state_dict())
        C.load_state_dict(load_file(path))
        return accelerate(C.eval(), self.device, amp=False)

    def features(self, x):
        """Classifier's features (N, 128) in passes of 1,000, on the CPU."""
        if not hasattr(self, "_classifier"):
            self._classifier = self.classifier
        with torch.no_grad():
            return torch.cat([self._classifier.features(part).cpu() for part in x.split(1_000)])

    def judge(self, part):
        """Function images -> numbers: distance to all images of a split, neighbourhoods of the first ones."""
        real, near = self.features(self.part(part)), self.numbers["near"]
        there = moments(real)

        def numbers(x, fast=False):
            f = self.features(x)
            found = {"frechet_distance": round(frechet_distance(moments(f), there), 4)}
            if not fast:
                balls = neighbourhoods(f[:near].to(self.device), real[:near].to(self.device))
                found.update({k: round(float(v.mean()), 4) for k, v in balls.items()})
            return found

        return numbers


@lru_cache(4)
def bench(data_set, folder, source, device, numbers):
    """The Bench of this process; numbers: sorted items."""
    torch.set_num_threads(1 if device != "cpu" else torch.get_num_threads())
    torch.backends.cudnn.benchmark = True
    return Bench(data_set, folder, source, device, dict(numbers))


@lru_cache(4)
def chooser(b):
    """`judge` over validation images."""
    return b.judge("validation")


# Images: the sweep


def setting(change, numbers):
    """All options of one setting: BASE with a change."""
    options = {**BASE, **change}
    return options if numbers["steps"] is None else {**options, "steps": numbers["steps"]}


def walk_of(options):
    """What sampling takes from a setting; stopping is by the best step whatever shaping did."""
    return {k: options[k] for k in ("layer", "steps", "step_size", "mode")}


def label(options):
    """A short name for the file of a setting's D."""
    return hashlib.sha256(json.dumps(options, sort_keys=True).encode()).hexdigest()[:12]


def optimiser_of(D, options, opt):
    """Adam for shaping: fresh, or with the moments that the GAN's training left."""
    adam_of_D = adam(D, options["lr"])
    if options["continued"] and opt:
        adam_of_D.load_state_dict({"state": opt, "param_groups": adam_of_D.state_dict()["param_groups"]})
    return (adam_of_D,)


def shaping(b, G, D, opt, seed, options, iterations):
    """Loop that shapes D in place with a setting."""
    names = ("layer", "step_size", "batch_size", "lr", "mode", "stop", "r1")
    return shape_discriminator(
        G,
        D,
        b.split["train"],
        None,
        iterations=iterations,
        refine_steps=options["steps"],
        seed=seed,
        device=b.device,
        optimisers=optimiser_of(D, options, opt),
        **{k: options[k] for k in names},
    )


def try_setting(place, seed, iteration, options, deadline, seconds):
    """One row of the sweep: shape D, look at the validation distance now and then, keep the best D of all looks.

    Ends with the last look, after `seconds` or at the deadline (time.time()), or once the distance is four times the
    best. An earlier, shorter try of the same setting is replaced if the new one is better or was not cut off.
    """
    if time.time() > deadline:
        return
    b, began = bench(*place), time.time()
    path = b.folder / f"seed{seed}" / "tried" / f"{iteration}_{label(options)}.json"
    before = (json.loads(path.read_text())["validation"] if path.exists() else None) or float("inf")
    G, D, opt = b.pair(seed, iteration)
    D, n, best, curve, late = copy.deepcopy(D), b.numbers["checked"], before, [], False
    judged = copy.deepcopy(D) if options["average"] else D
    for step, state in shaping(b, G, D, opt, seed, options, b.numbers["looks"][-1]):
        if judged is not D:
            follow(judged, D, min(options["average"], step / (step + 10)))
        late = time.time() > min(deadline, began + seconds)
        if step not in b.numbers["looks"] and not late:
            continue
        try:
            images, _ = samplers.collaborative(G, judged.eval(), n, key=(seed, "choice"), **walk_of(options))
            distance = chooser(b)(images, fast=True)["frechet_distance"]
        except ValueError as error:
            distance = float("inf")
            print(error, flush=True)
        D.train()
        curve.append([step, distance if distance < float("inf") else None, round(float(state["gain"]), 3)])
        print(b.name, seed, iteration, options, curve[-1], f"{time.time() - began:.0f} s", flush=True)
        if distance < best:
            best = distance
            save(path.with_suffix(".safetensors"), judged.state_dict())
        if late or (len(curve) > 3 and distance > 4 * best):
            break
    found = [c for c in curve if c[1] is not None]
    at, distance = min(found, key=lambda c: c[1])[:2] if found else (None, None)
    if best < before or not late or before == float("inf"):
        row = {"seed": seed, "iteration": iteration, **options, "validation": distance, "at": at, "ended": not late}
        write(path, {**row, "curve": curve, "seconds": round(time.time() - began, 1)})


def tried(folder, data_set, seed, iteration):
    """Rows of the sweep that lie in a folder of weights, best first."""
    rows = [
        json.loads(p.read_text())
        for p in (Path(folder) / data_set / f"seed{seed}" / "tried").glob(f"{iteration}_*.json")
    ]
    return sorted((r for r in rows if r["validation"] is not None), key=lambda r: r["validation"])


def leading(folder, data_set, iteration):
    """The best row of every setting that any seed of a data set (if none, of any data set) has tried, best first."""
    for names in ([data_set], data_sets.DATASETS):
        rows = [r for d in names for s in range(10) for r in tried(folder, d, s, iteration)]
        if rows:
            rows.sort(key=lambda r: -r["validation"])
            return sorted({label(options_of(r)): r for r in rows}.values(), key=lambda r: r["validation"])
    return []


def options_of(row):
    """The setting of a row of the sweep."""
    return {k: row[k] for k in BASE}


# Images: the scores


def methods(b, G, D, calibrated_D, tuned, shaped, judged, validation, walk):
    """(name, sampler, D, options, grid of a knob to choose on validation images or None), at equal steps or proposals.

    Rejection also at the acceptance at which it makes as many calls as refinement.
    """
    layer, steps = walk["layer"], walk["steps"]
    sizes = [dict(step_size=s) for s in (0.002, 0.01, 0.05, 0.2)]
    burn_in = dict(burn_in=b.numbers["proposals"])
    chain = dict(real=validation[:500], burn_in=b.numbers["proposals"] // 100, thin=steps + 1)
    return [
        ("plain", samplers.plain, calibrated_D, {}, None),
        ("rejection", samplers.rejection, calibrated_D, burn_in, [dict(percentile=q) for q in (50, 80, 90)]),
        (
            "rejection, equal calls",
            samplers.rejection,
            calibrated_D,
            {**burn_in, "percentile": 100 - 100 / (steps + 1)},
            None,
        ),
        ("Metropolis-Hastings", samplers.metropolis_hastings, calibrated_D, chain, None),
        ("Langevin", samplers.langevin, calibrated_D, dict(steps=steps), sizes),
        ("gradient flow KL", samplers.gradient_flow, calibrated_D, dict(steps=steps), sizes),
        ("gradient flow JS", samplers.gradient_flow, calibrated_D, dict(steps=steps, divergence="JS"), sizes),
        (
            "optimal transport",
            samplers.optimal_transport,
            calibrated_D,
            dict(layer=layer, steps=steps),
            [dict(step_size=s) for s in (0.02, 0.1, 0.5)],
        ),
        ("collaborative, D unshaped", samplers.collaborative, D, walk, None),
        ("collaborative, D tuned on plain samples", samplers.collaborative, tuned, walk, None),
        ("collaborative", samplers.collaborative, shaped, walk, None),
        (
            "collaborative, then rejection",
            samplers.collaborative_rejection,
            shaped,
            dict(judge=judged, **walk),
            [dict(percentile=q) for q in (20, 50, 80)],
        ),
    ]


def chosen(b, f, G, net, seed, options, grid):
    """The knob of the grid with the lowest validation distance, and what was seen."""
    seen = []
    for knob in grid:
        try:
            images, _ = f(G, net, b.numbers["checked"], key=(seed, "choice"), **options, **knob)
            seen.append({**knob, "validation": chooser(b)(images, fast=True)["frechet_distance"]})
        except ValueError as error:
            seen.append({**knob, "validation": None, "refused": str(error)})
    best = min(range(len(grid)), key=lambda i: 1e9 if seen[i]["validation"] is None else seen[i]["validation"])
    return grid[best], seen


def score(place, seed, out):
    """All methods at both checkpoints of one GAN with the best setting of its sweep; one JSON file."""
    b, path = bench(*place), Path(out) / f"samplers_{place[0]}_seed{seed}.json"
    judge, n = b.judge("test"), b.numbers["samples"]
    validation = b.part("validation")
    result = {
        "data_set": b.name,
        "seed": seed,
        "samples": n,
        "neighbours of": b.numbers["near"],
        "validation": judge(validation),
        "device": torch.cuda.get_device_name() if b.device != "cpu" else "cpu",
        "checkpoints": {},
    }
    for iteration in b.numbers["snapshots"]:
        G, D, opt = b.pair(seed, iteration)
        rows = tried(place[1], b.name, seed, iteration)
        if not rows:
            raise ValueError(
                f"No D was shaped for {b.name}, seed {seed}, {iteration}: give --sweep or --shape seconds."
            )
        walk, shaped, tuned = walk_of(rows[0]), copy.deepcopy(D), copy.deepcopy(D)
        tree = b.folder / f"seed{seed}" / "tried" / f"{iteration}_{label(options_of(rows[0]))}.safetensors"
        shaped.load_state_dict(load_file(tree))
        last(
            shaping(
                b, G, tuned, opt, seed, {**options_of(rows[0]), "steps": 0, "mode": "independent"}, b.numbers["tuning"]
            )
        )
        fake = samplers.plain(G, tuned.eval(), b.numbers["checked"], key=(seed, "calibration"))[0]
        refined = samplers.collaborative(G, shaped.eval(), b.numbers["checked"], key=(seed, "calibration"), **walk)[0]
        calibrated_D, facts = calibrated(tuned, validation, fake)
        judges = [calibrated(net, validation, refined) for net in (shaped, tuned)]
        judged, facts_shaped = min(judges, key=lambda j: j[1]["after"]["brier"])
        print(facts["scale"], facts["shift"], facts_shaped["scale"], facts_shaped["shift"], flush=True)
        out_rows = {}
        result["checkpoints"][str(iteration)] = {
            "setting": options_of(rows[0]),
            "shaping_iterations": rows[0]["at"],
            "walk": walk,
            "tried": rows,
            "calibration": written(facts),
            "calibration_shaped": written(facts_shaped),
            "rows": out_rows,
        }
        for method, f, net, options, grid in methods(b, G, D, calibrated_D, tuned, shaped, judged, validation, walk):
            knob, seen = chosen(b, f, G, net, seed, options, grid) if grid else ({}, None)
            try:
                row = measured(
                    f"{b.name} {seed} {iteration} {method} {knob}",
                    lambda: f(G, net, n, key=(seed, "samples"), **options, **knob),
                    judge,
                )
            except ValueError as error:
                row = {"refused": str(error)}
            out_rows[method] = {**row, **({"chosen": knob, "seen": seen} if grid else {})}
            write(path, result)
    return str(path)


def prepare(place, seed):
    """Train what is missing: the classifier (seed None) or one GAN."""
    b = bench(*place)
    if seed is None:
        b.features(b.part("validation", 10))
    else:
        b.pair(seed, b.numbers["snapshots"][-1])


def run_images(
    names, seeds, *, folder, out, source=None, device="cpu", workers=1, sweep=0.0, shape=0.0, best=3, numbers=FULL
):
    """Networks, sweep and scores of data sets and seeds, side by side in `workers` processes (1: in this one).

    sweep: seconds for the search over GRID with the first seed, each setting its fair share; shape: seconds in which
    every seed shapes with the `best` settings seen so far, to the last look if they suffice. What ended in `folder` is
    not made again, so that a run that was cut off goes on.
    """
    places = {name: (name, str(folder), source, device, tuple(sorted(numbers.items()))) for name in names}
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) if workers > 1 else None

    def everywhere(f, tasks):
        if pool is None:
            return [f(*task) for task in tasks]
        return [future.result() for future in [pool.submit(f, *task) for task in tasks]]

    def shaped(tasks, seconds):
        tasks = [
            t for t in tasks if not any(options_of(r) == t[3] and r["ended"] for r in tried(folder, t[0][0], *t[1:3]))
        ]
        rounds = -(-len(tasks) // workers)
        everywhere(try_setting, [(*t, time.time() + seconds, seconds / rounds) for t in tasks])

    began = time.time()
    everywhere(prepare, [(p, s) for p in places.values() for s in (None, *seeds)])
    print(f"networks: {time.time() - began:.0f} s", flush=True)
    steps, grid = numbers["snapshots"], [setting(change, numbers) for change in GRID]
    if sweep:
        shaped([(p, seeds[0], i, o) for o in grid for p in places.values() for i in steps], sweep)
    tasks = []
    for name, place in places.items():
        for i in steps:
            favourites = [options_of(r) for r in leading(folder, name, i)][:best] or grid[:1]
            tasks += [(rank, (place, s, i, o)) for rank, o in enumerate(favourites) for s in seeds]
    if shape:
        shaped([task for _, task in sorted(tasks, key=lambda t: t[0])], shape)
    print(f"shaped: {time.time() - began:.0f} s", flush=True)
    paths = everywhere(score, [(p, s, str(out)) for p in places.values() for s in seeds])
    if pool:
        pool.shutdown()
    print(f"scored: {time.time() - began:.0f} s", flush=True)
    return paths


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["plane", "images"])
    parser.add_argument("--data-set", default="mnist,fashion_mnist", help="one or several, with commas")
    parser.add_argument("--seeds", default="0", help="GAN seeds, with commas")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--workers", type=int, default=1, help="processes beside each other")
    parser.add_argument("--sweep", type=float, default=0.0, help="seconds for the search over settings (first seed)")
    parser.add_argument("--shape", type=float, default=0.0, help="seconds for shaping by the best settings (all seeds)")
    parser.add_argument("--best", type=int, default=3, help="settings of the sweep that all seeds shape with")
    parser.add_argument("--data", help="folder of MNIST's four files; default: as `data.load` finds them")
    parser.add_argument("--weights", default="artifacts/samplers", help="folder of networks, kept and used again")
    parser.add_argument("--out", default=str(RESULTS), help="folder of the JSON files")
    o = parser.parse_args()
    if o.what == "plane":
        run_plane()
    else:
        run_images(
            o.data_set.split(","),
            [int(s) for s in o.seeds.split(",")],
            folder=o.weights,
            out=o.out,
            source=o.data,
            device=o.device,
            workers=o.workers,
            sweep=o.sweep,
            shape=o.shape,
            best=o.best,
        )
