"""The controls of the live lab: one row per field of a recipe, with its unit, range and a sentence of explanation."""

import math

import ipywidgets as widgets

from ..method.refine import STOPS
from .logslider import LogSlider
from .recipe import RANGES, SEARCHES

WIDTH, LABEL = "334px", "128px"
REPORT_LAM, YEH_LAM = 1e-4, 3e-3   # lambda of the report (IV.A) and of Yeh et al. (2017)


def _common(label, hint, **layout):
    return dict(description=label, tooltip=hint, style={"description_width": LABEL}, layout=widgets.Layout(width=WIDTH, **layout))


def whole(label, hint, limits, value):
    """Slider of whole numbers, its number can be typed. Every number is a step: the browser would round what is typed or loaded."""
    return widgets.IntSlider(value=value, min=limits[0], max=limits[1], **_common(label, hint))


def logarithmic(label, hint, limits, value):
    """Slider of positive numbers over decades, its number can be typed."""
    return LogSlider(value, *limits, description=label, tooltip=hint, width=WIDTH, label=LABEL)


def choice(label, hint, options, value):
    """Menu."""
    return widgets.Dropdown(options=options, value=value, **_common(label, hint))


def make_knobs(session, recipe):
    """{recipe field: widget} with the values of `recipe`."""
    p = session.preset
    layers = [(f"{i}: {4 * 2 ** i}x{4 * 2 ** i}" + (" (the image)" if 4 * 2 ** i == p.size else ""), i)
              for i in range(int(math.log2(p.size)) - 1)]
    stages = [("0 epochs: not shaped" if not e else f"{e:g} epoch{'s' if e > 1 else ''}", e) for e in p.shapings["per_image"].epochs]
    return {
        "search": choice("search", "Where the latent search starts and how it walks: from the encoder's answer or from noise by Adam, "
                                   "or the report's recipe (noise, Nesterov, |z| at most 1).", list(SEARCHES), recipe.search),
        "iterations": whole("iterations", "Steps of the latent search; each is one pass through G and back.", RANGES["iterations"],
                            recipe.iterations),
        "lam": logarithmic("lambda (no unit)", "Weight of the prior loss: how much the search cares that D finds the picture real.",
                           RANGES["lam"], recipe.lam),
        "restarts": whole("starts per image", "The search runs from so many starts at once and keeps the one with the lowest loss.",
                          RANGES["restarts"], recipe.restarts),
        "seed": widgets.BoundedIntText(value=recipe.seed, min=RANGES["seed"][0], max=RANGES["seed"][1],
                                       **_common("seed", "Chooses the random starts and the draws of the probabilistic stop.")),
        "layer": choice("layer of G", "The activations that D's gradient moves: early layers change shapes, late ones pixels.",
                        layers, recipe.layer),
        "step_size": logarithmic("step size", "How far one refinement step moves the activations along D's gradient (momentum 0.9).",
                                 RANGES["step_size"], recipe.step_size),
        "steps": whole("refinement steps", "Number of refinement steps.", RANGES["steps"], recipe.steps),
        "stop": choice("stopping rule", "Which step is the result: the one with D's best score, the first one above real images' median, "
                                        "or a random one.", list(STOPS), recipe.stop),
        "epochs": choice("shaping of D", "Which stored discriminator refines: after so many epochs of shaping on refined samples.",
                         stages, recipe.epochs),
    }


def lambda_marks(slider):
    """Two buttons under the lambda slider that mark, and set, the report's value and Yeh's."""
    def button(text, value, hint):
        b = widgets.Button(description=text, tooltip=hint, layout=widgets.Layout(width="auto", height="26px", flex="0 0 auto"))
        b.on_click(lambda _: setattr(slider, "value", value))
        return b
    marks = [button(f"{REPORT_LAM:g} report", REPORT_LAM, "Set lambda to the report's value."),
             button(f"{YEH_LAM:g} Yeh", YEH_LAM, "Set lambda to the value of Yeh et al. (2017).")]
    return widgets.HBox(marks, layout=widgets.Layout(padding="0 0 0 100px"))  # both fit beside each other
