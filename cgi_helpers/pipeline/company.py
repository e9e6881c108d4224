"""What company does to a discriminator in "batch" mode: it judges the batch, not the image.
Measured on validation images."""

import time

import torch

from ..method.fast import Overlay
from ..method.refine import refine_all
from ..method.runtime import draw_z, generator
from ..study import metrics, statistics
from ..study.evaluation import score, semantic
from .evaluation import guide, stages_of, validation
from .session import done, save

FAMILY = "collaborative_field"  # whose D is looked at, in company and in the recorded field
JUDGED = 64  # images in a batch whose logits are looked at


def orders(labels, seed):
    """{name: order (N,) of the images}: who is refined together, at random or class by class."""
    shuffled = torch.randperm(len(labels), generator=generator(seed, "company"))
    return {"random": shuffled, "one class": labels.argsort(stable=True)}


def answers(D, real, fake):
    """What D says of `real` and `fake` images (N, C, H, W) each, in company of different kinds:
    shares of right answers, and logits.

    "pure": in batches of one kind; "mixed": half and half; "running": by the running statistics; "one among others":
    the median logit of one generated image among real ones, and of one real image among generated ones.
    """
    n, half = len(real), len(real) // 2
    with torch.no_grad():
        both = torch.cat([real[:half], fake[:half]]), torch.cat([real[half : 2 * half], fake[half : 2 * half]])
        mixed = torch.stack([D(x, "batch") for x in both]).view(2, 2, half).transpose(0, 1).flatten(1)
        logits = {
            "pure": (D(real, "batch"), D(fake, "batch")),
            "running": (D(real, "independent"), D(fake, "independent")),
            "mixed": tuple(mixed),
        }
        alone = {
            name: float(
                torch.stack([D(torch.cat([one[i : i + 1], others[1:]]), "batch")[0] for i in range(n)]).median()
            )
            for name, one, others in (("generated", fake, real), ("real", real, fake))
        }
    right = {name: float(torch.cat([r > 0, f < 0]).double().mean()) for name, (r, f) in logits.items()}
    return {"right": right, "one among others": alone}


def company(session, stage, fresh=False):
    """Stage `company`: gains of refinement against how many images are refined together,
    and whether they are of one class.

    Beside them the same D in the recorded field, every image alone, and the `answers` of D as training left it.
    """
    if done(session, stage, fresh):
        return
    began, p, C = time.time(), session.preset, session.net("classifier")
    (y, labels, reference), family = validation(session), p.study.families[FAMILY]
    n, counts = len(y), statistics.bootstrap_counts(len(y), p.study.resamples, session.seed)
    (G, z), epochs = session.start_of(family.search, "validation", n), stages_of(p, family)[-1]
    (played, path), D = guide(session, family, epochs), session.shaped(family.shaping, epochs)
    before = score(semantic(G, z, y, session.mask), y, session.mask, C, labels)

    def row(D, order, size, **mode):
        options = {"batch_size": size, "compose": Overlay(y[order], session.mask), **path, **mode}
        x = refine_all(G, D, z[order], **options)[0][order.argsort()]
        s = score(x, y, session.mask, C, labels)
        gain = (s["psnr"] - before["psnr"]).double()
        return {
            "psnr_gain": statistics.interval(float(gain.mean()), counts @ gain / n),
            "frechet_distance": metrics.frechet_distance(metrics.moments(s["features"]), reference),
        }

    fake = G(draw_z(JUDGED, p.networks.z_dim, p.networks.prior, session.seed, "company z", device=session.device))
    save(
        session,
        stage,
        {
            "company": {
                "start": metrics.frechet_distance(metrics.moments(before["features"]), reference),
                "field": row(played, torch.arange(n), p.study.micro_batch),
                "together": {
                    name: {str(size): row(D, order, size, mode="batch") for size in p.study.company}
                    for name, order in orders(labels, session.seed).items()
                },
                "answers": answers(session.net("discriminator"), y[:JUDGED], fake.detach()),
            }
        },
        time.time() - began,
        images=n,
    )
