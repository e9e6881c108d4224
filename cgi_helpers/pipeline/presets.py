"""Settings. `smoke` proves that everything runs, `laptop` is the default, `desktop` has the author's prior and wider
networks, `paper` the report's sizes.

Rows that a reader adds or changes (a search, a shaping, a row of the evaluation) are entries of a preset's tables; what
the pipeline computes follows from them (`plan`). Defaults are the report's or its author's values. Standard library
only: run.py reads this before anything is installed.
"""

import os
import re
from dataclasses import dataclass, field, fields, is_dataclass, replace
from pathlib import Path


@dataclass(frozen=True)
class Networks:
    """What the networks look like, and in which precision they compute."""

    z_dim: int = 100  # latent dimensions (DCGAN)
    prior: str = "uniform"  # of z: U[-1, 1] (author) or normal N(0, 1)
    g_width: int = 128  # channels of G's last hidden block (author)
    d_width: int = 64  # channels of D's first block (author)
    classifier_width: int = 32  # channels of the classifier's first block
    encoder_width: int = 32  # channels of the encoder's first block
    judge_width: int = 64  # channels of the second classifier, an MLP-Mixer
    features: int = 128  # of both classifiers: distances need twice as many images
    amp: bool = True  # bfloat16 where the hardware has it


@dataclass(frozen=True)
class Training:
    """Iterations and learning rates of the trained networks."""

    iterations: int = 24_000  # D updates (report IV.A)
    batch_size: int = 64  # images (report IV.A)
    g_updates: int = 2  # G updates per D update (author)
    lr: float = 2e-4  # Adam (report IV.A)
    beta1: float = 0.5  # Adam (DCGAN)
    average: float | None = None  # decay of the moving average of G's weights, which then is the generator
    r1: float | None = None  # weight of the gradient penalty on real images (Mescheder et al. 2018)
    mirror: bool | None = None  # real images are mirrored at random (author)
    sample_epochs: tuple = (1, 5, 15, 25)  # figures 7-10
    classifier_iterations: int = 4_000  # batches of 128
    encoder_iterations: int = 20_000  # batches of 64, half of them G's samples
    judge_iterations: int = 2_400  # of the second classifier, batches of 128


@dataclass(frozen=True)
class Search:
    """How z-hat of an image is found: the report's recipe by default."""

    start: str = "noise"  # noise: N(0, 1), a stream per image (author), or encoder: its answer
    optimiser: str = "nesterov"  # author
    iterations: int = 1_000  # report IV.A
    lr: float = 0.01  # author
    clip: float | None = 1.0  # bound on |z| after each iteration (author)
    whiten: bool = False  # in the coordinates of `search.whitening`
    pool: int = 55_000  # first training images that are encoded, to shape on
    pool_iterations: int | None = None  # of them; None: as for the others
    batch: int = 256  # images per micro-batch (memory, not results)
    guess: str | None = None  # a rival whose completion the search also fits, inside the hole (GAN inversion)
    guess_weight: float | None = None  # of each of these pixels, in largest weights of W; None: 1

    @property
    def weight_inside(self):
        """`guess_weight` of `find_latent`."""
        return 1.0 if self.guess_weight is None else self.guess_weight


def inverted(guess, **changes):
    """The search for G's image of another method's completion, on as many training images as minutes allow."""
    return Search("encoder", "adam", 100, 0.005, None, True, 10_000, guess=guess, guess_weight=1.0, **changes)


@dataclass(frozen=True)
class Shaping:
    """How a discriminator is fine-tuned on refined samples, and with it the refinement that it then guides."""

    search: str = "report"  # what is refined: training encodings of this row of the searches, or a feed-forward net
    overlay: bool = True  # D sees the inpainted image (report V); False: the whole output (report III)
    mode: str = "batch"  # D's BatchNorm, see Discriminator.forward; batch: the report
    layer: int = 2  # 16x16 activations (report IV.B)
    steps: int = 50  # report IV.B
    step_size: float = 0.1  # report IV.B; slim networks need their own (validation)
    epochs: tuple = (0, 0.1, 0.5, 1, 1.5, 2)  # snapshots (report, figures 4 and 6); an epoch is one pass over the pool
    batch: int = 60  # images (author)
    micro_batch: int | None = None  # images of a batch that are refined together; None: all (report)
    lr: float = 2e-4  # Adam (author)
    r1: float = 0.0  # weight of the gradient penalty on real images (report: none)
    seed: int | None = None  # of the order of the batches; None: the run's own


