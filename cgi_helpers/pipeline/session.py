"""What one run knows: its preset, seed and device, what each stage depends on, and its resumable state."""

import time
from dataclasses import dataclass, field
from functools import cached_property

import torch

from .. import data
from .artifacts import Store, atomic_write, fingerprint, write_json
from ..method.masks import named_mask
from ..method.models import Classifier, Discriminator, Encoder, Generator
from .parallel import rank
from .presets import get_preset, subset
from ..method.runtime import accelerate, fast_dtype, generator, interrupt_between_steps, pick_device, versions
from ..method.search import whitening

CHECKPOINT_SECONDS = 60

IMAGES = ("dataset", "limit", "channels", "size", "amp")
NETWORK = IMAGES + ("z_dim", "g_width", "d_width", "prior")
SEARCH = ("mask", "window", "lam", "validation_images", "test_images")
BEST = ("best_iterations", "best_lr")
REFINE = ("layer", "refine_steps", "shape_stages", "shape_batch")
SHAPE = REFINE + ("shape_micro_batch", "step_size", "shape_lr", "shape_r1")
SHAPE_INDEPENDENT = REFINE + ("shape_micro_batch", "step_size_independent", "shape_lr_independent", "shape_r1_independent")
EVALUATE = REFINE + ("mask", "step_size", "step_size_independent", "micro_batch",
                    "validation_images")
JUDGED = ("generator", "discriminator", "classifier", "encoder", "encodings", "encodings_best",
          "shaped_inpainting", "shaped_inpainting_best", "shaped_independent")
# stage -> (preset fields it depends on, artifacts of other stages that it reads, artifacts it writes)
STAGES = {
    "train": (NETWORK + ("iterations", "batch_size", "g_updates", "lr", "beta1", "sample_epochs"),
              (), ("generator", "discriminator", "history")),
    "classifier": (IMAGES + ("classifier_width", "classifier_iterations"), (), ("classifier",)),
    "encoder": (NETWORK + ("encoder_width", "encoder_iterations", "window"), ("generator",), ("encoder",)),
    "encode": (NETWORK + SEARCH + ("report_iterations", "report_lr", "report_clip"), ("generator",), ("encodings",)),
    "encode_pool": (NETWORK + ("mask", "window", "lam", "pool_report", "pool_report_iterations", "report_lr", "report_clip"),
                    ("generator",), ("encodings_pool",)),
    "encode_best": (NETWORK + SEARCH + BEST + ("encoder_width", "pool"), ("generator", "encoder"),
                    ("encodings_best",)),
    "shape_sampling": (NETWORK + SHAPE + ("pool_report",), ("generator", "discriminator", "encodings_pool"), ("shaped_sampling",)),
    "shape_inpainting": (NETWORK + SHAPE + ("pool_report", "mask"), ("generator", "discriminator", "encodings_pool"),
                         ("shaped_inpainting",)),
    "shape_inpainting_best": (NETWORK + SHAPE + ("pool", "mask"), ("generator", "discriminator", "encodings_best"),
                              ("shaped_inpainting_best",)),
    "shape_independent": (NETWORK + SHAPE_INDEPENDENT + ("pool", "mask"), ("generator", "discriminator", "encodings_best"),
                          ("shaped_independent",)),
    "tune": (NETWORK + EVALUATE + BEST, JUDGED, ("selection",)),
    "evaluate": (NETWORK + EVALUATE + BEST + ("test_images", "resamples"), JUDGED + ("selection",), ("evaluation", "metrics")),
}
WRITER = {artifact: stage for stage, (_, _, written) in STAGES.items() for artifact in written}


