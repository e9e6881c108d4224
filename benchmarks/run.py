"""`python3 run.py bench [--preset P] [--full]`: how much sooner the package's loops finish than a plain reference.

Both sides use the same trained networks, images and threads and take turns in one run; what it writes are ratios, into
`benchmarks/results/<preset>.json`, `.png` and `.md`. Without --full the reference's time to its final loss is its
measured cost per iteration times 1,000, and the time of 60,000 encodings is scaled from 2,000; both are marked
`extrapolated`.
"""

import argparse
import copy
import itertools
import platform
import sys
import time
from pathlib import Path
from statistics import mean, median

import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

sys.path.insert(0, str(Path(__file__).resolve().parent))
from cgi_helpers.method import train  # noqa: E402
from cgi_helpers.method.masks import composite, weight_map  # noqa: E402
from cgi_helpers.method.models import for_inference  # noqa: E402
from cgi_helpers.method.refine import Overlay, refine  # noqa: E402
from cgi_helpers.method.runtime import accelerate, clock, draw_z, fast_dtype, last, versions  # noqa: E402
from cgi_helpers.method.search import Problem, best_starts, find_latent, whitening  # noqa: E402
from cgi_helpers.pipeline.artifacts import ArtifactError, write_json  # noqa: E402
from cgi_helpers.pipeline.session import start  # noqa: E402
from cgi_helpers.study import metrics, statistics  # noqa: E402
from cgi_helpers.study.evaluation import semantic  # noqa: E402

import reference  # noqa: E402
import report  # noqa: E402
import target  # noqa: E402

RESULTS = Path(__file__).resolve().parent / "results"
# chosen on validation images: from an encoder or from screened random starts
WARM, COLD = dict(iterations=25, optimiser="adam", lr=0.01), dict(iterations=40, optimiser="adam", lr=0.02)
ENCODE = dict(iterations=12, optimiser="adam", lr=0.01)
CANDIDATES = 1024  # random starts to screen
TARGETS = {"search_speedup": 15, "search_warm_speedup": 60, "refine_speedup": 2.5, "train_step_speedup": 1.5}


