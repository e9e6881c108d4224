"""The report card: every method completes the same test images,
and judges that no method was trained against look at them."""

import time
from functools import partial

from ..method.feedforward import paint
from ..study import claims, judges, rivals
from ..study.rivals import Completion, poisson
from . import parallel
from .evaluation import bases, complete
from .plan import starts
from .session import done, save

CHOOSE_ON = 200  # validation images on which a rival's knobs are chosen


def own_rows(session):
    """The rows of the evaluation that stand on the card: {name on the card: row};
    families at the epochs that validation chose."""
    rows = {name: name for name in ("semantic", "semantic_best", "semantic_equal_time")}
    chosen = session.load("selection")[0]["stages"]
    return {
        **rows,
        "collaborative_0": "collaborative_0",
        **{name: f"{name}_{epochs}" for name, epochs in chosen.items()},
    }


def method_names(preset):
    """The methods of the card, in order."""
    own = ["semantic", "semantic_best", "semantic_equal_time", "collaborative_0", *preset.study.families]
    return [*preset.study.rivals, *own, *(f"{name}_poisson" for name in preset.study.blended)]


def completions(session, name, split, n):
    """(composites of the first n images of a split by a method, seconds that they took,
    training of the method left out)."""
    p, images = session.preset, session.data[split]
    y, own = images.batch(slice(0, n), session.device), own_rows(session)
    base = name.removesuffix("_poisson")
    if base in own:
        begin = {row: session.start_of(row, split, n) for row in starts(p)}
        method = Completion(base, lambda y, mask: complete(session, own[base], begin, y), coupled=True)
        if base != name:
            G, z = begin[bases(p)[base]]
            method = poisson(Completion(base, lambda y, mask: G(z).detach(), coupled=True, whole=True, vouched=True))
        method.vouched = True  # a row of the evaluation: latents belong to these images and to no part of them
    elif base in p.feedforward:
        method = Completion(base, partial(paint, session.fitted(base)), whole=True)
    else:
        if session.cache.get("rival", (None,))[0] != base:  # the last one is kept: both splits are asked in turn
            chosen = session.data["validation"].batch(slice(0, CHOOSE_ON), session.device)
            session.cache["rival"] = base, rivals.fit(base, session.data["train"], session.mask, chosen)
        method = session.cache["rival"][1]
    if base != name and base not in own:
        method = poisson(method)
    began = time.perf_counter()
    x = method(y, session.mask)
    return x, y, time.perf_counter() - began


def card(session, stage, fresh=False):
    """Stage `card`: scores per image (`card`) and the table that every sentence of the report card is
    written from (`card_table`).

    One piece per method. Its detector is trained on the method's completions of validation images,
    against those originals.
    """
    if done(session, stage, fresh):
        return
    p = session.preset
    n, C = p.study.card_images, (session.net("classifier"), session.net("judge"))
    labels = session.data["test"].labels[:n]

    def compute(name):
        x, y, seconds = completions(session, name, "test", n)
        fake, real, _ = completions(session, name, "validation", p.study.validation_images)
        detector = judges.train_detector(real, fake, iterations=p.study.detector_iterations, seed=session.seed)
        return {
            **judges.score_card(x, y, session.mask, C, labels, seconds),
            "detectability": judges.detectability(detector, y, x),
        }

    names = method_names(p)
    pieces = parallel.Pieces(session, stage, fresh, names)
    found = pieces.run(compute)
    if not found:
        return
    cards = dict(zip(names, found[0]))
    reference, floor = (
        judges.recognise(session.data[split].batch(rows, session.device), C)
        for split, rows in (("validation", slice(None)), ("test", slice(n, 2 * n)))
    )
    table = judges.card_table(cards, reference, claims.PAIRS, floor, p.study.resamples, session.seed)
    save(
        session,
        stage,
        {"card": judges.shippable(cards), "card_table": table},
        sum(m["seconds"] for m in found[1]),
        images=n,
    )
    pieces.remove()
