"""`python benchmarks/samplers.py plane | mnist`: every sampler before the same judges;
writes `benchmarks/results/samplers_*.json`.

plane: three mixtures, three GAN seeds each, everything trained here. mnist: Liu et al.'s protocol on GAN checkpoints of
iterations 1,000 and 5,000 (`--weights`: folder with seed0/1000.safetensors, ... of G and D and classifier.safetensors),
digits in `--data`.
"""

import argparse
import copy
import json
import time
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from cgi_helpers.data import Split, idx
from cgi_helpers.method import plane, samplers
from cgi_helpers.method.models import Classifier, Discriminator, Generator
from cgi_helpers.method.runtime import accelerate, generator
from cgi_helpers.method.shape import shape_discriminator
from cgi_helpers.study.metrics import frechet_distance, moments, neighbourhoods
from cgi_helpers.study.planes import calibrated, plane_methods, plane_pair

RESULTS = Path(__file__).resolve().parent / "results"
COUNTS = ("G_calls", "D_calls", "gradients", "acceptance", "restarted", "rises", "lipschitz")
# of 0.1 to 3, layers 1, 2
CHECKPOINTS = {1000: dict(layer=1, step_size=0.3, steps=10), 5000: dict(layer=1, step_size=0.3, steps=10)}
SHAPING = dict(iterations=400, batch_size=60, lr=5e-4)


def measured(name, run, judge):
    """One row: facts that are numbers, seconds, and what `judge(images)` says."""
    began = time.perf_counter()
    images, facts = run()
    row = {k: round(float(facts[k]), 4) for k in COUNTS if k in facts}
    row = {**row, "seconds": round(time.perf_counter() - began, 1), **judge(images)}
    print(name, row, flush=True)
    return row


def calibration(D, real, fake):
    """`planes.calibrated`, its numbers rounded for JSON."""
    D, facts = calibrated(D, real, fake)
    return D, written(facts)


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


def write(name, result):
    """Write results/NAME.json whole."""
    path = RESULTS / f"{name}.json"
    path.with_suffix(".partial").write_text(json.dumps(result, indent=1) + "\n")
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
            write("samplers_plane", result)


def digits(folder, part):
    """Split of MNIST's four files in `folder`, at size 32; part: train, validation or test."""
    return Split(*idx.read(Path(folder), part), 32)


def pair(path):
    """G and D of a checkpoint: Generator(100, 32, 1, 32), Discriminator(32, 1, 32)."""
    tree = load_file(path)
    nets = {"G": Generator(100, 32, 1, 32), "D": Discriminator(32, 1, 32)}
    for name, net in nets.items():
        net.load_state_dict({k[2:]: v for k, v in tree.items() if k.startswith(f"{name}/")})
        nets[name] = accelerate(net.eval(), "cpu")
    return nets["G"], nets["D"]


def shaped_by(G, D, train, seed, layer, steps, step_size, iterations, batch_size, lr):
    """A copy of D shaped on samples from the prior, every image by itself,
    and how far the logit rose in each iteration."""
    D, rise = copy.deepcopy(D), []
    for _, state in shape_discriminator(
        G,
        D,
        train,
        None,
        iterations=iterations,
        layer=layer,
        refine_steps=steps,
        step_size=step_size,
        batch_size=batch_size,
        lr=lr,
        mode="independent",
        seed=seed,
    ):
        rise.append(round(float(state["gain"]), 3))
    return D.eval(), rise


@torch.no_grad()
def features(C, x):
    """Classifier's features (N, 128) in passes of 500."""
    return torch.cat([C.features(part) for part in x.split(500)])


def shaped_pair(path, train, iteration, seed, out):
    """G, D and the shaped D of one checkpoint; the last from its file beside it, if it exists."""
    G, D = pair(path / f"{iteration}.safetensors")
    saved, began, walk = path / f"shaped_{iteration}.safetensors", time.perf_counter(), CHECKPOINTS[iteration]
    if saved.exists():
        shaped = copy.deepcopy(D)
        shaped.load_state_dict(load_file(saved))
        return G, D, shaped
    shaped, out["rise"] = shaped_by(G, D, train, seed, **walk, **SHAPING)
    out["shaping_seconds"] = round(time.perf_counter() - began, 1)
    save_file({k: v.contiguous() for k, v in shaped.state_dict().items()}, saved)
    return G, D, shaped


