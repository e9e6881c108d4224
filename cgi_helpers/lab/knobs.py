"""The controls of the live lab: one row per field of a recipe, with its unit, range and a sentence of explanation."""

import ipywidgets as widgets

from ..method.refine import STOPS
from .number import Number
from .recipe import COMPANY, RANGES, epochs, layers, searches

WIDTH, LABEL = "334px", "128px"
REPORT_LAM, YEH_LAM = 1e-4, 3e-3  # lambda of the report (IV.A) and of Yeh et al. (2017)


def make_knobs(session, recipe):
    """{recipe field: widget} with the values of `recipe`."""

    def number(field, label, hint, **options):
        return Number(getattr(recipe, field), *RANGES[field], label, hint, width=WIDTH, label=LABEL, **options)

    def choice(field, label, hint, options):
        return widgets.Dropdown(
            options=options,
            value=getattr(recipe, field),
            description=label,
            tooltip=hint,
            style={"description_width": LABEL},
            layout=widgets.Layout(width=WIDTH),
        )

    sides = [(i, 4 * 2**i) for i in layers(session)]
    names = [(f"{i}: {side}x{side}" + " (the image)" * (side == session.preset.size), i) for i, side in sides]
    stages = [(f"{e:g} epoch{'s' * (e > 1 or not e)}" + ": not shaped" * (not e), e) for e in epochs(session)]
    return {
        "search": choice(
            "search",
            "search",
            "Where the latent search starts and how it walks: from the encoder's answer or from "
            "noise by Adam, or the report's recipe (noise, Nesterov, |z| at most 1). Or the answer of a feed-forward "
            "net, without a search: its decoder is refined then; or (inverted) a search for G's image of that answer, "
            "which the study refines by 80 steps of 0.001.",
            list(searches(session)),
        ),
        "iterations": number(
            "iterations",
            "iterations",
            "Steps of the latent search; each is one pass through G and back. "
            "0: the start itself, as the encoder alone.",
        ),
        "lam": number(
            "lam",
            "lambda (no unit)",
            "Weight of the prior loss: how much the search cares that D finds the picture real. 0: not at all.",
            zero=True,
        ),
        "restarts": number(
            "restarts",
            "starts per image",
            "The search runs from so many starts at once and keeps the one with the lowest loss.",
        ),
        "seed": number(
            "seed", "seed", "Chooses the random starts and the draws of the probabilistic stop.", slider=False
        ),
        "layer": choice(
            "layer",
            "layer of G",
            "The activations that D's gradient moves: early layers change shapes, late ones pixels.",
            names,
        ),
        "step_size": number(
            "step_size",
            "step size",
            "How far one refinement step moves the activations along D's gradient (momentum 0.9).",
        ),
        "steps": number("steps", "refinement steps", "Number of refinement steps."),
        "stop": choice(
            "stop",
            "stopping rule",
            "Which step is the result: the one with D's best score, the first one above real "
            "images' median, or a random one.",
            list(STOPS),
        ),
        "epochs": choice(
            "epochs",
            "shaping of D",
            "Which stored discriminator refines: after so many epochs of shaping on refined samples.",
            stages,
        ),
        "company": choice(
            "company",
            "company of D",
            "What D compares the image with: the recorded company of training images (for a drawn hole it is recorded "
            "first, which takes seconds), or nobody, by the statistics of its training.",
            list(COMPANY),
        ),
    }


def lambda_marks(knob):
    """Two buttons under the lambda slider that mark, and set, the report's value and Yeh's."""

    def button(text, value, hint):
        b = widgets.Button(
            description=text, tooltip=hint, layout=widgets.Layout(width="auto", height="26px", flex="0 0 auto")
        )
        b.on_click(lambda _: setattr(knob, "value", value))
        return b

    marks = [
        button(f"{REPORT_LAM:g} report", REPORT_LAM, "Set lambda to the report's value."),
        button(f"{YEH_LAM:g} Yeh", YEH_LAM, "Set lambda to the value of Yeh et al. (2017)."),
    ]
    return widgets.HBox(marks, layout=widgets.Layout(padding="0 0 0 100px"))  # both fit beside each other
