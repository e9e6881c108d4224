"""The pipeline: one idempotent, resumable function per kind of stage. Load inputs, run the loop, save; nothing else.

Called by the notebooks, by doit and by `python -m cgi_helpers STAGE --preset P` alike.
"""

import copy

import torch

from ..data.convert import to_bytes
from ..method import train
from ..method.feedforward import train_feedforward
from ..method.refine import Overlay
from ..method.runtime import draw_z, frozen
from ..method.shape import shape_discriminator, whole
from ..study.evaluation import classify
from . import parallel
from .card import card
from .company import company
from .evaluation import evaluate, field, find, tune
from .session import Checkpoint, done, half, save, start  # noqa: F401 (notebooks open their session by stages.start)

VANISHING_LAM = (
    5e-4  # up to here the prior's gradient is below 0.4 % of the sum, what bfloat16 resolves (measured in notebook 02)
)


def sample_steps(preset, n_train):
    """Iterations after which the fixed-z grids of figures 7-10 are drawn: epoch * images / batch."""
    return [round(e * n_train / preset.training.batch_size) for e in preset.training.sample_epochs]


def train_gan(session, stage="train", fresh=False):
    """Stage `train`: generator, discriminator, and history (losses per iteration, fixed-z grids at sample_epochs)."""
    if done(session, stage, fresh):
        return
    p, t, images, dev = session.preset, session.preset.training, session.data["train"], session.device
    G, D = session.build("generator"), session.build("discriminator")
    average = copy.deepcopy(G) if t.average else None
    nets = {"generator": G, "discriminator": D, **({"average": average} if average else {})}
    checkpoint = Checkpoint(session, stage, nets, fresh)
    optimisers = checkpoint.restore(train.adam(G, t.lr, t.beta1), train.adam(D, t.lr, t.beta1))
    drawn = average or G
    z = draw_z(64, p.networks.z_dim, p.networks.prior, session.seed, "fixed z", device=dev)
    steps = sample_steps(p, len(images))
    records = checkpoint.records
    for key in ("d_loss", "g_loss", "real", "fake"):
        # there, so that no iteration waits for a copy
        records[key] = records.get(key, torch.zeros(t.iterations)).to(dev)
    records.setdefault("grids", torch.zeros(len(steps), 64, p.channels, p.size, p.size, dtype=torch.uint8))

    def record(step, state, records):
        for key in ("d_loss", "g_loss", "real", "fake"):
            records[key][step - 1] = state[key]
        if step in steps:
            with frozen(drawn), torch.no_grad():
                records["grids"][steps.index(step)] = to_bytes(drawn(z))

    loop = train.train_gan(
        G,
        D,
        images,
        iterations=t.iterations,
        batch_size=t.batch_size,
        g_updates=t.g_updates,
        lr=t.lr,
        beta1=t.beta1,
        prior=p.networks.prior,
        average=average,
        decay=t.average or 0.0,
        r1=t.r1 or 0.0,
        mirror=bool(t.mirror),
        seed=session.seed,
        start=checkpoint.step,
        optimisers=optimisers,
        device=dev,
    )
    seconds = checkpoint.run(loop, record, t.iterations)
    save(
        session,
        stage,
        {"generator": drawn.state_dict(), "discriminator": D.state_dict(), "history": records},
        seconds,
        sample_steps=steps,
        d_loss=float(records["d_loss"][-500:].mean()),
        g_loss=float(records["g_loss"][-500:].mean()),
    )
    checkpoint.remove()


def train_classifier(session, stage="classifier", fresh=False):
    """Stages `classifier`, the network in whose features distances, scores and labels are measured,
    and `judge`, a second one."""
    if done(session, stage, fresh):
        return
    t, dev = session.preset.training, session.device
    iterations = t.classifier_iterations if stage == "classifier" else t.judge_iterations
    C = session.build(stage)
    checkpoint = Checkpoint(session, stage, {stage: C}, fresh)
    optimisers = checkpoint.restore(train.classifier_optimiser(C))
    loop = train.train_classifier(
        C,
        session.data["train"],
        iterations=iterations,
        seed=session.seed + (stage == "judge"),
        start=checkpoint.step,
        optimisers=optimisers,
        device=dev,
    )
    seconds = checkpoint.run(loop, total=iterations)
    accuracy = {s: classify(C, session.data[s], dev)[1] for s in ("validation", "test")}
    save(session, stage, {stage: half(C.state_dict())}, seconds, accuracy=accuracy)
    checkpoint.remove()


def train_encoder(session, stage="encoder", fresh=False):
    """Stage `encoder`: the warm start of our best search."""
    if done(session, stage, fresh):
        return
    p, iterations = session.preset, session.preset.training.encoder_iterations
    G, E = session.net("generator"), session.build("encoder")
    checkpoint = Checkpoint(session, stage, {"encoder": E}, fresh)
    optimisers = checkpoint.restore(train.encoder_optimiser(E))
    loop = train.train_encoder(
        E,
        G,
        session.data["train"],
        iterations=iterations,
        window=p.window,
        prior=p.networks.prior,
        seed=session.seed,
        start=checkpoint.step,
        optimisers=optimisers,
        device=session.device,
    )
    seconds = checkpoint.run(loop, total=iterations)
    save(session, stage, {"encoder": half(E.state_dict())}, seconds)
    checkpoint.remove()


