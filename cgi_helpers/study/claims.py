"""What the report and the papers it stands on claim, and what our numbers say: the words follow the table.

A claim names comparisons (metric, method, other method) that must all come out in the method's favour, each by a paired
test at 5 % after Holm's adjustment over the whole table (`judges.card_table`).

confirmed: all of them do. refuted: at least one comes out the other way and none in favour. undecided: everything else,
with the reason: differences within their noise, measures that disagree, or a method that was not run.
"""

from dataclasses import dataclass

from .statistics import LEVEL

REALISM = ("frechet_distance", "kernel_distance_2", "detectability")  # three judges that share no weights
FIDELITY = ("psnr", "ssim")
NAMES = {
    "psnr": "PSNR (dB)",
    "ssim": "SSIM",
    "seam": "seam",
    "label_agreement": "label agreement",
    "label_agreement_2": "label agreement, second classifier",
    "frechet_distance": "Fréchet distance",
    "frechet_distance_2": "Fréchet distance, second classifier",
    "kernel_distance": "kernel distance",
    "kernel_distance_2": "kernel distance, second classifier",
    "recall": "recall",
    "detectability": "detectability",
    "detectability_others": "detectability by the others",
}


@dataclass(frozen=True)
class Claim:
    """`method` is better than `other` by all of `metrics`."""

    source: str
    text: str
    method: str
    other: str
    metrics: tuple


CLAIMS = (
    Claim(
        "report, abstract and VII",
        "Collaborative inpainting looks more real than semantic inpainting.",
        "collaborative",
        "semantic",
        REALISM,
    ),
    Claim(
        "the author's table",
        "Collaborative inpainting is closer to the original (there by 0.77 dB and 0.021).",
        "collaborative",
        "semantic",
        FIDELITY,
    ),
    Claim(
        "this suite",
        "It still looks more real where the search was good already.",
        "collaborative_best",
        "semantic_best",
        REALISM,
    ),
    Claim(
        "this suite",
        "It is still closer to the original where the search was good already.",
        "collaborative_best",
        "semantic_best",
        FIDELITY,
    ),
    Claim(
        "this suite",
        "The gain is more than what the same time buys in a longer search.",
        "collaborative_best",
        "semantic_equal_time",
        ("psnr", *REALISM),
    ),
    Claim(
        "Yeh et al., Poisson blending",
        "Poisson blending brings semantic inpainting closer to the original and hides the seam.",
        "semantic_poisson",
        "semantic",
        ("psnr", "seam"),
    ),
    Claim(
        "this suite",
        "Collaboration beats semantic inpainting as Yeh et al. finish it, with Poisson blending.",
        "collaborative_best",
        "semantic_best_poisson",
        ("psnr", *REALISM),
    ),
    Claim(
        "Liu et al.; report III.B",
        "Refinement by D as training left it already makes images look more real.",
        "collaborative_0",
        "semantic",
        REALISM,
    ),
    Claim(
        "report IV.B, figure 6",
        "Shaping D makes them look more real than D as training left it.",
        "collaborative",
        "collaborative_0",
        REALISM,
    ),
    Claim(
        "this suite",
        "A D that was shaped to judge every image alone makes completions look more real.",
        "collaborative_independent_best",
        "semantic_best",
        REALISM,
    ),
    Claim(
        "this suite",
        "So does the recorded company of training images, played back to one image at a time.",
        "collaborative_field",
        "semantic_best",
        REALISM,
    ),
    Claim(
        "report I, from Yeh et al.",
        "Semantic inpainting beats low rank completion.",
        "semantic",
        "low_rank",
        ("psnr", *REALISM),
    ),
    Claim(
        "report I, from Yeh et al.",
        "Semantic inpainting beats PatchMatch.",
        "semantic",
        "patchmatch",
        ("psnr", *REALISM),
    ),
    Claim(
        "report I, from Yeh et al.",
        "Semantic inpainting beats Context Encoders.",
        "semantic",
        "context_encoder",
        ("psnr", *REALISM),
    ),
    Claim(
        "report VII",
        "The method carries over to other generators: a U-Net's completions look more real refined.",
        "collaborative_unet",
        "unet",
        REALISM,
    ),
    Claim(
        "report VII",
        "So do a Context Encoder's, which was trained against a discriminator itself.",
        "collaborative_context_encoder",
        "context_encoder",
        REALISM,
    ),
    Claim(
        "this suite",
        "A U-Net's completion looks more real once it is found again among the generator's images and refined there.",
        "collaborative_unet_inverted",
        "unet",
        REALISM,
    ),
    Claim(
        "this suite",
        "Refined from there, a completion is better than refined from the best search.",
        "collaborative_unet_inverted",
        "collaborative_long",
        ("psnr", *REALISM),
    ),
    Claim(
        "this suite",
        "It is better than what a Context Encoder paints, which was trained on such holes against a discriminator.",
        "collaborative_unet_inverted",
        "context_encoder",
        ("psnr", *REALISM),
    ),
    Claim(
        "this suite",
        "What a look-up pastes comes closer to the original and loses its seam, found again and refined in that way.",
        "collaborative_nearest_inverted",
        "nearest_neighbour",
        ("psnr", "seam"),
    ),
)
BLUR_AND_TEXTURE = tuple((blurred, "nearest_neighbour") for blurred in ("ridge", "unet"))  # for `disagreement`
PAIRS = tuple(dict.fromkeys((*((c.method, c.other) for c in CLAIMS), *BLUR_AND_TEXTURE)))  # of a `card_table`


