"""What a live run depends on: a small record that can be saved as JSON and gives the same pixels again."""

import base64
import binascii
import hashlib
import json
from dataclasses import asdict, dataclass, fields, replace
from reprlib import repr as brief

import numpy as np
import torch

from ..data import convert
from ..method.masks import MASKS, check_mask, named_mask
from ..method.refine import STOPS
from ..method.runtime import fast_dtype, generator
from ..pipeline.evaluation import path_of, stages_of

FORMAT = "cgi live lab 3"
SEARCHES = ("warm start", "random start", "report's recipe", "encoder alone")
INVERTED = "_inverted"  # how rows of the searches end that fit what another method has completed
DRAWN = "drawn:"
WARM_ITERATIONS = 100  # Adam from the encoder's answer, not whitened: that matrix takes a second per drawn hole
# what the knobs offer and a recipe may ask for; lam may be 0, too
RANGES = {
    "lam": (1e-6, 10.0),
    "iterations": (0, 1000),
    "restarts": (1, 8),
    "seed": (0, 2**31 - 1),
    "step_size": (1e-4, 1.0),
    "steps": (0, 200),
}
TYPES = {int: (int,), float: (int, float), str: (str,)}  # of JSON's values for a field; bool is none of them
RECORDED, NOBODY = "recorded", "none"  # a single image is judged in the recorded company of training images, or alone
COMPANY = {RECORDED: "best", NOBODY: "per_image"}  # company -> row of the shapings whose discriminators judge in it
FAMILY = "collaborative_field"  # of the study: the refinement that the page begins with
FACTS = {
    "networks": "other networks",
    "preset_seed": "another seed of the session",
    "device": "another kind of device",
    "precision": "another precision",
    "torch": "another version of torch",
    "original": "another image of this number",
}


@dataclass(frozen=True)
class Recipe:
    """One completion. `picture`: an own image as base64 of its bytes, else "" and the test image `image` is meant;
    `hole`: a name of `masks.MASKS`, or "drawn:" and the base64 of its bits, 1 = missing, row by row."""

    image: int
    picture: str
    hole: str
    search: str  # one of `searches`
    lam: float  # weight of the prior loss
    iterations: int  # of the search ("encoder alone" and feed-forward nets make none)
    restarts: int  # starts per image, the lowest loss is kept
    seed: int  # of random starts and of the probabilistic stop
    layer: int  # of G, 0 = 4x4
    step_size: float  # of the refinement
    steps: int  # of the refinement
    stop: str  # one of refine.STOPS
    epochs: float  # of shaping: which stored discriminator
    company: str  # a key of COMPANY

    def __post_init__(self):
        if self.picture:  # nothing may depend on the number of a test image that is not shown
            object.__setattr__(self, "image", 0)
        if self.search not in SEARCHES[:-1] and not self.search.endswith(INVERTED):
            object.__setattr__(self, "iterations", 0)


def default_recipe(session):
    """From the encoder's answer by Adam, then as the study refines single images: in the recorded company."""
    p, family = session.preset, session.preset.study.families[FAMILY]
    path = path_of(session, family)
    return Recipe(
        image=0,
        picture="",
        hole=p.mask,
        search="warm start",
        lam=p.lam,
        iterations=WARM_ITERATIONS,
        restarts=1,
        seed=session.seed % (RANGES["seed"][1] + 1),
        stop="best",
        epochs=stages_of(p, family)[-1],
        company=RECORDED,
        **path,
    )


def searches(session):
    """Where a run may start: SEARCHES of a latent, feed-forward nets of the preset, whose decoder is refined, and
    searches for G's image of such a net's answer."""
    p = session.preset
    rows = (
        *p.feedforward,
        *(r for r, search in p.searches.items() if search.guess in p.feedforward and r.endswith(INVERTED)),
    )
    return (*SEARCHES, *(row for row in rows if f"collaborative_{row}" in p.study.families))


def shaping_of(recipe, session):
    """(row of the shapings, epochs): which stored discriminator judges.

    A feed-forward net and an inversion have one D that was shaped on their own completions: for any number of epochs
    above 0.
    """
    if recipe.search in SEARCHES or recipe.company != RECORDED or not recipe.epochs:
        return COMPANY[recipe.company], recipe.epochs
    return recipe.search, session.preset.shapings[recipe.search].epochs[-1]


def family_of(recipe):
    """The family of the study that refines from the recipe's start."""
    return FAMILY if recipe.search in SEARCHES else f"collaborative_{recipe.search}"


def networks(recipe, session):
    """The artifacts whose digests a recipe tells: what its pixels may depend on."""
    search, own = session.preset.searches.get(recipe.search), ()
    if recipe.search not in SEARCHES:
        net = search.guess if search else recipe.search
        fitted = (f"fitted_{net}",) if net in session.preset.feedforward else ()
        own = (*fitted, *((f"encodings_{recipe.search}",) if search else ()), f"shaped_{recipe.search}")
    shaped = (*(f"shaped_{row}" for row in COMPANY.values()), "encodings_best", f"field_{family_of(recipe)}")
    return ("generator", "discriminator", "encoder", *shaped, *own)


def epochs(session):
    """The epochs of shaping after which discriminators for both kinds of company are stored."""
    first, *others = (session.preset.shapings[row].epochs for row in COMPANY.values())
    return tuple(e for e in first if all(e in other for other in others))


def layers(session):
    """Numbers of G's layers: 0 is 4x4, the last one the image."""
    return range(session.preset.size.bit_length() - 2)


def picture_text(x):
    """An own image (1, C, size, size) in [-1, 1] as text: base64 of its rounded bytes."""
    return base64.b64encode(to_bytes(x[0]).tobytes()).decode()