def mnist_methods(D, calibrated_D, shaped, judged, validation, walk):
    """(name, sampler, D, options) of the main rows and of all others; about 10 steps or 20 proposals per sample."""
    layer, steps = walk["layer"], walk["steps"]
    main = [
        ("plain", samplers.plain, calibrated_D, {}),
        ("collaborative", samplers.collaborative, shaped, walk),
        ("collaborative, D unshaped", samplers.collaborative, D, walk),
        ("rejection", samplers.rejection, calibrated_D, dict(percentile=80)),
    ]
    return main, [
        (
            "Metropolis-Hastings",
            samplers.metropolis_hastings,
            calibrated_D,
            dict(real=validation[:500], burn_in=50, thin=2 * steps),
        ),
        ("gradient flow KL", samplers.gradient_flow, calibrated_D, dict(steps=steps, step_size=0.05)),
        ("Langevin", samplers.langevin, calibrated_D, dict(steps=steps, step_size=0.05)),
        ("optimal transport", samplers.optimal_transport, calibrated_D, dict(layer=layer, steps=steps, step_size=0.5)),
        (
            "collaborative, then rejection",
            samplers.collaborative_rejection,
            shaped,
            dict(judge=judged, percentile=50, **walk),
        ),
        ("gradient flow JS", samplers.gradient_flow, calibrated_D, dict(steps=steps, step_size=0.05, divergence="JS")),
    ]


def run_mnist(weights, data, seed=0, n=10_000, near=2_000, rest=False):
    """Both checkpoints: the main rows, or the `rest`, added to the file of results.
    Distances to the 10,000 test digits."""
    weights, name = Path(weights), f"samplers_mnist{seed or ''}"
    train, test = digits(data, "train"), digits(data, "test")
    validation = digits(data, "validation").batch(slice(None))
    C = Classifier(32, 1, 32)
    C.load_state_dict(load_file(weights / "classifier.safetensors"))
    C = accelerate(C.eval(), "cpu")
    real = torch.cat([features(C, test.batch(slice(i, i + 500))) for i in range(0, 10_000, 500)])
    there = moments(real)

    def judge(x):
        f = features(C, x)
        numbers = {k: round(float(v.mean()), 4) for k, v in neighbourhoods(f[:near], real[:near]).items()}
        return {"frechet_distance": round(frechet_distance(moments(f), there), 4), **numbers}

    result = {
        "samples": n,
        "neighbours of": near,
        "seed": seed,
        "shaping": SHAPING,
        "validation": judge(validation),
        "checkpoints": {},
    }
    if rest:
        result = json.loads((RESULTS / f"{name}.json").read_text())
    for iteration, walk in CHECKPOINTS.items():
        out = result["checkpoints"].setdefault(str(iteration), {"walk": walk, "rows": {}})
        G, D, shaped = shaped_pair(weights / f"seed{seed}", train, iteration, seed, out)
        fake = samplers.plain(G, D, 5_000, key=(seed, "calibration"))[0]
        refined = samplers.collaborative(G, shaped, 1_000, key=(seed, "calibration"), **walk)[0]
        calibrated_D, out["calibration"] = calibration(D, validation, fake)
        judged, out["calibration_shaped"] = calibration(shaped, validation, refined)
        for method, f, net, options in mnist_methods(D, calibrated_D, shaped, judged, validation, walk)[rest]:
            try:
                out["rows"][method] = measured(
                    f"{iteration} {method}", lambda: f(G, net, n, key=(seed, "samples"), **options), judge
                )
            except ValueError as error:
                out["rows"][method] = {"refused": str(error)}
            write(name, result)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["plane", "mnist"])
    parser.add_argument("--weights"), parser.add_argument("--data"), parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rest", action="store_true", help="the methods beside plain, collaborative and rejection")
    options = parser.parse_args()
    run_plane() if options.what == "plane" else run_mnist(
        options.weights, options.data, options.seed, rest=options.rest
    )
