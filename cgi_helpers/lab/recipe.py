"""What a live run depends on: a small record that can be saved as JSON and gives the same pixels again."""

import base64
import binascii
import json
import math
from dataclasses import asdict, dataclass, fields

import numpy as np
import torch

from ..masks import MASKS, check_mask, named_mask
from ..refine import STOPS
from ..runtime import generator

FORMAT = "cgi live lab 1"
SEARCHES = ("warm start", "random start", "report's recipe")
DRAWN = "drawn:"
WARM_ITERATIONS = 100    # Adam from the encoder's answer, not whitened: measuring that matrix would take a second per drawn hole
MOST = {"iterations": 1000, "restarts": 8, "steps": 100, "seed": 10 ** 6}  # what the sliders and a loaded recipe may ask for


@dataclass(frozen=True)
class Recipe:
    """One completion. `picture`: an own image as base64 of its bytes, else "" and the test image `image` is meant;
    `hole`: a name of `masks.MASKS`, or "drawn:" and the base64 of its bits, 1 = missing, row by row."""
    image: int
    picture: str
    hole: str
    search: str          # one of SEARCHES
    lam: float           # weight of the prior loss
    iterations: int      # of the search
    restarts: int        # starts per image, the lowest loss is kept
    seed: int            # of random starts and of the probabilistic stop
    layer: int           # of G, 0 = 4x4
    step_size: float     # of the refinement
    steps: int           # of the refinement
    stop: str            # one of refine.STOPS
    epochs: float        # of shaping: which stored discriminator


def default_recipe(session):
    """From the encoder's answer by Adam, and the preset's per-image refinement with the shaping stage that validation chose."""
    p = session.preset
    stage = p.shape_stages[-1]
    if session.up_to_date("tune"):
        chosen = session.load("selection")[0]["stages"]["collaborative_independent_best"]
        stage = next(e for e in p.shape_stages if str(e) == chosen)
    return Recipe(image=0, picture="", hole=p.mask, search="warm start", lam=p.lam, iterations=WARM_ITERATIONS, restarts=1,
                  seed=session.seed, layer=p.layer, step_size=p.step_size_independent, steps=p.refine_steps, stop="best",
                  epochs=stage)


def picture_text(x):
    """An own image (1, C, size, size) in [-1, 1] as text: base64 of its rounded bytes."""
    return base64.b64encode(to_bytes(x[0]).tobytes()).decode()


def to_bytes(x):
    """Tensor in [-1, 1] -> uint8 array of the same shape."""
    return ((x.detach().cpu().float() + 1) * 127.5).round().clamp(0, 255).byte().numpy()


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
        raise ValueError(f"The recipe's {what} is damaged or of another image size: load a recipe that this page saved.")
    return np.frombuffer(content, np.uint8)


def hole_mask(recipe, session):
    """The recipe's mask (1, 1, size, size), 1 = known; a sentence if nothing or everything is missing."""
    size = session.preset.size
    if recipe.hole.startswith(DRAWN):
        bits = np.unpackbits(decode(recipe.hole[len(DRAWN):], -(-size * size // 8), "hole"))[:size * size]
        mask = 1 - torch.from_numpy(bits.astype(np.float32)).view(1, 1, size, size)
    else:
        mask = named_mask(recipe.hole, size, generator(session.seed, recipe.hole))
    known = float(mask.mean())
    if known in (0, 1):
        raise ValueError("There is no hole: draw one on the image or choose one from the list." if known == 1 else
                         "The hole covers the whole image, so there is nothing to fit: leave some pixels known.")
    return check_mask(mask, size).to(session.device)


def target(recipe, session):
    """The image to complete, (1, C, size, size) in [-1, 1] on the device."""
    p = session.preset
    if recipe.picture:
        content = decode(recipe.picture, p.channels * p.size ** 2, "picture")
        return (torch.from_numpy(content.astype(np.float32)) / 127.5 - 1).view(1, p.channels, p.size, p.size).to(session.device)
    return session.data["test"].batch([recipe.image], session.device)


def check(recipe, session):
    """Raise ValueError in one sentence for a value that this page cannot run."""
    p, split = session.preset, session.data["test"]
    choices = {"search": SEARCHES, "stop": STOPS, "epochs": p.shape_stages, "layer": range(len(bin(p.size)) - 4)}
    for name, allowed in choices.items():
        if getattr(recipe, name) not in allowed:
            raise ValueError(f"The recipe's {name} must be one of {', '.join(map(str, allowed))} but is {getattr(recipe, name)!r}.")
    lowest = {"restarts": 1}
    for name, most in {**MOST, "image": len(split) - 1}.items():
        if not lowest.get(name, 0) <= getattr(recipe, name) <= most:
            raise ValueError(f"The recipe's {name} must be between {lowest.get(name, 0)} and {most} but is {getattr(recipe, name)!r}.")
    if not (0 <= recipe.lam < math.inf and 0 < recipe.step_size < math.inf):
        raise ValueError("The recipe's lam must not be negative and its step_size must be positive; both must be finite.")
    if not recipe.hole.startswith(DRAWN) and recipe.hole not in MASKS:
        raise ValueError(f"Unknown hole {recipe.hole!r} in the recipe: use one of {', '.join(MASKS)} or draw one.")
    return recipe


def dump(recipe, session):
    """The recipe as JSON text, with the preset, its seed and the digests of the networks that it was run on."""
    nets = {a: (session.store.metadata(a) or {}).get("digest") for a in ("generator", "discriminator", "encoder", "shaped_independent")}
    return json.dumps({"format": FORMAT, "preset": session.preset.name, "preset_seed": session.seed, "networks": nets,
                       "recipe": asdict(recipe)}, indent=1) + "\n"


def parse(text, session):
    """(recipe, note) from JSON text; the note says if it was saved with other networks. ValueError in one sentence."""
    try:
        content = json.loads(text)
        if content["format"] != FORMAT:
            raise KeyError
        values = content["recipe"]
        numbers = {f.name: f.type(values[f.name]) for f in fields(Recipe)}
        if set(values) != set(numbers) or any(isinstance(values[k], str) != isinstance(v, str) for k, v in numbers.items()):
            raise KeyError
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError("This file is not a recipe that the live lab saved: choose the .json file of a saved state.") from error
    if content.get("preset") != session.preset.name:
        raise ValueError(f"This recipe was saved with preset {content.get('preset')!r}, but the page runs {session.preset.name!r}: "
                         "open the page with that preset.")
    numbers["epochs"] = next((e for e in session.preset.shape_stages if e == numbers["epochs"]), numbers["epochs"])
    recipe = check(Recipe(**numbers), session)
    same = json.loads(dump(recipe, session))["networks"] == content.get("networks") and content.get("preset_seed") == session.seed
    return recipe, "" if same else "It was saved with other networks, so its pixels differ."