def to_bytes(x):
    """Tensor in [-1, 1] -> uint8 array of the same shape."""
    return convert.to_bytes(x).numpy()


def hole_text(mask):
    """A mask (1, 1, size, size), 1 = known, as text."""
    return DRAWN + base64.b64encode(np.packbits(mask.flatten().cpu().numpy() == 0).tobytes()).decode()


def decode(text, count, what):
    """Bytes of a base64 text; ValueError in one sentence unless there are `count`."""
    try:
        content = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        content = b""
    if len(content) != count:
        raise ValueError(f"The recipe's {what} is damaged or of another image size: load one that this page saved.")
    return np.frombuffer(content, np.uint8)


def hole_mask(recipe, session):
    """The recipe's mask (1, 1, size, size), 1 = known; a sentence if nothing or everything is missing."""
    size = session.preset.size
    if recipe.hole.startswith(DRAWN):
        bits = np.unpackbits(decode(recipe.hole[len(DRAWN) :], -(-size * size // 8), "hole"))[: size * size]
        mask = 1 - torch.from_numpy(bits.astype(np.float32)).view(1, 1, size, size)
    else:
        mask = named_mask(recipe.hole, size, generator(session.seed, recipe.hole))
    known = float(mask.mean())
    if known in (0, 1):
        raise ValueError(
            "There is no hole: draw one on the image or choose one from the list."
            if known == 1
            else "The hole covers the whole image, so there is nothing to fit: leave some pixels known."
        )
    return check_mask(mask, size).to(session.device)


def target(recipe, session):
    """The image to complete, (1, C, size, size) in [-1, 1] on the device."""
    p = session.preset
    if recipe.picture:
        content = decode(recipe.picture, p.channels * p.size**2, "picture")
        x = torch.from_numpy(content.astype(np.float32)) / 127.5 - 1
        return x.view(1, p.channels, p.size, p.size).to(session.device)
    return session.data["test"].batch([recipe.image], session.device)


def check(recipe, session):
    """Raise ValueError in one sentence for a value that this page cannot run."""
    split = session.data["test"]
    choices = {
        "search": searches(session),
        "stop": STOPS,
        "epochs": epochs(session),
        "layer": layers(session),
        "company": COMPANY,
    }
    for name, allowed in choices.items():
        if getattr(recipe, name) not in allowed:
            raise ValueError(
                f"The recipe's {name} must be one of {', '.join(map(str, allowed))} "
                f"but is {brief(getattr(recipe, name))}."
            )
    for name, (low, high) in {**RANGES, "image": (0, len(split) - 1)}.items():
        value = getattr(recipe, name)
        if not low <= value <= high and not (name == "lam" and value == 0):
            raise ValueError(f"The recipe's {name} must be between {low:g} and {high} but is {brief(value)}.")
    if not recipe.hole.startswith(DRAWN) and recipe.hole not in MASKS:
        raise ValueError(f"Unknown hole {brief(recipe.hole)} in the recipe: use one of {', '.join(MASKS)} or draw one.")
    return recipe


def facts(recipe, session):
    """What the pixels depend on beside the recipe:
    networks, seed, device, precision, torch, the image behind its number."""
    nets = {a: (session.store.metadata(a) or {}).get("digest") for a in networks(recipe, session)}
    precision = fast_dtype(session.device) if session.preset.networks.amp else None
    original = hashlib.sha256(to_bytes(target(recipe, session)).tobytes()).hexdigest()[:16]
    return {
        "networks": nets,
        "preset_seed": session.seed,
        "device": session.device.type,
        "original": original,
        "precision": str(precision or torch.float32),
        "torch": torch.__version__,
    }


def dump(recipe, session, frame=None):
    """The recipe as JSON text, with the preset, its `facts` and the number of the frame shown (None: the last)."""
    return (
        json.dumps(
            {
                "format": FORMAT,
                "preset": session.preset.name,
                **facts(recipe, session),
                "frame": frame,
                "recipe": asdict(recipe),
            },
            indent=1,
        )
        + "\n"
    )


def parse(content, session):
    """(recipe, frame, note) from JSON (text or bytes) whose every value was tried; the note says what was different
    where it was saved. ValueError in one sentence."""
    try:
        content = json.loads(content)
        values, frame = content["recipe"], content.get("frame")
        if content["format"] != FORMAT or set(values) != {f.name for f in fields(Recipe)}:
            raise KeyError
        if type(frame) not in (int, type(None)) or any(
            type(values[f.name]) not in TYPES[f.type] for f in fields(Recipe)
        ):
            raise TypeError
        recipe = Recipe(**{f.name: f.type(values[f.name]) for f in fields(Recipe)})
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise ValueError(
            "This file is not a recipe that the live lab saved: choose a .json file that it saved."
        ) from error
    if content.get("preset") != session.preset.name:
        raise ValueError(
            f"This recipe was saved with preset {brief(content.get('preset'))}, but the page runs "
            f"{session.preset.name!r}: choose that preset first."
        )
    check(recipe, session)
    hole_mask(recipe, session)
    last = recipe.iterations + recipe.steps + 1
    if frame is not None and not 0 <= frame <= last:
        raise ValueError(f"The recipe's frame must be between 0 and {last} but is {brief(frame)}.")
    stage = next(e for e in epochs(session) if e == recipe.epochs)  # 2.0 means the stage 2
    recipe, here = replace(recipe, epochs=stage), facts(recipe, session)
    other = [text for name, text in FACTS.items() if content.get(name) != here[name]]
    return recipe, frame, f"It was saved with {' and '.join(other)}, so its pixels may differ." if other else ""