def timed(work):
    """(seconds, result) of one call."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    began = clock(device)
    result = work()
    return clock(device) - began, result


def in_turns(ways, turns, steps):
    """{name: median seconds per step} of functions that do `steps` steps, called in turns."""
    seconds = {name: [] for name in ways}
    for _ in range(turns):
        for name, work in ways.items():
            seconds[name].append(timed(work)[0] / steps)
    return {name: median(s) for name, s in seconds.items()}


class Counter(TorchDispatchMode):
    """Counts the floating-point operations of matrix products and convolutions from their shapes by
    torch's own formulas.

    `FlopCounterMode` itself follows modules by hooks that `torch.autograd.grad` does not allow.
    """

    total = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if func._overloadpacket in flop_registry:
            self.total += flop_registry[func._overloadpacket](*args, **(kwargs or {}), out_val=result)
        return result


def flops(b, work):
    """Operations of one step of `work`: those of two steps less those of one, without what happens once."""
    totals, steps = [], b.steps
    for b.steps in (1, 2):
        with Counter() as counter:
            work()
        totals.append(counter.total)
    b.steps = steps
    return totals[1] - totals[0]


def peak(device):
    """{"float32", "bfloat16"}: operations per second of a large matrix product;
    bfloat16 only where the machine has units for it.

    The better of torch.mm and the same product as a 1x1 convolution: on some CPUs the library behind torch.mm leaves
    the widest vector units unused, which the one behind the convolutions does not.
    """
    found = {}
    for dtype in (torch.float32, fast_dtype(device)):
        if dtype is None:
            continue
        rates = []
        for n in (512, 1024, 2048) + (4096, 8192) * (device.type == "cuda"):
            a = torch.randn(n, n, device=device).to(dtype)
            pixels, weight = (
                a.T.reshape(1, n, 32, n // 32).contiguous(memory_format=torch.channels_last),
                a.view(n, n, 1, 1),
            )
            for product in (lambda: a @ a, lambda: F.conv2d(pixels, weight)):
                product()
                rates.append(2 * n**3 / min(timed(product)[0] for _ in range(10)))
        found[str(dtype).removeprefix("torch.")] = max(rates)
    return found


class Bench:
    """Networks, images and starts that all measurements share."""

    def __init__(self, session, steps, turns, images=64):
        self.session, self.steps, self.turns, self.n = session, steps, turns, images
        p, dev = session.preset, session.device
        self.mask, self.weight, self.preset, self.device = session.mask, weight_map(session.mask, p.window), p, dev
        self.shaping = p.shapings["best"]
        self.G, self.D, self.E = (session.net(kind) for kind in ("generator", "discriminator", "encoder"))
        self.G0, self.D0 = target.plain_networks(session)  # float32, default layout, parameter gradients on
        self.y = session.data["test"].batch(slice(0, images), dev)
        self.z = target.starts(session, len(self.y))

    def plain_search(self):
        z, velocity = self.z, torch.zeros_like(self.z)
        for step in range(self.steps):
            z, velocity, _, _ = reference.search_step(self.G0, self.D0, z, velocity, self.y, self.weight, step)

    def report_search(self):
        p = self.preset
        last(find_latent(self.G, None, self.y, self.mask, z=self.z, iterations=self.steps, window=p.window, clip=1.0))

    def plain_refine(self, whole=True):
        h = self.G0.to_features(self.z, self.shaping.layer).detach()
        velocity = torch.zeros_like(h)
        self.D0.train()  # statistics of the batch, as the author's
        for _ in range(self.steps):
            h, velocity = reference.refine_step(
                self.G0, self.D0, self.z, h, velocity, self.y, self.mask, self.shaping.layer, whole=whole
            )
        self.D0.eval()

    def refine(self, mode, compose):
        s = self.shaping
        with torch.no_grad():
            h = self.G.to_features(self.z, s.layer)
        last(
            refine(
                self.G, self.D, h, layer=s.layer, steps=self.steps, step_size=s.step_size, mode=mode, compose=compose
            )
        )

    def overlay(self):
        return Overlay(self.y, self.mask)


def shared_steps(b):
    """Seconds per iteration of search, refinement and training, both sides in turns,
    and the share of the machine's peak."""
    G, D = (copy.deepcopy(net).train() for net in (b.G0, b.D0))
    optimisers = [torch.optim.Adam(net.parameters(), 2e-4, betas=(0.5, 0.999)) for net in (G, D)]
    loop = train.train_gan(
        b.session.build("generator"),
        b.session.build("discriminator"),
        b.session.data["train"],
        iterations=10**9,
        batch_size=b.n,
        device=b.device,
    )
    next(loop)

    def plain_train():
        for _ in range(b.steps):
            reference.train_step(G, D, *optimisers, b.y)

    pairs = {
        "search_iteration": {"plain": b.plain_search, "ours": b.report_search},
        "refine_step": {
            "plain": b.plain_refine,
            "ours": lambda: b.refine("batch", b.overlay()),
            "plain, lower part of G kept": lambda: b.plain_refine(whole=False),
            "any function as composition": lambda: b.refine("batch", lambda x: composite(b.y, x, b.mask)),
            "independent": lambda: b.refine("independent", b.overlay()),
        },
        "train_step": {"plain": plain_train, "ours": lambda: list(itertools.islice(loop, b.steps))},
    }
    rows = {}
    for name, ways in pairs.items():
        seconds = in_turns(ways, b.turns, b.steps)
        work = {way: flops(b, ways[way]) for way in ways}
        rows[name] = {
            way: {"seconds": s, "flop": work[way], "speedup": seconds["plain"] / s} for way, s in seconds.items()
        }
        print(
            f"{name}: " + ", ".join(f"{w} {1e3 * s:.1f} ms ({seconds['plain'] / s:.2f} x)" for w, s in seconds.items()),
            flush=True,
        )
    return rows


