"""The pipeline: one idempotent, resumable function per stage. Load inputs, run the loop, save; nothing else.

Called by the notebooks, by doit and by `python -m cgi_helpers STAGE --preset P` alike.
"""

import time
from dataclasses import dataclass, field
from functools import cached_property

import torch

from . import data, train
from .artifacts import ArtifactError, Store, fingerprint
from .models import Classifier, Discriminator, Generator
from .presets import get_preset, subset
from .runtime import accelerate, draw_z, pick_device, versions

CHECKPOINT_SECONDS = 60

NETWORK = ("dataset", "channels", "size", "z_dim", "g_width", "d_width", "prior", "amp")
# stage -> (preset fields it depends on, artifacts of other stages that it reads, artifacts it writes)
STAGES = {
    "train": (NETWORK + ("iterations", "batch_size", "g_updates", "lr", "beta1", "sample_epochs"),
              (), ("generator", "discriminator", "history")),
    "classifier": (("dataset", "channels", "size", "amp", "classifier_width", "classifier_iterations"), (), ("classifier",)),
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
        return data.load(self.preset.dataset, self.preset.size)

    def fingerprint(self, stage):
        """What the results of `stage` depend on: its preset fields, the seed and the content of its inputs."""
        names, inputs, _ = STAGES[stage]
        digests = {i: (self.store.metadata(i) or {}).get("digest") for i in inputs}
        return fingerprint(stage=stage, seed=self.seed, fields=subset(self.preset, names), inputs=digests)

    def up_to_date(self, stage):
        """True if every artifact of `stage` exists with the present fingerprint."""
        now = self.fingerprint(stage)
        return all((self.store.metadata(a) or {}).get("fingerprint") == now for a in STAGES[stage][2])

    def load(self, artifact):
        """(tree, metadata) of an up-to-date artifact, cached; ArtifactError otherwise."""
        stage = WRITER[artifact]
        print_ = self.fingerprint(stage)
        if (artifact, print_) not in self.cache:
            self.cache[artifact, print_] = self.store.load(artifact, stage, print_)
        return self.cache[artifact, print_]

    def build(self, kind):
        """A fresh, accelerated network: `generator`, `discriminator` or `classifier`."""
        p = self.preset
        shape = dict(channels=p.channels, size=p.size)
        torch.manual_seed(self.seed)
        net = {"generator": lambda: Generator(p.z_dim, p.g_width, **shape),
               "discriminator": lambda: Discriminator(p.d_width, **shape),
               "classifier": lambda: Classifier(p.classifier_width, **shape)}[kind]()
        return accelerate(net, self.device, p.amp)

    def net(self, kind):
        """A trained network in eval mode without parameter gradients."""
        net = self.build(kind)
        net.load_state_dict(self.load(kind)[0])
        return net.eval().requires_grad_(False)

    def bar(self, text):
        """The progress text, or None where the session is silent."""
        return text if self.progress else None


def start(preset=None, seed=0, device="auto", progress=True):
    """Open a session; raises ValueError for an unknown preset or device."""
    return Session(get_preset(preset), seed, pick_device(device), progress)


def _done(session, stage, fresh):
    """Common head of every stage: True if nothing is to be done; checks inputs and the folder before long work."""
    if not fresh and session.up_to_date(stage):
        return True
    session.store.check_writable()
    for artifact in STAGES[stage][1]:
        session.load(artifact)
    return False


def _save(session, stage, trees, started, **metadata):
    """Write the artifacts of a finished stage, all under one fingerprint."""
    print_ = session.fingerprint(stage)
    for name, tree in trees.items():
        session.store.save(name, tree, stage, print_, seconds=round(time.time() - started, 1),
                           versions=versions(), device=str(session.device), **metadata)


class Checkpoint:
    """Resumable state of a loop: networks, optimisers, records; written every minute and on interruption."""

    def __init__(self, session, stage, nets, fresh, tag=""):
        self.session, self.stage, self.nets = session, stage, nets
        self.name, self.print_ = f"{stage}{tag}.partial", session.fingerprint(stage)
        self.step, self.seconds, self.records, self.opt_states = 0, 0.0, {}, []
        meta = session.store.metadata(self.name)
        if not fresh and meta and meta["fingerprint"] == self.print_:
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

    def run(self, loop, record, total):
        """Exhaust `loop`, calling `record(step, state)` -> {name: (index, value)}; save in between and on Ctrl-C."""
        from tqdm.auto import tqdm
        bar = tqdm(loop, desc=self.stage, initial=self.step, total=total, mininterval=1, disable=not self.session.progress)
        state = None
        try:
            for step, state in bar:
                self.step = step
                record(step, state, self.records)
                if time.time() - self.saved > CHECKPOINT_SECONDS:
                    self.save(state)
        except KeyboardInterrupt:
            if state is not None:
                self.save(state)
            raise
        return self.elapsed()

    def save(self, state):
        optimisers = {str(i): {str(k): s for k, s in opt.state_dict()["state"].items()}
                      for i, opt in enumerate(state["optimisers"])}
        tree = {"nets": {k: n.state_dict() for k, n in self.nets.items()}, "optimisers": optimisers, "records": self.records}
        self.session.store.save(self.name, tree, self.stage, self.print_, step=self.step, seconds=self.elapsed())
        self.saved = time.time()

    def remove(self):
        (self.session.store.own / f"{self.name}.safetensors").unlink(missing_ok=True)


def sample_steps(preset, n_train):
    """Iterations after which the fixed-z grids of figures 7-10 are drawn: epoch * images / batch."""
    return [round(e * n_train / preset.batch_size) for e in preset.sample_epochs]


def train_gan(session, fresh=False):
    """Stage `train`: generator, discriminator, and history (losses per iteration, fixed-z grids at sample_epochs)."""
    if _done(session, "train", fresh):
        return
    p, images, dev = session.preset, session.data["train"], session.device
    started = time.time()
    G, D = session.build("generator"), session.build("discriminator")
    checkpoint = Checkpoint(session, "train", {"generator": G, "discriminator": D}, fresh)
    optimisers = checkpoint.restore(train.adam(G, p.lr, p.beta1), train.adam(D, p.lr, p.beta1))
    z = draw_z(64, p.z_dim, p.prior, session.seed, "fixed z", device=dev)
    steps = sample_steps(p, len(images))
    records = checkpoint.records
    for key in ("d_loss", "g_loss", "real", "fake"):
        records.setdefault(key, torch.zeros(p.iterations))
    records.setdefault("grids", torch.zeros(len(steps), 64, p.channels, p.size, p.size, dtype=torch.uint8))

    def record(step, state, records):
        for key in ("d_loss", "g_loss", "real", "fake"):
            records[key][step - 1] = state[key]
        if step in steps:
            G.eval()
            with torch.no_grad():
                records["grids"][steps.index(step)] = ((G(z) + 1) * 127.5).round().byte().cpu()
            G.train()

    loop = train.train_gan(G, D, images, iterations=p.iterations, batch_size=p.batch_size, g_updates=p.g_updates,
                           lr=p.lr, beta1=p.beta1, prior=p.prior, seed=session.seed, start=checkpoint.step,
                           optimisers=optimisers, device=dev)
    seconds = checkpoint.run(loop, record, p.iterations)
    _save(session, "train", {"generator": G.state_dict(), "discriminator": D.state_dict(), "history": records},
          time.time() - seconds, sample_steps=steps, d_loss=float(records["d_loss"][-500:].mean()),
          g_loss=float(records["g_loss"][-500:].mean()))
    checkpoint.remove()


FUNCTIONS = {"train": train_gan}