def fit(session, stage, fresh=False):
    """Stage `fit ROW`: a feed-forward rival; its weights as float16."""
    if done(session, stage, fresh):
        return
    p, row = session.preset, session.plan[stage].row
    f, net, D = p.feedforward[row], *session.feedforward(row)
    checkpoint = Checkpoint(session, stage, {"net": net, **({"discriminator": D} if D else {})}, fresh)
    optimisers = checkpoint.restore(
        torch.optim.Adam(net.parameters(), 1e-3, fused=True), *([train.adam(D, 2e-4)] if D else [])
    )
    loop = train_feedforward(
        net,
        session.data["train"],
        iterations=f.iterations,
        D=D,
        seed=session.seed,
        start=checkpoint.step,
        optimisers=optimisers,
        device=session.device,
    )
    seconds = checkpoint.run(loop, total=f.iterations)
    save(session, stage, {f"fitted_{row}": half(net.state_dict())}, seconds)
    checkpoint.remove()


def encode(session, stage, fresh=False):
    """Stage `encode ROW`: z-hat of training images to shape on (the pool),
    of validation and of test images, by one search.

    Fixed micro-batches by image index, shared among processes; every one is saved, so an interrupted run goes on.
    """
    if done(session, stage, fresh):
        return
    p, row = session.preset, session.plan[stage].row
    search = p.searches[row]
    if p.lam > VANISHING_LAM:
        raise ValueError(
            f"The stages search without D, which needs lam <= {VANISHING_LAM:g}, but lam is {p.lam:g}: lower it, "
            "or call search.find_latent(G, D, ...), where D takes part."
        )
    G = session.net("generator")
    E = session.net("encoder") if search.start == "encoder" else None
    splits = {
        "pool": session.data["train"].first(search.pool),
        "validation": session.data["validation"].first(p.study.validation_images),
        "test": session.data["test"].first(p.study.test_images),
    }
    chunks = [
        (name, range(i, min(i + search.batch, len(images))))
        for name, images in splits.items()
        for i in range(0, len(images), search.batch)
    ]

    def compute(chunk):
        name, rows = chunk
        y = splits[name].batch(slice(rows.start, rows.stop), session.device)
        return {"z": find(session, row, G, E, y, rows, search.pool_iterations if name == "pool" else None).cpu()}

    pieces = parallel.Pieces(session, stage, fresh, chunks)
    found = pieces.run(compute)
    if found:
        of = {name: [i for i, (n, _) in enumerate(chunks) if n == name] for name in splits}
        seconds = {name: sum(found[1][i]["seconds"] for i in of[name]) for name in splits}
        encodings = {name: torch.cat([found[0][i]["z"] for i in of[name]]) for name in splits}
        encodings["pool"] = encodings["pool"].half()  # 55,000 of them in one shipped file
        save(
            session,
            stage,
            {f"encodings_{row}": encodings},
            sum(seconds.values()),
            seconds_per_image={name: round(seconds[name] / len(z), 5) for name, z in encodings.items()},
        )
        pieces.remove()
    parallel.barrier()


def shape(session, stage, fresh=False):
    """Stage `shape ROW`: D fine-tuned as one row of the shapings says; snapshots at the row's epochs, as float16."""
    if done(session, stage, fresh):
        return
    parallel.check_shared(session.store.own)
    row = session.plan[stage].row
    s = session.preset.shapings[row]
    G, z = session.start_of(s.search, "pool")
    pool = session.data["train"].first(len(z))
    at = {str(e): max(1, round(e * len(pool) / s.batch)) for e in s.epochs if e}
    total = max(at.values())
    D = session.net("discriminator").requires_grad_(True)
    checkpoint = Checkpoint(session, stage, {"discriminator": D}, fresh)
    optimisers = checkpoint.restore(train.adam(D, s.lr))
    parallel.barrier()  # everyone has read the checkpoint before the first process replaces it
    checkpoint.records.setdefault("snapshots", {})
    for key in ("d_loss", "real", "refined", "gain"):
        checkpoint.records.setdefault(key, torch.zeros(total))

    def record(step, state, records):
        for key in ("d_loss", "real", "refined", "gain"):
            records[key][step - 1] = state[key]
        for epochs in (e for e, iteration in at.items() if iteration == step):
            records["snapshots"][epochs] = half(D.state_dict())

    loop = shape_discriminator(
        G,
        D,
        pool,
        z,
        iterations=total,
        layer=s.layer,
        refine_steps=s.steps,
        step_size=s.step_size,
        mode=s.mode,
        batch_size=s.batch,
        lr=s.lr,
        r1=s.r1,
        micro_batch=s.micro_batch,
        share=parallel.share,
        agree=parallel.agree,
        compose=(lambda real: Overlay(real, session.mask)) if s.overlay else whole,
        seed=session.seed if s.seed is None else s.seed,
        start=checkpoint.step,
        optimisers=optimisers,
        device=session.device,
    )
    seconds = checkpoint.run(loop, record, total)
    if parallel.rank() == 0:
        save(session, stage, {f"shaped_{row}": checkpoint.records}, seconds, iterations=at)
        checkpoint.remove()
    parallel.barrier()


# by kind, see plan.KINDS
FUNCTIONS = {
    "train": train_gan,
    "classifier": train_classifier,
    "encoder": train_encoder,
    "encode": encode,
    "shape": shape,
    "field": field,
    "company": company,
    "tune": tune,
    "evaluate": evaluate,
    "judge": train_classifier,
    "fit": fit,
    "card": card,
}


def run(session, stage, fresh=False):
    """Compute one stage of the session's plan ("train", "encode best", ...), by this process alone or, inside
    `parallel.group`, together with the others of this torchrun: a stage that is not shared is computed by the first
    one."""
    if stage not in session.plan:
        raise ValueError(f"Unknown stage {stage!r}: preset {session.preset.name!r} has {', '.join(session.plan)}.")
    if session.plan[stage].shared or parallel.rank() == 0:
        FUNCTIONS[session.plan[stage].kind](session, stage, fresh=fresh)
    parallel.barrier()