def ablation_search(b, steps):
    """[(what is added, seconds per search iteration)]: each row keeps all before it; 64 images, in turns."""
    y, weight, z = b.y, b.weight, b.z
    plain = copy.deepcopy(b.G0)
    frozen, judge = (copy.deepcopy(net).requires_grad_(False) for net in (b.G0, b.D0))
    layout = copy.deepcopy(frozen).to(memory_format=torch.channels_last)
    folded = for_inference(b.G0)

    def gradient(G, D):
        for _ in range(steps):
            reference.search_step(G, D, z, torch.zeros_like(z), y, weight, 0)

    def without_d(G):
        for _ in range(steps):
            point = z.clone().requires_grad_()
            torch.autograd.grad((weight * (G(point) - y)).abs().sum(), point)

    seen, rows = Problem(folded, None, y, b.mask, b.preset.window, 0, False), torch.arange(len(y), device=y.device)
    fast = Problem(for_inference(b.G), None, y, b.mask, b.preset.window, 0, False)
    ways = {
        "reference": lambda: gradient(plain, b.D0),
        "+ no parameter gradients": lambda: gradient(frozen, judge),
        "+ D left out (lambda 1e-4)": lambda: without_d(frozen),
        "+ channels last": lambda: without_d(layout),
        "+ BatchNorm folded": lambda: without_d(folded),
        "+ only the pixels that W sees": lambda: [seen(z, rows) for _ in range(steps)],
    }
    if b.G.amp:
        ways["+ bfloat16 weights, cast once"] = lambda: [fast(z, rows) for _ in range(steps)]
    return list(in_turns(ways, b.turns, steps).items())


def ablation_refine(b, steps):
    """The same for a step of the refinement in `batch` mode."""
    y, mask, step = b.y, b.mask, {"layer": b.shaping.layer, "step_size": b.shaping.step_size}
    h = b.G0.to_features(b.z, b.shaping.layer).detach()
    judge = copy.deepcopy(b.D0).train()  # statistics of the batch
    frozen = [copy.deepcopy(net).requires_grad_(False) for net in (b.G0, judge)]
    layout = [copy.deepcopy(net).to(memory_format=torch.channels_last) for net in frozen]

    def plain(G, D, whole):
        now, velocity = h, torch.zeros_like(h)
        for _ in range(steps):
            now, velocity = reference.refine_step(G, D, b.z, now, velocity, y, mask, whole=whole, **step)

    def ours(nets, compose):
        last(refine(*nets, h, steps=steps, mode="batch", compose=compose, **step))

    folded = [net.eval() for net in copy.deepcopy(layout)]
    ways = {
        "reference": lambda: plain(b.G0, judge, True),
        "+ no parameter gradients": lambda: plain(*frozen, True),
        "+ lower part of G kept": lambda: plain(*frozen, False),
        "+ channels last": lambda: plain(*layout, False),
        "+ BatchNorm of G folded, best step kept": lambda: ours(folded, lambda x: composite(y, x, mask)),
    }
    if b.G.amp:
        ways["+ bfloat16 weights, cast once"] = lambda: ours((b.G, b.D), lambda x: composite(y, x, mask))
    ways["+ only what the hole depends on and reaches"] = lambda: ours((b.G, b.D) if b.G.amp else folded, b.overlay())
    return list(in_turns(ways, b.turns, steps).items())