@dataclass
class Session:
    """One preset, seed and device, and what was already loaded for them."""
    preset: object
    seed: int = 0
    device: torch.device = torch.device("cpu")
    progress: bool = True
    cache: dict = field(default_factory=dict)

    @cached_property
    def store(self):
        return Store(self.preset.name, self.seed)

    @cached_property
    def data(self):
        return data.load(self.preset.dataset, self.preset.size, self.preset.channels, self.preset.limit)

    def fingerprint(self, stage):
        """What the results of `stage` depend on: its preset fields, the seed and the content of its inputs."""
        names, inputs, _ = STAGES[stage]
        digests = {i: (self.store.metadata(i) or {}).get("digest") for i in inputs}
        return fingerprint(stage=stage, seed=self.seed, fields=subset(self.preset, names), inputs=digests)

    def up_to_date(self, stage):
        """True if every artifact of `stage` exists with the present fingerprint."""
        _, inputs, written = STAGES[stage]
        now = self.fingerprint(stage)
        return (all((self.store.metadata(a) or {}).get("fingerprint") == now for a in written)
                and all(self.up_to_date(s) for s in {WRITER[i] for i in inputs}))

    def load(self, artifact):
        """(tree, metadata) of an up-to-date artifact, cached; ArtifactError otherwise."""
        stage = WRITER[artifact]
        print_ = self.fingerprint(stage)
        if (artifact, print_) not in self.cache:
            for upstream in STAGES[stage][1]:
                self.load(upstream)
            self.cache[artifact, print_] = self.store.load(artifact, stage, print_)
        return self.cache[artifact, print_]

    def build(self, kind):
        """A fresh, accelerated network: `generator`, `discriminator`, `classifier` or `encoder`."""
        p = self.preset
        shape = dict(channels=p.channels, size=p.size)
        torch.manual_seed(self.seed)
        net = {"generator": lambda: Generator(p.z_dim, p.g_width, **shape),
               "discriminator": lambda: Discriminator(p.d_width, **shape),
               "classifier": lambda: Classifier(p.classifier_width, **shape),
               "encoder": lambda: Encoder(p.z_dim, p.encoder_width, **shape)}[kind]()
        return accelerate(net, self.device, p.amp)

    def net(self, kind):
        """A trained network in eval mode without parameter gradients."""
        net = self.build(kind)
        net.load_state_dict(self.load(kind)[0])
        return net.eval().requires_grad_(False)

    def shaped(self, kind, epochs):
        """The discriminator after `epochs` of shaping (0: as trained); `kind`: sampling, inpainting, inpainting_best
        or independent."""
        if epochs not in self.preset.shape_stages:
            raise ValueError(f"There is no discriminator after {epochs} epochs of shaping: use one of {self.preset.shape_stages}.")
        D = self.net("discriminator")
        if epochs:
            tree, _ = self.load(f"shaped_{kind}")
            key = next(str(e) for e in self.preset.shape_stages if e == epochs)  # 2.0 means the snapshot "2"
            D.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in tree["snapshots"][key].items()})
        return D

    def encodings(self, split, how):
        """z-hat (N, z_dim) on the device: split: test, validation or pool (training images); how: report or best."""
        artifact = "encodings_best" if how == "best" else "encodings_pool" if split == "pool" else "encodings"
        tree, _ = self.load(artifact)
        if split not in tree:
            raise ValueError(f"There are no {how!r} encodings of {split!r}: use one of {', '.join(tree)}.")
        return tree[split].float().to(self.device)  # those of the pool are stored as float16

    @cached_property
    def mask(self):
        """The preset's mask (1, 1, size, size) on the device; random kinds are drawn from the seed."""
        return named_mask(self.preset.mask, self.preset.size, generator(self.seed, "mask")).to(self.device)

    @property
    def whitening(self):
        """`search.whitening` of the trained generator and the preset's mask, measured once per generator: our best search needs it."""
        key = "whitening", self.load("generator")[1]["digest"]
        if key not in self.cache:
            p = self.preset
            self.cache[key] = whitening(self.net("generator"), self.mask, window=p.window, prior=p.prior, key=(self.seed,))
        return self.cache[key]

    def figure(self, figure, name):
        """Save a figure as `figures/<preset>/<name>.png` and `.pdf`, atomically, and return it for display."""
        for suffix in ("png", "pdf"):
            atomic_write(self.store.figures / f"{name}.{suffix}",
                         lambda p, s=suffix: figure.savefig(p, format=s, dpi=150, **({"metadata": {"CreationDate": None}} if s == "pdf" else {})))
        return figure

    def describe(self):
        """One line: preset, seed, device, precision and versions."""
        found = ", ".join(f"{k} {v}" for k, v in versions().items())
        amp = fast_dtype(self.device) if self.preset.amp else None
        return f"preset {self.preset.name}, seed {self.seed}, {self.device}, {amp or torch.float32}; {found}"

    def record(self, name, numbers):
        """Write a notebook's numbers as `figures/<preset>/<name>.json`, atomically."""
        write_json(self.store.figures / f"{name}.json", numbers)