@dataclass(frozen=True)
class Family:
    """Rows of the evaluation, one per epoch of a shaping:
    where the refinement starts, which discriminators guide it, and how far.

    None: as the shaping. In mode "field" every image is refined alone in the company of training images that stage
    `field` recorded.
    """

    search: str  # row of the searches, or of the feed-forward nets
    shaping: str  # row of the shapings
    mode: str | None = None  # D's BatchNorm, see refine
    steps: int | None = None
    step_size: float | None = None
    epochs: tuple | None = None  # of the shaping
    partner: str | None = None  # row of the shapings whose D, after the same epochs, takes part as one image's judge
    weight: float = 0.0  # of the partner's logit
    companions: int = 256  # training images that are refined together while the field is recorded


@dataclass(frozen=True)
class Feedforward:
    """A rival that is trained to fill holes, see rivals.networks."""

    kind: str  # unet, fourier_conv or context_encoder
    iterations: int  # batches of 64; chosen so that training takes ten minutes on two cores
    width: int = 16  # channels of its first block


@dataclass(frozen=True)
class Study:
    """How much is measured, what is compared, and what the notebooks assert."""

    validation_images: int = 1_000  # first validation images, for every choice
    test_images: int = 2_000  # first test images (author's table)
    micro_batch: int = 64  # images normalised together in `batch` mode (the author's at test time: 4)
    resamples: int = 2_000  # paired bootstrap
    company: tuple = (4, 16, 64, 256)  # images refined together, see stage `company`
    checked_images: int = 64  # first test images that notebook 06 computes again
    families: dict = field(
        default_factory=lambda: {
            "collaborative": Family("report", "report"),
            "collaborative_best": Family("best", "best"),
            "collaborative_independent": Family("report", "per_image"),
            "collaborative_independent_best": Family("best", "per_image"),
            "collaborative_field": Family("best", "best", mode="field", epochs=(1,)),
            # collaborative sampling, laid under the known pixels when it is over
            "collaborative_sampling": Family("report", "sampling", epochs=(1,)),
            # from the activations of nets that are no GAN
            "collaborative_unet": Family("unet", "unet", "field", epochs=(0.25,)),
            "collaborative_context_encoder": Family("context_encoder", "context_encoder", "field", epochs=(0.25,)),
            # small steps, and a tenth of the logit of the D that was shaped for single images
            "collaborative_long": Family("best", "best", "field", 120, 0.002, (1,), partner="per_image", weight=0.1),
            # from inversions of the completions of a U-Net and of a look-up
            "collaborative_unet_inverted": Family("unet_inverted", "unet_inverted", "field", 80, 0.001, (1,)),
            "collaborative_nearest_inverted": Family("nearest_inverted", "nearest_inverted", "field", 80, 0.002, (1,)),
        }
    )
    card_images: int = 500  # first test images, completed by every method of the report card
    detector_iterations: int = 200  # of the fresh detector of each method, trained on validation images
    # rows of study.rivals
    rivals: tuple = (
        "mean",
        "ridge",
        "nearest_neighbour",
        "nearest_ring",
        "telea",
        "navier_stokes",
        "biharmonic",
        "low_rank",
        "patchmatch",
        "patchmatch_training",
        "context_encoder",
        "unet",
    )
    blended: tuple = ("semantic", "semantic_best", "nearest_neighbour")  # rows that are Poisson-blended, too
    accuracy_min: float = 0.92  # of the classifier on test images (0: finiteness and invariants only)
    psnr_min: float = 23.7  # dB, row `semantic` (author: 23.713)
    ssim_min: float = 0.81  # row `semantic` (author: 0.813)