def ablation_train(b, steps):
    """The same for an iteration of the DCGAN's training;
    the last row is `train.train_gan` with its real batches and draws."""
    p, data = b.preset, b.session.data["train"]

    def tutorial(layout):
        nets = [copy.deepcopy(net).train().to(memory_format=layout) for net in (b.G0, b.D0)]
        optimisers = [
            torch.optim.Adam(net.parameters(), p.training.lr, betas=(p.training.beta1, 0.999)) for net in nets
        ]
        return lambda: [reference.train_step(*nets, *optimisers, b.y) for _ in range(steps)]

    def ours(amp):
        nets = [accelerate(copy.deepcopy(net), b.device, amp) for net in (b.G0, b.D0)]
        loop = train.train_gan(*nets, data, iterations=10**9, batch_size=b.n, device=b.device)
        next(loop)
        return lambda: list(itertools.islice(loop, steps))

    ways = {
        "reference": tutorial(torch.contiguous_format),
        "+ channels last": tutorial(torch.channels_last),
        "+ one generated batch for both, no gradient of D's weights for G, fused Adam": ours(False),
    }
    if b.G.amp:
        ways["+ bfloat16"] = ours(True)
    return list(in_turns(ways, b.turns, steps).items())


def until(b, y, goal, z, whiten, options, whole):
    """(seconds until the mean lowest context loss is <= goal, iterations, state); seconds None if never reached.

    `whole`: the search goes on to its last iteration all the same, and that is timed.
    """
    began = clock(b.device)
    for step, state in find_latent(b.G, None, y, b.mask, z=z(), window=b.preset.window, whiten=whiten, **options):
        if state["best"].mean() <= goal and not whole:
            break
    seconds = clock(b.device) - began
    return seconds if state["best"].mean() <= goal else None, step, state


def quality(b, y, z):
    """PSNR (N,) of the composites of images y from latents z."""
    return metrics.psnr(semantic(b.G, z, y, b.mask), y).cpu()


def on_all_test_images(b, starts, options, whiten, iterations):
    """Paired PSNR gain of the first `iterations` of a search over the stored encodings by the report's recipe, on all
    test images that have one; None without them."""
    if not b.session.up_to_date("encode report"):
        return None
    z = b.session.encodings("test", "report")
    y, step = b.session.data["test"].batch(slice(0, len(z)), b.device), b.preset.searches["best"].batch
    loops = (
        find_latent(b.G, None, part, b.mask, z=starts(part), window=b.preset.window, whiten=whiten, **options)
        for part in y.split(step)
    )
    found = torch.cat([last(itertools.islice(loop, iterations + 1))["z"] for loop in loops])
    gain = quality(b, y, found) - quality(b, y, z)
    return {
        "images": len(gain),
        **statistics.interval(gain.mean(), statistics.bootstrap_counts(len(gain), 2000) @ gain.double() / len(gain)),
    }


