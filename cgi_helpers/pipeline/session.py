"""What one run knows: its preset, seed and device, what each stage depends on, and its resumable state."""

import time
from dataclasses import dataclass, field
from functools import cached_property

import torch

from .. import data
from ..method.feedforward import Opened, Pool, paint
from ..method.masks import named_mask
from ..method.models import Classifier, Discriminator, Encoder, Generator
from ..method.runtime import accelerate, fast_dtype, generator, interrupt_between_steps, pick_device, versions
from ..method.search import whitening
from ..study import rivals
from ..study.judges import Mixer
from .artifacts import Store, atomic_write, fingerprint, write_json
from .parallel import rank
from .plan import plan
from .presets import get_preset

CHECKPOINT_SECONDS = 60


def half(state):
    """A state dict as it is shipped: floats as float16, counters as they are; a copy."""
    return {k: v.half() if v.is_floating_point() else v.clone() for k, v in state.items()}


def full(state):
    """A state dict of `half` as networks take it: float32."""
    return {k: v.float() if v.is_floating_point() else v for k, v in state.items()}


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

    @cached_property
    def content(self):
        """`data.content` of the preset's data set: a folder whose images have changed makes every result stale."""
        return data.content(self.preset.dataset)

    @cached_property
    def plan(self):
        """{name: plan.Stage} of the preset."""
        return plan(self.preset)

    @cached_property
    def writer(self):
        """{artifact: name of the stage that writes it}."""
        return {artifact: name for name, stage in self.plan.items() for artifact in stage.writes}

    def fingerprint(self, stage):
        """What the results of `stage` depend on: its settings, the seed and the content of its inputs."""
        digests = {i: (self.store.metadata(i) or {}).get("digest") for i in self.plan[stage].reads}
        own = {"content": self.content} if self.content else {}
        return fingerprint(stage=stage, seed=self.seed, settings=self.plan[stage].settings, inputs=digests, **own)

    def up_to_date(self, stage):
        """True if every artifact of `stage` exists with the present fingerprint."""
        now = self.fingerprint(stage)
        return all((self.store.metadata(a) or {}).get("fingerprint") == now for a in self.plan[stage].writes) and all(
            self.up_to_date(s) for s in {self.writer[i] for i in self.plan[stage].reads}
        )

    def load(self, artifact):
        """(tree, metadata) of an up-to-date artifact, cached; ArtifactError otherwise."""
        if artifact not in self.writer:
            raise ValueError(f"Preset {self.preset.name!r} makes no {artifact!r}: it makes {', '.join(self.writer)}.")
        stage = self.writer[artifact]
        print_ = self.fingerprint(stage)
        if (artifact, print_) not in self.cache:
            for upstream in self.plan[stage].reads:
                self.load(upstream)
            self.cache[artifact, print_] = self.store.load(artifact, stage, print_)
        return self.cache[artifact, print_]

    def build(self, kind):
        """A fresh, accelerated network: `generator`, `discriminator`, `classifier`, `judge` or `encoder`."""
        p, n = self.preset, self.preset.networks
        shape = dict(channels=p.channels, size=p.size)
        classes = len(data.described(p.dataset).classes or data.TURNS)
        torch.manual_seed(self.seed)
        if kind == "generator":
            net = Generator(n.z_dim, n.g_width, **shape)
        elif kind == "discriminator":
            net = Discriminator(n.d_width, **shape)
        elif kind == "encoder":
            net = Encoder(n.z_dim, n.encoder_width, **shape)
        elif kind == "judge":
            torch.manual_seed(self.seed + 1)  # it shares nothing with the first classifier
            net = Mixer(n.judge_width, features=n.features, classes=classes, **shape)
        else:
            net = Classifier(n.classifier_width, features=n.features, classes=classes, **shape)
        return accelerate(net, self.device, n.amp)

    def feedforward(self, row):
        """(network, its discriminator or None) of a feed-forward rival, untrained."""
        p, f = self.preset, self.preset.feedforward[row]
        torch.manual_seed(self.seed)
        return rivals.networks(f.kind, p.channels, p.size, f.width, device=self.device)

    def fitted(self, row):
        """A trained feed-forward rival in eval mode."""
        net, _ = self.feedforward(row)
        net.load_state_dict(full(self.load(f"fitted_{row}")[0]))
        return net.eval()

    def net(self, kind):
        """A trained network in eval mode without parameter gradients."""
        net = self.build(kind)
        net.load_state_dict(full(self.load(kind)[0]))  # the GAN is stored in float32, networks beside it in float16
        return net.eval().requires_grad_(False)

    def shaped(self, row, epochs):
        """The discriminator after `epochs` of shaping by this row of the preset's shapings (0: as trained)."""
        if row not in self.preset.shapings:
            raise ValueError(f"Unknown shaping {row!r}: use one of {', '.join(self.preset.shapings)}.")
        stages = self.preset.shapings[row].epochs
        if epochs not in stages:
            raise ValueError(f"There is no discriminator after {epochs} epochs of shaping: use one of {stages}.")
        D = self.net("discriminator")
        if epochs:
            tree, _ = self.load(f"shaped_{row}")
            key = next(str(e) for e in stages if e == epochs)  # 2.0 means the snapshot "2"
            D.load_state_dict(full(tree["snapshots"][key]))
        return D

    def encodings(self, split, row):
        """z-hat (N, z_dim) on the device: split: test, validation or pool (training images);
        row of the preset's searches."""
        tree, _ = self.load(f"encodings_{row}")
        if split not in tree:
            raise ValueError(f"There are no {row!r} encodings of {split!r}: use one of {', '.join(tree)}.")
        return tree[split].float().to(self.device)  # those of the pool are stored as float16

    def start_of(self, row, split, n=None):
        """(G, latents) where refinement starts from this row, for the first n images of a split (pool: to shape on).

        A row of the preset's searches: the generator and what was found; one of its `feedforward` nets: that net,
        opened behind the preset's mask, and the images themselves, of which it sees the known pixels.
        """
        if row not in self.preset.feedforward:
            return self.net("generator"), self.encodings(split, row)[:n]
        images = self.data["train" if split == "pool" else split]
        return Opened(self.fitted(row), self.mask), Pool(images if n is None else images.first(n), self.device)

    def guess(self, row, y, mask=None):
        """Completions of images y by a rival that a search inverts, in the preset's hole or `mask`: a feed-forward net
        of the preset, or a look-up, for which a training image is not its own neighbour."""
        mask = self.mask if mask is None else mask
        if row in self.preset.feedforward:
            return paint(self.fitted(row), y, mask)
        if not row.startswith("nearest"):
            known = ", ".join((*self.preset.feedforward, "nearest_neighbour", "nearest_ring"))
            raise ValueError(f"A search can invert the completions of {known}, not of {row!r}.")
        return rivals.fit(row, self.data["train"], mask, itself=False).function(y, mask)  # reads all images: once

    @cached_property
    def mask(self):
        """The preset's mask (1, 1, size, size) on the device; random kinds are drawn from the seed."""
        return named_mask(self.preset.mask, self.preset.size, generator(self.seed, "mask")).to(self.device)

    @property
    def whitening(self):
        """`search.whitening` of the trained generator and the preset's mask, measured once per generator:
        our best search needs it."""
        key = "whitening", self.load("generator")[1]["digest"]
        if key not in self.cache:
            p = self.preset
            self.cache[key] = whitening(
                self.net("generator"), self.mask, window=p.window, prior=p.networks.prior, key=(self.seed,)
            )
        return self.cache[key]

    def figure(self, figure, name):
        """Save a figure as `figures/<preset>/<name>.png` and `.pdf`, atomically, and return it for display."""
        for suffix in ("png", "pdf"):
            atomic_write(
                self.store.figures / f"{name}.{suffix}",
                lambda p, s=suffix: figure.savefig(
                    p, format=s, dpi=150, **({"metadata": {"CreationDate": None}} if s == "pdf" else {})
                ),
            )
        return figure

    def describe(self):
        """One line: preset, seed, device, precision and versions."""
        found = ", ".join(f"{k} {v}" for k, v in versions().items())
        amp = fast_dtype(self.device) if self.preset.networks.amp else None
        return f"preset {self.preset.name}, seed {self.seed}, {self.device}, {amp or torch.float32}; {found}"

    def record(self, name, numbers):
        """Write a notebook's numbers as `figures/<preset>/<name>.json`, atomically."""
        write_json(self.store.figures / f"{name}.json", numbers)