def start(preset=None, seed=0, device="auto", progress=True):
    """Open a session; raises ValueError for an unknown preset or device."""
    return Session(get_preset(preset), seed, pick_device(device), progress)


def done(session, stage, fresh):
    """Common head of every stage: True if nothing is to be done; checks inputs and the folder before long work."""
    if not fresh and session.up_to_date(stage):
        return True
    session.store.check_writable()
    for artifact in STAGES[stage][1]:
        session.load(artifact)
    return False


def save(session, stage, trees, seconds, **metadata):
    """Write the artifacts of a finished stage, all under one fingerprint."""
    print_ = session.fingerprint(stage)
    for name, tree in trees.items():
        session.store.save(name, tree, stage, print_, seconds=round(seconds, 1),
                           versions=versions(), device=str(session.device), **metadata)
        session.cache.pop((name, print_), None)


class Checkpoint:
    """Resumable state of a loop: networks, optimisers, records; written every minute and on interruption."""

    def __init__(self, session, stage, nets, fresh):
        self.session, self.stage, self.nets = session, stage, nets
        self.name, self.print_ = f"{stage}.partial", session.fingerprint(stage)
        self.step, self.seconds, self.records, self.opt_states = 0, 0.0, {}, []
        meta = session.store.metadata(self.name)
        if not fresh and session.store.find(self.name) and (not meta or meta.get("fingerprint") == self.print_):
            tree, meta = session.store.load(self.name, stage, self.print_)
            self.step, self.seconds = meta["step"], meta["seconds"]
            self.records, self.opt_states = tree.get("records", {}), list(tree.get("optimisers", {}).values())
            for key, net in nets.items():
                net.load_state_dict(tree["nets"][key])
        self.started = self.saved = time.time()

    def restore(self, *optimisers):
        """Load the stored optimiser states (nothing stored: leave them fresh) and return them."""
        for opt, state in zip(optimisers, self.opt_states):
            params = [p for group in opt.param_groups for p in group["params"]]
            # fused Adam walks raw memory: moments must have the memory layout of their parameter
            layout = {int(i): {k: v.clone() if v.ndim == 0 else torch.empty_like(params[int(i)]).copy_(v)
                               for k, v in s.items()} for i, s in state.items()}
            opt.load_state_dict({"state": layout, "param_groups": opt.state_dict()["param_groups"]})
        return optimisers

    def elapsed(self):
        return self.seconds + time.time() - self.started

    def run(self, loop, record=lambda step, state, records: None, total=None):
        """Exhaust `loop`, calling `record(step, state, self.records)`; save in between and on Ctrl-C. Returns seconds."""
        from tqdm.auto import tqdm
        bar = tqdm(loop, desc=self.stage, initial=self.step, total=total, mininterval=1, disable=not self.session.progress or rank() > 0)
        with interrupt_between_steps() as asked:
            for step, state in bar:
                record(step, state, self.records)
                # of several processes the first one decides: one that left on its own would let the others wait for it
                self.step, first = step, rank() == 0
                stop = first and asked.is_set()
                if stop or first and time.time() - self.saved > CHECKPOINT_SECONDS:
                    self.save(state)
                if stop:
                    raise KeyboardInterrupt
        return self.elapsed()

    def save(self, state):
        optimisers = {str(i): {str(k): s for k, s in opt.state_dict()["state"].items()}
                      for i, opt in enumerate(state.get("optimisers", ()))}
        tree = {"nets": {k: n.state_dict() for k, n in self.nets.items()}, "optimisers": optimisers, "records": self.records}
        self.session.store.save(self.name, tree, self.stage, self.print_, step=self.step, seconds=self.elapsed())
        self.saved = time.time()

    def remove(self):
        (self.session.store.own / f"{self.name}.safetensors").unlink(missing_ok=True)
