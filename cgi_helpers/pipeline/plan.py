"""What a preset asks to be computed: its stages in order, what each depends on, reads and writes.

A stage is called by its kind and, where a preset has several rows of that kind, by its row: "encode best". The rows of
the preset's tables are the only place where they are listed.
"""

from dataclasses import asdict, dataclass

KINDS = {
    "train": "the GAN: generator, discriminator, history",
    "classifier": "the network that labels are read and distances measured in",
    "encoder": "the warm start of the search",
    "encode": "z-hat of images by a row of the searches",
    "shape": "discriminators fine-tuned by a row of the shapings",
    "field": "what the company of training images does to a refinement, recorded for single images",
    "company": "how a refinement depends on who is refined together, on validation images",
    "tune": "every choice made on validation images",
    "evaluate": "every row scored on test images",
    "judge": "a second classifier, of another architecture",
    "fit": "a feed-forward rival, trained to fill holes",
    "card": "every method before all judges, on test images",
}

LEARNT = ("lr", "r1", "micro_batch", "batch")  # fields of a shaping that are told by what it wrote


@dataclass(frozen=True)
class Stage:
    """One stage; `settings` and the contents of what it reads decide whether its results are up to date."""

    name: str
    settings: dict
    reads: tuple = ()  # artifacts of other stages
    writes: tuple = ()
    shared: bool = False  # whether several processes work on it together

    @property
    def kind(self):
        """The function of `stages.FUNCTIONS` that computes it."""
        return self.name.split(" ")[0]

    @property
    def row(self):
        """The row that it is about, or ""."""
        return self.name.partition(" ")[2]


def facts(settings, *without):
    """The fields of a dataclass as a dict;
    a field that is None asks for nothing and is left out, so that new ones change nothing."""
    return {k: v for k, v in asdict(settings).items() if v is not None and k not in without}


def shaped_rows(preset):
    """The rows of the shapings that the families of the evaluation use, each once, in order."""
    rows = [row for family in preset.study.families.values() for row in (family.shaping, family.partner) if row]
    return tuple(dict.fromkeys(rows))


def starts(preset):
    """Where the rows of the evaluation begin: two searches and what else its families name."""
    return tuple(dict.fromkeys(("report", "best", *(family.search for family in preset.study.families.values()))))


def start_reads(preset, row):
    """The artifacts that `Session.start_of` reads for this row."""
    return (f"fitted_{row}",) if row in preset.feedforward else ("generator", f"encodings_{row}")


def plan(preset):
    """{name: Stage} of everything that `preset` computes, in an order in which it can be computed."""
    p, n, t, study = preset, preset.networks, preset.training, preset.study
    images = {
        "dataset": p.dataset,
        "channels": p.channels,
        "size": p.size,
        "amp": n.amp,
        **({"limit": p.limit} if p.limit else {}),
    }
    network = {**images, "z_dim": n.z_dim, "prior": n.prior, "g_width": n.g_width, "d_width": n.d_width}
    hole, gan = (
        {"mask": p.mask, "window": p.window},
        facts(t, "classifier_iterations", "encoder_iterations", "judge_iterations"),
    )
    counts = {"validation_images": study.validation_images, "test_images": study.test_images}
    stages = [
        Stage("train", {**network, **gan}, writes=("generator", "discriminator", "history")),
        Stage(
            "classifier",
            {**images, "width": n.classifier_width, "features": n.features, "iterations": t.classifier_iterations},
            writes=("classifier",),
        ),
        Stage(
            "judge",
            {**images, "width": n.judge_width, "features": n.features, "iterations": t.judge_iterations},
            writes=("judge",),
        ),
        Stage(
            "encoder",
            {**network, "width": n.encoder_width, "iterations": t.encoder_iterations, "window": p.window},
            ("generator",),
            ("encoder",),
        ),
    ]
    for row, net in p.feedforward.items():
        stages.append(Stage(f"fit {row}", {**images, **facts(net)}, writes=(f"fitted_{row}",)))
    for row, search in p.searches.items():
        encoder = search.start == "encoder"
        stages.append(
            Stage(
                f"encode {row}",
                {
                    **network,
                    **hole,
                    **counts,
                    "lam": p.lam,
                    **facts(search, "batch"),
                    **({"encoder_width": n.encoder_width} if encoder else {}),
                },
                (
                    "generator",
                    *(("encoder",) if encoder else ()),
                    *((f"fitted_{search.guess}",) if search.guess in p.feedforward else ()),
                ),
                (f"encodings_{row}",),
                shared=True,
            )
        )
    for row, shaping in p.shapings.items():
        stages.append(
            Stage(
                f"shape {row}",
                {**network, **facts(shaping), **({"mask": p.mask} if shaping.overlay else {})},
                ("discriminator", *start_reads(p, shaping.search)),
                (f"shaped_{row}",),
                shared=True,
            )
        )
    played = {row: family for row, family in study.families.items() if family.mode == "field"}
    recorded = {}  # what the field of each of them is recorded with: (settings, artifacts)
    for row, family in played.items():
        shaped = [shaping for shaping in (family.shaping, family.partner) if shaping]
        rows = {shaping: facts(p.shapings[shaping], *LEARNT) for shaping in shaped}
        recorded[row] = (
            {**network, "mask": p.mask, "family": facts(family), "shapings": rows},
            ("discriminator", *start_reads(p, family.search), *(f"shaped_{shaping}" for shaping in shaped)),
        )
        stages.append(Stage(f"field {row}", *recorded[row], (f"field_{row}",)))
    if "collaborative_field" in played:
        settings, reads = recorded["collaborative_field"]
        names = ("company", "validation_images", "micro_batch", "resamples")
        measured = {**settings, **hole, **{name: getattr(study, name) for name in names}}
        stages.append(Stage("company", measured, (*reads, "classifier", "field_collaborative_field"), ("company",)))
    judged = (
        "discriminator",
        "classifier",
        "encoder",
        *dict.fromkeys(artifact for row in starts(p) for artifact in start_reads(p, row)),
        *(f"shaped_{row}" for row in shaped_rows(p)),
        *(f"field_{row}" for row in played),
    )
    compared = {
        **network,
        **hole,
        "families": {k: facts(f) for k, f in study.families.items()},
        "micro_batch": study.micro_batch,
        "shapings": {row: facts(p.shapings[row], *LEARNT) for row in shaped_rows(p)},
        "best": facts(p.searches["best"], "batch", "pool", "pool_iterations"),
        "validation_images": study.validation_images,
    }
    stages += [
        Stage("tune", compared, judged, ("selection",)),
        Stage(
            "evaluate",
            {
                **compared,
                "test_images": study.test_images,
                "resamples": study.resamples,
                "checked_images": study.checked_images,
            },
            (*judged, "selection"),
            ("evaluation", "metrics"),
            shared=True,
        ),
    ]
    trained = tuple(f"fitted_{row}" for row in study.rivals if row in p.feedforward)
    carded = {
        **compared,
        "test_images": study.test_images,
        "resamples": study.resamples,
        "rivals": study.rivals,
        "blended": study.blended,
        "card_images": study.card_images,
        "detector_iterations": study.detector_iterations,
    }
    every = tuple(dict.fromkeys((*judged, *trained, "judge", "selection")))
    stages.append(Stage("card", carded, every, ("card", "card_table"), shared=True))
    return {stage.name: stage for stage in stages}