@dataclass(frozen=True)
class Preset:
    """All settings of a run."""

    name: str
    dataset: str = "fashion_mnist"  # a row of data.DATASETS
    limit: dict | None = None  # {split: number of its first images}; None: all
    channels: int = 1  # image planes
    size: int = 64  # pixels per side (report IV.A)
    mask: str = "center"  # see masks.MASKS; 25 % in the centre (report II)
    window: int = 7  # pixels, of the weight map W (Yeh et al.)
    lam: float = 1e-4  # lambda of the prior loss (report IV.A)
    networks: Networks = Networks()
    training: Training = Training()
    searches: dict = field(
        default_factory=lambda: {
            "report": Search(),
            "best": Search("encoder", "adam", 50, 0.005, clip=None, whiten=True),
            # completions of other methods, found again among the images of the generator
            "unet_inverted": inverted("unet"),
            # each batch reads all training images
            "nearest_inverted": inverted("nearest_neighbour", batch=2_000),
        }
    )
    shapings: dict = field(
        default_factory=lambda: {
            "sampling": Shaping(overlay=False),
            "report": Shaping(),
            "best": Shaping("best"),
            "per_image": Shaping("best", mode="independent", step_size=0.02),
            "unet": Shaping("unet", steps=20, step_size=0.008, epochs=(0, 0.25)),
            "context_encoder": Shaping("context_encoder", steps=20, step_size=0.008, epochs=(0, 0.25)),
            "unet_inverted": Shaping("unet_inverted", steps=20, step_size=0.008, epochs=(0, 1)),
            "nearest_inverted": Shaping("nearest_inverted", steps=20, step_size=0.008, epochs=(0, 1)),
        }
    )
    feedforward: dict = field(
        default_factory=lambda: {
            "unet": Feedforward("unet", 24_000),
            "context_encoder": Feedforward("context_encoder", 24_000),
        }
    )
    study: Study = Study()


def changed(value, changes, name="preset"):
    """`value` (a dataclass or a table of rows) with the nested `changes` (a dict) made; a row that is None is left out.
    Unknown fields raise ValueError."""
    if not isinstance(changes, dict) or not (is_dataclass(value) or isinstance(value, dict)):
        return changes
    known = value if isinstance(value, dict) else {f.name: getattr(value, f.name) for f in fields(value)}
    for key in changes:
        if key not in known and not is_dataclass(changes[key]):
            raise ValueError(f"Unknown {name} field {key!r}: known fields are {', '.join(known)}.")
    made = {key: changed(known.get(key), change, key) for key, change in changes.items()}
    if isinstance(value, dict):
        return {key: row for key, row in {**value, **made}.items() if row is not None}
    return replace(value, **made)


def _every(preset, **fields_of_shapings):
    """The preset with these fields in every row of its shapings."""
    return changed(preset, {"shapings": dict.fromkeys(preset.shapings, fields_of_shapings)})


# slim networks: 23.64 dB, 0.805 (docs/numbers.md)
_laptop = changed(
    _every(Preset("laptop"), steps=20, step_size=0.008),
    {
        "networks": {"prior": "normal", "g_width": 32, "d_width": 32},
        "training": {"iterations": 21_500, "g_updates": 1, "classifier_iterations": 2_400, "encoder_iterations": 5_000},
        "searches": {"report": {"pool": 5_000, "pool_iterations": 250}},
        "shapings": {"per_image": {"step_size": 0.006}},
        "feedforward": {"unet": {"iterations": 2_746}, "context_encoder": {"iterations": 1_336}},
        "study": {"validation_images": 500, "psnr_min": 23.4, "ssim_min": 0.80},
    },
)

# what a preset leaves out that was computed without inverted completions
_inversions = dict.fromkeys(("unet_inverted", "nearest_inverted"))
_refined_inversions = dict.fromkeys(f"collaborative_{row}" for row in _inversions)