def start(preset=None, seed=0, device="auto", progress=True):
    """Open a session; raises ValueError for an unknown preset or device."""
    torch.backends.cudnn.deterministic = True  # on a GPU, too, the same call gives the same bytes
    return Session(get_preset(preset), seed, pick_device(device), progress)


def done(session, stage, fresh):
    """Common head of every stage: True if nothing is to be done; checks inputs and the folder before long work."""
    if not fresh and session.up_to_date(stage):
        return True
    session.store.check_writable()
    for artifact in session.plan[stage].reads:
        session.load(artifact)
    return False


def save(session, stage, trees, seconds, **metadata):
    """Write the artifacts of a finished stage, all under one fingerprint."""
    print_ = session.fingerprint(stage)
    for name, tree in trees.items():
        session.store.save(
            name,
            tree,
            stage,
            print_,
            seconds=round(seconds, 1),
            versions=versions(),
            device=str(session.device),
            **metadata,
        )
        session.cache.pop((name, print_), None)


class Checkpoint:
    """Resumable state of a loop: networks, optimisers, records; written every minute and on interruption."""

    def __init__(self, session, stage, nets, fresh):
        self.session, self.stage, self.nets = session, stage, nets
        self.name, self.print_ = f"{stage.replace(' ', '_')}.partial", session.fingerprint(stage)
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
            layout = {
                int(i): {
                    k: v.clone() if v.ndim == 0 else torch.empty_like(params[int(i)]).copy_(v) for k, v in s.items()
                }
                for i, s in state.items()
            }
            opt.load_state_dict({"state": layout, "param_groups": opt.state_dict()["param_groups"]})
        return optimisers

    def elapsed(self):
        return self.seconds + time.time() - self.started

    def run(self, loop, record=lambda step, state, records: None, total=None):
        """Exhaust `loop`, calling `record(step, state, self.records)`; save in between and on Ctrl-C.
        Returns seconds."""
        from tqdm.auto import tqdm

        bar = tqdm(
            loop,
            desc=self.stage,
            initial=self.step,
            total=total,
            mininterval=1,
            disable=not self.session.progress or rank() > 0,
        )
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
        optimisers = {
            str(i): {str(k): s for k, s in opt.state_dict()["state"].items()}
            for i, opt in enumerate(state.get("optimisers", ()))
        }
        tree = {
            "nets": {k: n.state_dict() for k, n in self.nets.items()},
            "optimisers": optimisers,
            "records": self.records,
        }
        self.session.store.save(self.name, tree, self.stage, self.print_, step=self.step, seconds=self.elapsed())
        self.saved = time.time()

    def remove(self):
        (self.session.store.own / f"{self.name}.safetensors").unlink(missing_ok=True)
