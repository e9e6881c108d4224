"""One table of settings. `smoke` proves that everything runs, `laptop` is the default, `paper` the report's sizes."""

import os
from dataclasses import asdict, dataclass, fields, replace


@dataclass(frozen=True)
class Preset:
    """All knobs of a run. Defaults are the report's or its author's values; the presets below override them."""
    name: str
    # data
    dataset: str = "fashion_mnist"          # see data.load
    channels: int = 1                       # image planes
    size: int = 64                          # pixels per side (report IV.A)
    # networks
    z_dim: int = 100                        # latent dimensions (DCGAN)
    prior: str = "uniform"                  # of z: U[-1, 1] (author) or normal N(0, 1)
    g_width: int = 128                      # channels of G's last hidden block (author)
    d_width: int = 64                       # channels of D's first block (author)
    classifier_width: int = 32              # channels of the classifier's first block
    amp: bool = True                        # bfloat16 where the hardware has it
    # training
    iterations: int = 24_000                # D updates (report IV.A)
    batch_size: int = 64                    # images (report IV.A)
    g_updates: int = 2                      # G updates per D update (author)
    lr: float = 2e-4                        # Adam (report IV.A)
    beta1: float = 0.5                      # Adam (DCGAN)
    sample_epochs: tuple = (1, 5, 15, 25)   # figures 7-10
    classifier_iterations: int = 4_000      # batches of 128


PRESETS = {p.name: p for p in (
    Preset(
        name="smoke", dataset="fashion_mnist_sample", prior="normal", g_width=8, d_width=8, classifier_width=8,
        iterations=256, batch_size=50, g_updates=1, classifier_iterations=60),
    Preset(
        name="laptop", prior="normal", g_width=32, d_width=32, classifier_width=32,
        iterations=21_500, g_updates=1, classifier_iterations=2_600),
    Preset(name="paper"),
)}


def get_preset(name=None, **overrides):
    """Preset `name` (None: `$CGI_PRESET`, else laptop) with fields replaced; unknown names raise ValueError."""
    if isinstance(name, Preset):
        preset = name
    else:
        name = name or os.environ.get("CGI_PRESET") or "laptop"
        if name not in PRESETS:
            raise ValueError(f"Unknown preset {name!r}: use one of {', '.join(PRESETS)}.")
        preset = PRESETS[name]
    known = [f.name for f in fields(Preset)]
    for field in overrides:
        if field not in known:
            raise ValueError(f"Unknown preset field {field!r}: known fields are {', '.join(known)}.")
    return replace(preset, **overrides)


def subset(preset, names):
    """The named fields as a dict (what a stage's fingerprint is made of)."""
    values = asdict(preset)
    return {n: values[n] for n in names}