# the author's prior and number of G updates, wider networks, the average of G's weights: for the report's own numbers
_desktop = changed(
    replace(_laptop, name="desktop"),
    {
        "networks": {"prior": "uniform", "g_width": 48, "d_width": 48},
        "training": {
            "iterations": 6_100,
            "g_updates": 2,
            "average": 0.999,
            "sample_epochs": (1, 4, 6, 7),
            "encoder_iterations": 3_000,
        },
        "searches": {
            "report": {"pool": 6_000},
            "best": {"pool": 6_000},
            **_inversions,
        },
        "shapings": {
            **_inversions,
            "sampling": {"epochs": (0, 2)},
            "unet": None,
            "context_encoder": None,
            "report": {"epochs": (0, 0.5, 1, 2)},
            "best": {"epochs": (0, 0.5, 1)},
            "per_image": {"epochs": (0, 0.5, 1)},
        },
        "study": {
            "families": {
                "collaborative_sampling": None,
                "collaborative_unet": None,
                "collaborative_context_encoder": None,
                **_refined_inversions,
                "collaborative_long": None,
                # the report's search, every image alone
                "collaborative_field_report": Family("report", "report", "field", epochs=(2,)),
            },
        },
    },
)

_smoke = changed(
    _every(Preset("smoke"), steps=4, micro_batch=20),
    {
        "limit": {"train": 1_000, "validation": 200, "test": 400},
        "networks": {
            "prior": "normal",
            "g_width": 8,
            "d_width": 8,
            "classifier_width": 8,
            "encoder_width": 8,
            "judge_width": 8,
            "features": 16,
        },
        "training": {
            "iterations": 64,
            "sample_epochs": (1, 2, 4, 6),
            "batch_size": 100,
            "g_updates": 1,
            "classifier_iterations": 60,
            "encoder_iterations": 60,
            "judge_iterations": 30,
        },
        "feedforward": {"unet": {"iterations": 10, "width": 4}, "context_encoder": {"iterations": 5, "width": 4}},
        "searches": {
            "report": {"iterations": 40, "pool": 240, "pool_iterations": 10},
            "best": {"iterations": 10, "pool": 240},
            "unet_inverted": {"iterations": 10, "pool": 240},
            "nearest_inverted": {"iterations": 10, "pool": 240},
        },
        "shapings": {
            row: {"epochs": (0, 0.1)} for row in ("unet", "context_encoder", "unet_inverted", "nearest_inverted")
        },
        "study": {
            "families": {
                "collaborative_field": {"companions": 20},
                "collaborative_long": {"companions": 20, "steps": 6},
                "collaborative_unet": {"companions": 20, "epochs": (0.1,)},
                "collaborative_context_encoder": {"companions": 20, "epochs": (0.1,)},
                "collaborative_unet_inverted": {"companions": 20, "steps": 6, "epochs": (0.1,)},
                "collaborative_nearest_inverted": {"companions": 20, "steps": 6, "epochs": (0.1,)},
            },
            "company": (4, 16),
            "card_images": 64,
            "detector_iterations": 4,
            "rivals": ("mean", "nearest_neighbour", "unet"),
            "validation_images": 64,
            "test_images": 128,
            "resamples": 100,
            "accuracy_min": 0.0,
            "psnr_min": 0.0,
            "ssim_min": 0.0,
        },
    },
)


def _other(name, **changes):
    """A preset of another data set: laptop's settings, with the generator's weights averaged, and these changes.

    Pools and numbers of snapshots keep what is shipped below 20 MB and what is computed below an hour on two cores.
    """
    few = {row: {"epochs": (0, 0.5, 1)} for row in ("report", "best")}
    few |= {row: {"epochs": (0, 1)} for row in ("sampling", "per_image")}
    general = {
        "limit": {"train": 20_000},
        "training": {
            "average": 0.999,
            "sample_epochs": (1, 5, 10, 15),
            "classifier_iterations": 1_500,
            "judge_iterations": 1_500,
            "encoder_iterations": 3_000,
        },
        "searches": {"report": {"pool": 3_000}, "best": {"pool": 20_000}},
        "feedforward": {"unet": {"iterations": 1_500}, "context_encoder": {"iterations": 1_000}},
        "shapings": few,
        "study": {"test_images": 1_000},
    }
    return changed(changed(replace(_laptop, name=name, dataset=name), general), changes)


_without_ridge = tuple(name for name in _laptop.study.rivals if name != "ridge")