def race(b, aim, unclipped, seconds_per_iteration):
    """Time to the reference's final mean loss over its images: from screened random starts and from the encoder."""
    p, n = b.preset, len(aim["context"])
    y, goal = b.session.data["test"].batch(slice(0, n), b.device), mean(aim["context"])
    candidates = draw_z(
        CANDIDATES, p.networks.z_dim, p.networks.prior, b.session.seed, "screen", device=b.device
    ).clamp(-1, 1)
    prepare, P = timed(lambda: whitening(b.G, b.mask, window=p.window, prior=p.networks.prior, key=(b.session.seed,)))
    plain = seconds_per_iteration * aim["iterations"] * n / b.n
    result = {
        "images": n,
        "goal": goal,
        "reference_seconds": plain,
        "reference_seconds_extrapolated": True,
        "whitening_seconds": prepare,
        "loss": "mean over images of the lowest weighted context loss so far, both sides",
    }

    def warm(y=y):
        with torch.no_grad():
            return b.E(y, b.mask)

    def screened(y=y):
        return best_starts(b.G, y, b.mask, candidates, window=p.window)

    # the rows that are quoted: from random starts the whole search, because PSNR still rises after the loss is reached
    rows = {
        "random starts": (screened, P, COLD),
        "random starts, stopped at the loss": (screened, P, COLD),
        "encoder": (warm, P, WARM),
        "random starts, to the loss without the clip of z": (screened, P, dict(COLD, iterations=100)),
        "encoder, to the loss without the clip of z": (warm, P, dict(WARM, iterations=2 * WARM["iterations"])),
        "encoder, Adam without whitening": (warm, None, dict(iterations=250, optimiser="adam", lr=0.03)),
        "one random start, Adam": (
            lambda: target.starts(b.session, n).clamp(-1, 1),
            None,
            dict(iterations=300, optimiser="adam", lr=0.1, clip=1.0),
        ),
    }
    for name, (z, matrix, options) in rows.items():
        aimed, its_psnr = (
            (unclipped["mean_context"], unclipped["psnr"]) if "without the clip" in name else (goal, aim["psnr"])
        )
        turns = [
            until(b, y, aimed, z, matrix, options, name == "random starts")
            for _ in range(b.turns if matrix is not None else 1)
        ]
        _, iterations, state = turns[0]
        reached = None not in [t[0] for t in turns]
        searched = median(t[0] for t in turns) if reached else None
        total = searched + prepare * (matrix is not None) if reached else None
        gain = quality(b, y, state["z"]) - torch.tensor(its_psnr)
        counts = statistics.bootstrap_counts(n, 2000)
        result[name] = {
            "goal": aimed,
            "seconds": searched,
            "with_whitening": total,
            "iterations": iterations,
            "speedup": plain / total if reached else None,
            "speedup_whitening_at_hand": plain / searched if reached else None,
            "final_loss": float(state["best"].mean()),
            "psnr_gain": statistics.interval(gain.mean(), counts @ gain.double() / n),
        }
        shown = f"{plain / total:.0f} x" if reached else "not reached"
        print(f"{name}: {iterations} iterations, {shown}, PSNR {gain.mean():+.2f} dB against the reference", flush=True)
    for name, z, options in (("random starts", screened, COLD), ("encoder", warm, WARM)):
        result[name]["psnr_gain_all"] = on_all_test_images(b, z, options, P, result[name]["iterations"])
    return result, P


def encode(b, aim, whiten, prepare, images):
    """Encode the first training images in batches of 256 by encoder and 12 whitened steps;
    minutes for 60,000, whitening included.

    The loss is compared on the images of the reference's run: other images have other losses.
    """
    data = b.session.data["train"].first(images)

    def losses(data):
        found = []
        for i in range(0, len(data), 256):
            y = data.batch(slice(i, i + 256), b.device)
            with torch.no_grad():
                z = b.E(y, b.mask)
            found.append(
                last(find_latent(b.G, None, y, b.mask, z=z, window=b.preset.window, whiten=whiten, **ENCODE))["best"]
            )
        return torch.cat(found)

    seconds, _ = timed(lambda: losses(data))
    goal, loss = mean(aim["context"]), float(losses(b.session.data["test"].first(len(aim["context"]))).mean())
    return {
        "images": len(data),
        "seconds": seconds,
        "minutes_60000": (seconds / len(data) * 60_000 + prepare) / 60,
        "extrapolated": len(data) < 55_000,
        "mean_loss": loss,
        "reference_loss": goal,
        "loss_ratio": loss / goal,
        **ENCODE,
    }


def one_image(b):
    """Seconds of what the live page does for one image: 300 iterations with D, 50 refinement steps."""
    y, z, s = b.y[:1], b.z[:1], b.shaping
    with torch.no_grad():
        h = b.G.to_features(z, s.layer)

    def search(D):
        return timed(lambda: last(find_latent(b.G, D, y, b.mask, z=z, iterations=300)))[0]

    def step(compose):
        options = dict(layer=s.layer, steps=50, step_size=s.step_size, compose=compose)
        return timed(lambda: last(refine(b.G, b.D, h, **options)))[0]

    return {
        "search_300_with_d": search(b.D),
        "search_300_without_d": search(None),
        "refine_50": step(lambda x: composite(y, x, b.mask)),
        "refine_50_overlay": step(Overlay(y, b.mask)),
    }