def side(row: dict) -> int:
    """+1, -1 or 0: the method is better, worse, or neither is shown."""
    return 0 if row["p_holm"] >= LEVEL else 1 if row["mean"] > 0 else -1


def evidence(metric: str, row: dict) -> str:
    """One comparison in words."""
    low, high = row["ci95"]
    return f"{NAMES.get(metric, metric)} {row['mean']:+.3g} [{low:.3g}, {high:.3g}]"


def decide(claim: Claim, table: dict) -> tuple[str, str]:
    """(verdict, evidence) of one claim."""
    pair = table["pairs"].get(f"{claim.method} - {claim.other}")
    missing = [name for name in (claim.method, claim.other) if name not in table["methods"]]
    if missing or pair is None:
        return "undecided", f"{' and '.join(missing) or 'this comparison'} was not run"
    rows = {m: pair[m] for m in claim.metrics if m in pair}
    sides = [side(row) for row in rows.values()]
    words = "; ".join(evidence(m, row) for m, row in rows.items())
    if sides and min(sides) == 1:
        return "confirmed", words
    if sides and min(sides) == -1 and max(sides) < 1:
        return "refuted", words
    disagree = min(sides, default=0) == -1
    why = "within its noise" if not any(sides) else "the measures disagree" if disagree else "not in every measure"
    return "undecided", f"{why}: {words}"


def disagreement(table: dict) -> tuple[str, str]:
    """Report VI: pairs of methods of which PSNR prefers one and a measure of realism the other."""
    found = [
        f"{pair} ({evidence('psnr', row['psnr'])}, {evidence(m, row[m])})"
        for pair, row in table["pairs"].items()
        for m in REALISM[1:]
        if m in row and side(row["psnr"]) * side(row[m]) == -1
    ]
    return ("confirmed", "; ".join(found[:3])) if found else ("undecided", "no pair of this table shows it")


def corner(table: dict) -> tuple[str, str]:
    """The aim: a collaborative method that no other beats, neither in PSNR nor in realism."""
    measures = [m for m in ("psnr", *REALISM[1:]) if m in table["leaders"]]
    beaten = {
        name: [NAMES[m] for m in measures if table["leaders"][m].get(name, "worse") == "worse"]
        for name in table["methods"]
        if name.startswith("collaborative")
    }
    free = [name for name, where in beaten.items() if not where]
    if not beaten or len(measures) < 3:
        return "undecided", "PSNR, kernel distance and detectability of a collaborative method were not all measured"
    words = "; ".join(f"{name} is beaten in {', '.join(where)}" for name, where in beaten.items() if where)
    return ("confirmed", f"not beaten: {', '.join(free)}") if free else ("refuted", words)


SPECIAL = (
    ("report VI, from Yeh et al.", "PSNR can prefer the completion that looks less real.", disagreement),
    ("this suite", "A collaborative method is beaten by no other, in PSNR and in realism at once.", corner),
)


def judge(table: dict) -> list[dict]:
    """[{"source", "claim", "verdict", "evidence"}] of every claim, from a `judges.card_table`."""
    rows = [(c.source, c.text, *decide(c, table)) for c in CLAIMS]
    rows += [(source, text, *rule(table)) for source, text, rule in SPECIAL]
    return [dict(zip(("source", "claim", "verdict", "evidence"), row)) for row in rows]