# at no step size does refinement gain PSNR here (benchmarks/results/sweep_mnist.json): this one for the distance
_mnist = _other(
    "mnist",
    size=32,
    training={"iterations": 6_000},
    shapings={"best": {"step_size": 0.03, "epochs": (0, 0.5, 1, 2, 4)}},
    study={"psnr_min": 15.8, "ssim_min": 0.69},
)
# without ridge regression: its matrix has 9,216 known numbers squared, ten minutes for one row
_avatars = _other(
    "avatars",
    channels=3,
    networks={"d_width": 24, "encoder_width": 16},
    training={
        "iterations": 3_000,
        "mirror": True,
        "classifier_iterations": 600,
        "judge_iterations": 600,
        "encoder_iterations": 1_500,
    },
    searches={
        "report": {"iterations": 400, "pool": 1_000, "pool_iterations": 200},
        "best": {"pool": 4_000},
        **_inversions,
    },
    shapings=_inversions,
    feedforward={"unet": {"iterations": 800}, "context_encoder": {"iterations": 500}},
    study={
        "validation_images": 300,
        "test_images": 500,
        "card_images": 300,
        "rivals": _without_ridge,
        # as evaluated: with the D of feed-forward nets as trained, too, without sampling
        "families": {
            **_refined_inversions,
            "collaborative_sampling": None,
            "collaborative_unet": {"epochs": None},
            "collaborative_context_encoder": {"epochs": None},
        },
        "psnr_min": 23.4,
        "ssim_min": 0.75,
    },
)
_cifar10 = _other(
    "cifar10",
    channels=3,
    size=32,
    networks={"g_width": 48, "d_width": 48},
    training={"iterations": 10_000, "mirror": True, "classifier_iterations": 4_000},
    searches=_inversions,
    shapings=_inversions,
    study={"families": _refined_inversions, "accuracy_min": 0.75, "psnr_min": 20.0, "ssim_min": 0.62},
)

PRESETS = {p.name: p for p in (_smoke, _laptop, _desktop, _mnist, _avatars, _cifar10, Preset("paper"))}


def own_images(dataset):
    """The preset of "folder:PATH": colour at 64x64, trained for minutes, named after the folder.

    Few features, so that a tenth of some hundred images is enough for distances; no bands that notebooks assert.
    ValueError if there is no such folder, before a notebook starts.
    """
    path = Path(dataset.removeprefix("folder:")).expanduser().resolve()
    if not path.is_dir():
        raise ValueError(f"{path} is no folder: name one with PNG, JPEG or WebP files.")
    name = "own-" + (re.sub(r"[^A-Za-z0-9_.]+", "-", path.name).strip("-.") or "images")
    bands = {"accuracy_min": 0.0, "psnr_min": 0.0, "ssim_min": 0.0}
    return _other(
        name,
        dataset=f"folder:{path}",
        channels=3,
        networks={"features": 16},
        training={"iterations": 3_000, "classifier_iterations": 600, "judge_iterations": 600},
        searches={
            "report": {"iterations": 400, "pool": 1_000, "pool_iterations": 200},
            "best": {"pool": 4_000},
            **dict.fromkeys(_inversions, {"pool": 1_000}),
        },
        feedforward={"unet": {"iterations": 800}, "context_encoder": {"iterations": 500}},
        study={"validation_images": 300, "card_images": 100, "rivals": _without_ridge, **bands},
    )


def get_preset(name=None, /, **changes):
    """Preset `name` (None: `$CGI_PRESET`, else laptop), or one given as such, with fields replaced.

    The name of a data set stands for its first preset beside smoke, "folder:PATH" for `own_images`. Nested fields and
    rows by dicts: `get_preset("smoke", lam=0, training={"iterations": 3}, searches={"best": {"lr": 0.01}})`; a new row
    is a whole dataclass. ValueError for unknown names and fields.
    """
    if not isinstance(name, Preset):
        name = name or os.environ.get("CGI_PRESET") or "laptop"
        of = {p.dataset: p for p in reversed(PRESETS.values()) if p.name != "smoke"}
        if name.startswith("folder:"):
            return changed(own_images(name), changes)
        if name not in PRESETS and name not in of:
            known = ", ".join(PRESETS)
            raise ValueError(f"Unknown preset {name!r}: use one of {known}, or folder:PATH for own images.")
        name = PRESETS.get(name) or of[name]
    return changed(name, changes)