ABLATIONS = {"search": ablation_search, "refine": ablation_refine, "train": ablation_train}


def batch_sizes(b, steps):
    """{images per batch: seconds per image and iteration of the search}."""
    G, found = for_inference(b.G), {}
    for n in (1, 16, 64, 256):
        y = b.session.data["test"].batch(slice(0, n), b.device)
        z, rows = target.starts(b.session, len(y)), torch.arange(len(y), device=b.device)
        problem = Problem(G, None, y, b.mask, b.preset.window, 0, False)
        problem(z, rows)
        found[n] = timed(lambda: [problem(z, rows) for _ in range(steps)])[0] / steps / len(y)
    return found


def measure(session, steps=50, turns=3, images=64, encodings=2048, full=False, folder=RESULTS, name=""):
    """Everything; returns the content of <preset>.json."""
    began = time.perf_counter()
    b = Bench(session, steps, turns, images)
    aim, unclipped = target.load(session, folder, fresh=full), target.load(session, folder, clip=None)
    result = {"preset": session.preset.name, "peak_flops": peak(b.device)}
    rows = shared_steps(b)
    found, P = race(b, aim, unclipped, rows["search_iteration"]["plain"]["seconds"])
    if full and aim.get("seconds"):
        found.update(reference_seconds=aim["seconds"], reference_seconds_extrapolated=False)
        for row in (v for v in found.values() if isinstance(v, dict) and v["speedup"]):
            row["speedup"] = aim["seconds"] / row["with_whitening"]
            row["speedup_whitening_at_hand"] = aim["seconds"] / row["seconds"]
    coded = encode(b, aim, P, found["whitening_seconds"], len(session.data["train"]) if full else encodings)
    result = {
        "search_speedup": found["random starts"]["speedup"],
        "search_warm_speedup": found["encoder"]["speedup"],
        "refine_speedup": rows["refine_step"]["ours"]["speedup"],
        "train_step_speedup": rows["train_step"]["ours"]["speedup"],
        "encode_60000_minutes": coded["minutes_60000"],
        "extrapolated": not full,
        **result,
        "time_to_target": found,
        "encode": coded,
        "steps": rows,
        **{f"ablation_{name}": rows(b, max(1, steps // 2)) for name, rows in ABLATIONS.items()},
        "batch_sizes": batch_sizes(b, max(1, steps // 5)),
        "one_image_seconds": one_image(b),
        "reference_run": {k: aim[k] for k in ("fingerprint", "images", "iterations")},
        "curve": aim["curve"],
        "images": images,
        "steps_per_block": steps,
        "turns": turns,
        "threads": torch.get_num_threads(),
        "versions": versions(),
        "machine": report.machine(b.device),
        "system": platform.platform(),
        "precision": str(b.G.amp or torch.float32).removeprefix("torch."),
        "seconds": time.perf_counter() - began,
    }
    name = session.preset.name + name
    write_json(Path(folder) / f"{name}.json", result)
    report.write(result, TARGETS, Path(folder) / name)
    return result


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--preset", default=None)
    parser.add_argument("--device", default="auto")
    parser.add_argument(
        "--full", action="store_true", help="run the reference's 1,000 iterations and encode all training images"
    )
    parser.add_argument("--steps", type=int, default=50, help="iterations per block")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument(
        "--name", default="", help="what to append to the preset's name in the names of the results, e.g. -float32"
    )
    args = parser.parse_args(arguments)
    try:
        result = measure(start(args.preset, device=args.device), args.steps, args.turns, full=args.full, name=args.name)
    except (ArtifactError, ValueError) as error:
        sys.exit(f"Error: {error}")
    print((RESULTS / f"{result['preset']}{args.name}.md").read_text())


if __name__ == "__main__":
    main()
