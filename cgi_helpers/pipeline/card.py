"""The report card: every method completes the same test images,
and judges that no method was trained against look at them."""

import time
from functools import partial

import torch

from ..data.convert import from_bytes, to_bytes
from ..method.feedforward import paint
from ..method.runtime import clock
from ..study import claims, judges, rivals
from ..study.rivals import Completion, poisson
from . import parallel
from .evaluation import bases, complete, find_all
from .session import done, save

TIMED = 64  # test images whose search is timed
CHOOSE_ON = 200  # validation images on which a rival's knobs are chosen


def own_rows(session):
    """The rows of the evaluation that stand on the card: {name on the card: row};
    families at the epochs that validation chose."""
    rows = {name: name for name in searched(session.preset)}
    chosen = session.load("selection")[0]["stages"]
    return {
        **rows,
        "collaborative_0": "collaborative_0",
        **{name: f"{name}_{epochs}" for name, epochs in chosen.items()},
    }


def searched(preset):
    """The rows of the evaluation that a latent search makes alone."""
    return [*(row for row, start in bases(preset).items() if start in preset.searches), "semantic_equal_time"]


def method_names(preset):
    """The methods of the card, in order."""
    own = [*searched(preset), "collaborative_0", *preset.study.families]
    return [*preset.study.rivals, *own, *(f"{name}_poisson" for name in preset.study.blended)]


def start_of(preset, row):
    """The row of the searches, or feed-forward net, that an own row of the card begins with."""
    if row == "semantic_equal_time":
        return "best"
    name = "collaborative" if row == "collaborative_0" else row
    return bases(preset).get(name) or preset.study.families[name].search


def search_seconds(session, row, n=TIMED):
    """Seconds per image of the latent search that an own row starts from, measured now on TIMED of the n first test
    images; 0 for rows that search by themselves or start from a feed-forward net."""
    start = start_of(session.preset, row)
    if row == "semantic_equal_time" or start in session.preset.feedforward:
        return 0.0
    if ("search seconds", start) not in session.cache:
        y, began = session.data["test"].batch(slice(0, min(TIMED, n)), session.device), clock(session.device)
        find_all(session, start, y)
        session.cache["search seconds", start] = (clock(session.device) - began) / len(y)
    return session.cache["search seconds", start]


def firsts(begin, y):
    """Starts {row: (G, latents)} cut to as many images as y has: the first ones."""
    return {row: (G, z[: len(y)]) for row, (G, z) in begin.items()}


def described(name, facts):
    """{"source", "learns", "chosen"} of a method: where it comes from, what it has learnt from, knobs and their value
    among those that were tried."""
    rival = rivals.RIVALS.get(name.removesuffix("_poisson"))
    chosen = {k: v for k, v in facts.items() if k != "tried" and facts.get("tried")}
    return {**({"source": rival.source, "learns": rival.learns} if rival else {}), "chosen": chosen}


def completions(session, name, split, n):
    """(composites of the first n images of a split by a method, the images, seconds that they took with the search for
    their latents, training of the method left out, and what the method chose)."""
    p, images = session.preset, session.data[split]
    y, own = images.batch(slice(0, n), session.device), own_rows(session)
    base = name.removesuffix("_poisson")
    if base in own:
        start = start_of(p, base)
        begin = {start: session.start_of(start, split, n)}
        # coupled: latents belong to these images and to no part of them; that the same call gives the same is tried
        method = Completion(base, lambda y, mask: complete(session, own[base], firsts(begin, y), y), coupled=True)
        if base != name:
            G, z = begin[start]
            method = poisson(
                Completion(base, lambda y, mask: G(z[: len(y)]).detach(), coupled=True, whole=True, vouched=True)
            )
    elif base in p.feedforward:
        method = Completion(base, partial(paint, session.fitted(base)), whole=True)
    else:
        if session.cache.get("rival", (None,))[0] != base:  # the last one is kept: both splits are asked in turn
            chosen = session.data["validation"].batch(slice(0, CHOOSE_ON), session.device)
            session.cache["rival"] = base, rivals.fit(base, session.data["train"], session.mask, chosen)
        method = session.cache["rival"][1]
    if base != name and base not in own:
        method = poisson(method)
    searching = n * search_seconds(session, base, n) if base in own and split == "test" else 0.0
    began = time.perf_counter()
    x = method(y, session.mask)
    return x, y, time.perf_counter() - began + searching, method.facts


def card(session, stage, fresh=False):
    """Stage `card`: scores per image (`card`) and the table that every sentence of the report card is
    written from (`card_table`).

    One piece per method. Its detector is trained on the method's completions of validation images, against those
    originals; a second round asks one that was trained on the completions of all *other* methods.
    """
    if done(session, stage, fresh):
        return
    p = session.preset
    n, C = p.study.card_images, (session.net("classifier"), session.net("judge"))
    if len(session.data["test"]) < 2 * n:
        raise ValueError(
            f"The card takes {n} test images and as many others to see what originals reach, but there are "
            f"{len(session.data['test'])}: lower study.card_images."
        )
    labels = session.data["test"].labels[:n]
    train = partial(judges.train_detector, iterations=p.study.detector_iterations, seed=session.seed)
    names = method_names(p)

    def compute(name):
        x, y, seconds, facts = completions(session, name, "test", n)
        fake, real, *_ = completions(session, name, "validation", p.study.validation_images)
        return {
            **judges.score_card(x, y, session.mask, C, labels, seconds),
            "detectability": judges.detectability(train(real, fake), y, x),
            "validation": to_bytes(fake),
        }, facts

    first = parallel.Pieces(session, stage, fresh, names)
    found = first.run(compute)
    completed = dict(zip(names, (found or first.load())[0]))
    real, y = (
        from_bytes(to_bytes(session.data[split].batch(slice(0, count), session.device)))
        for split, count in (("validation", p.study.validation_images), ("test", n))
    )

    def suspect(name):
        others = torch.cat([tree["validation"] for other, tree in completed.items() if other != name])
        x = from_bytes(completed[name]["images"]).to(y)
        D = train(real, from_bytes(others).to(y))
        return {"detectability_others": judges.detectability(D, y, x)}

    second = parallel.Pieces(session, stage, fresh, names, round="others")
    suspected = second.run(suspect)
    if not found:
        return
    cards = {name: {**tree, **more} for name, tree, more in zip(names, found[0], suspected[0])}
    for tree in cards.values():
        del tree["validation"]
    reference, floor = (
        judges.recognise(session.data[split].batch(rows, session.device), C)
        for split, rows in (("validation", slice(None)), ("test", slice(n, 2 * n)))
    )
    table = judges.card_table(cards, reference, claims.PAIRS, floor, p.study.resamples, session.seed)
    table["facts"] = {name: described(name, meta["facts"]) for name, meta in zip(names, found[1])}
    seconds = sum(meta["seconds"] for metas in (found[1], suspected[1]) for meta in metas)
    save(session, stage, {"card": judges.shippable(cards), "card_table": table}, seconds, images=n)
    first.remove(), second.remove()
