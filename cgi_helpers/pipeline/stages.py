"""The pipeline: one idempotent, resumable function per stage. Load inputs, run the loop, save; nothing else.

Called by the notebooks, by doit and by `python -m cgi_helpers STAGE --preset P` alike.
"""

import torch

from . import parallel
from ..method import train
from .evaluation import best_search, classify, evaluate, report_search, tune
from ..method.refine import Overlay
from ..method.runtime import draw_z
from .session import STAGES, Checkpoint, done, save, start
from ..method.shape import shape_discriminator, whole

VANISHING_LAM = 5e-4  # up to here the prior's gradient is below 0.4 % of the sum, what bfloat16 resolves (measured in notebook 02)


def sample_steps(preset, n_train):
    """Iterations after which the fixed-z grids of figures 7-10 are drawn: epoch * images / batch."""
    return [round(e * n_train / preset.batch_size) for e in preset.sample_epochs]


def train_gan(session, fresh=False):
    """Stage `train`: generator, discriminator, and history (losses per iteration, fixed-z grids at sample_epochs)."""
    if done(session, "train", fresh):
        return
    p, images, dev = session.preset, session.data["train"], session.device
    G, D = session.build("generator"), session.build("discriminator")
    checkpoint = Checkpoint(session, "train", {"generator": G, "discriminator": D}, fresh)
    optimisers = checkpoint.restore(train.adam(G, p.lr, p.beta1), train.adam(D, p.lr, p.beta1))
    z = draw_z(64, p.z_dim, p.prior, session.seed, "fixed z", device=dev)
    steps = sample_steps(p, len(images))
    records = checkpoint.records
    for key in ("d_loss", "g_loss", "real", "fake"):
        records[key] = records.get(key, torch.zeros(p.iterations)).to(dev)  # there, so that no iteration waits for a copy
    records.setdefault("grids", torch.zeros(len(steps), 64, p.channels, p.size, p.size, dtype=torch.uint8))

    def record(step, state, records):
        for key in ("d_loss", "g_loss", "real", "fake"):
            records[key][step - 1] = state[key]
        if step in steps:
            G.eval()
            with torch.no_grad():
                records["grids"][steps.index(step)] = ((G(z) + 1) * 127.5).round().byte().cpu()
            G.train()

    loop = train.train_gan(G, D, images, iterations=p.iterations, batch_size=p.batch_size, g_updates=p.g_updates,
                           lr=p.lr, beta1=p.beta1, prior=p.prior, seed=session.seed, start=checkpoint.step,
                           optimisers=optimisers, device=dev)
    seconds = checkpoint.run(loop, record, p.iterations)
    save(session, "train", {"generator": G.state_dict(), "discriminator": D.state_dict(), "history": records},
          seconds, sample_steps=steps, d_loss=float(records["d_loss"][-500:].mean()),
          g_loss=float(records["g_loss"][-500:].mean()))
    checkpoint.remove()


def train_classifier(session, fresh=False):
    """Stage `classifier`: the network in whose features distances, scores and labels are measured."""
    if done(session, "classifier", fresh):
        return
    p, dev = session.preset, session.device
    C = session.build("classifier")
    checkpoint = Checkpoint(session, "classifier", {"classifier": C}, fresh)
    optimisers = checkpoint.restore(train.classifier_optimiser(C))
    loop = train.train_classifier(C, session.data["train"], iterations=p.classifier_iterations, seed=session.seed,
                                  start=checkpoint.step, optimisers=optimisers, device=dev)
    seconds = checkpoint.run(loop, total=p.classifier_iterations)
    accuracy = {s: classify(C, session.data[s], dev)[1] for s in ("validation", "test")}
    save(session, "classifier", {"classifier": C.state_dict()}, seconds, accuracy=accuracy)
    checkpoint.remove()


def train_encoder(session, fresh=False):
    """Stage `encoder`: the warm start of our best search."""
    if done(session, "encoder", fresh):
        return
    p = session.preset
    G, E = session.net("generator"), session.build("encoder")
    checkpoint = Checkpoint(session, "encoder", {"encoder": E}, fresh)
    optimisers = checkpoint.restore(train.encoder_optimiser(E))
    loop = train.train_encoder(E, G, session.data["train"], iterations=p.encoder_iterations, window=p.window, prior=p.prior,
                               seed=session.seed, start=checkpoint.step, optimisers=optimisers, device=session.device)
    seconds = checkpoint.run(loop, total=p.encoder_iterations)
    save(session, "encoder", {"encoder": E.state_dict()}, seconds)
    checkpoint.remove()


def encode(session, fresh=False):
    """Stage `encode`: z-hat of validation and test images by the report's 1,000-iteration recipe."""
    p = session.preset
    _encode(session, "encode", fresh, [("validation", p.validation_images), ("test", p.test_images)],
            lambda G, E, y, rows, split: report_search(session, G, y, rows))


def encode_pool(session, fresh=False):
    """Stage `encode_pool`: z-hat of training images by the report's recipe, what its discriminator is shaped on."""
    p = session.preset
    _encode(session, "encode_pool", fresh, [("pool", p.pool_report)],
            lambda G, E, y, rows, split: report_search(session, G, y, rows, p.pool_report_iterations))


def encode_best(session, fresh=False):
    """Stage `encode_best`: z-hat of the shaping pool, validation and test images by our best search."""
    p = session.preset
    _encode(session, "encode_best", fresh, [("pool", p.pool), ("validation", p.validation_images), ("test", p.test_images)],
            lambda G, E, y, rows, split: best_search(session, G, E, y))


def _encode(session, stage, fresh, jobs, find):
    """Common body: fixed micro-batches by image index, shared among processes; every one is saved, so an interrupted run goes on."""
    if done(session, stage, fresh):
        return
    if session.preset.lam > VANISHING_LAM:
        raise ValueError(f"The stages search without D, which needs lam <= {VANISHING_LAM:g}, but lam is {session.preset.lam:g}: lower it, "
                         "or call search.find_latent(G, D, ...), where D takes part.")
    G = session.net("generator")
    E = session.net("encoder") if "encoder" in STAGES[stage][1] else None
    splits = {name: session.data["train" if name == "pool" else name].first(n) for name, n in jobs}
    size = session.preset.search_batch
    chunks = [(name, range(i, min(i + size, len(images)))) for name, images in splits.items() for i in range(0, len(images), size)]

    def compute(chunk):
        name, rows = chunk
        y = splits[name].batch(slice(rows.start, rows.stop), session.device)
        return {"z": find(G, E, y, rows, name).cpu()}

    pieces = parallel.Pieces(session, stage, fresh, chunks)
    found = pieces.run(compute)
    if found:
        of = {name: [i for i, (n, _) in enumerate(chunks) if n == name] for name in splits}
        seconds = {name: sum(found[1][i]["seconds"] for i in of[name]) for name in splits}
        encodings = {name: torch.cat([found[0][i]["z"] for i in of[name]]) for name in splits}
        if "pool" in encodings:
            encodings["pool"] = encodings["pool"].half()  # 55,000 of them in one shipped file
        save(session, stage, {STAGES[stage][2][0]: encodings}, sum(seconds.values()),
             seconds_per_image={name: round(seconds[name] / len(z), 5) for name, z in encodings.items()})
        pieces.remove()
    parallel.barrier()


def _shape(session, stage, fresh, pool_start, independent=False, compose=True):
    """Common body of the shaping stages: snapshots of D at the preset's epochs, as float16.

    pool_start: which encodings of training images are refined; independent: D's mode; compose: overlay before D looks.
    """
    if done(session, stage, fresh):
        return
    parallel.check_shared(session.store.own)
    p = session.preset
    z = session.encodings("pool", pool_start)
    pool = session.data["train"].first(len(z))
    at = {str(e): max(1, round(e * len(pool) / p.shape_batch)) for e in p.shape_stages if e}
    total = max(at.values())
    mode = "independent" if independent else "batch"
    step_size, lr, r1 = ((p.step_size_independent, p.shape_lr_independent, p.shape_r1_independent) if independent
                         else (p.step_size, p.shape_lr, p.shape_r1))
    G, D = session.net("generator"), session.net("discriminator").requires_grad_(True)
    checkpoint = Checkpoint(session, stage, {"discriminator": D}, fresh)
    optimisers = checkpoint.restore(train.adam(D, lr))
    parallel.barrier()  # everyone has read the checkpoint before the first process replaces it
    checkpoint.records.setdefault("snapshots", {})
    for key in ("d_loss", "real", "refined", "gain"):
        checkpoint.records.setdefault(key, torch.zeros(total))

    def record(step, state, records):
        for key in ("d_loss", "real", "refined", "gain"):
            records[key][step - 1] = state[key]
        for epochs in (e for e, iteration in at.items() if iteration == step):
            records["snapshots"][epochs] = {k: v.half() if v.is_floating_point() else v.clone()
                                            for k, v in D.state_dict().items()}

    loop = shape_discriminator(G, D, pool, z, iterations=total, layer=p.layer, refine_steps=p.refine_steps,
                               step_size=step_size, mode=mode, batch_size=p.shape_batch, lr=lr, r1=r1,
                               micro_batch=p.shape_micro_batch, share=parallel.share, agree=parallel.agree,
                               compose=(lambda real: Overlay(real, session.mask)) if compose else whole,
                               seed=session.seed, start=checkpoint.step, optimisers=optimisers, device=session.device)
    seconds = checkpoint.run(loop, record, total)
    if parallel.rank() == 0:
        save(session, stage, {STAGES[stage][2][0]: checkpoint.records}, seconds, iterations=at)
        checkpoint.remove()
    parallel.barrier()


def shape_sampling(session, fresh=False):
    """Stage `shape_sampling`: D shaped on whole refined samples, from the report's z-hat of masked training images."""
    _shape(session, "shape_sampling", fresh, "report", compose=False)


def shape_inpainting(session, fresh=False):
    """Stage `shape_inpainting`: D shaped on inpainted refined samples from the report's search, `batch` mode (the report)."""
    _shape(session, "shape_inpainting", fresh, "report")


def shape_inpainting_best(session, fresh=False):
    """Stage `shape_inpainting_best`: the same from our best search."""
    _shape(session, "shape_inpainting_best", fresh, "best")


def shape_independent(session, fresh=False):
    """Stage `shape_independent`: from our best search, with a D that judges every image by itself."""
    _shape(session, "shape_independent", fresh, "best", independent=True)


SHARED = ("encode", "encode_pool", "encode_best", "shape_sampling", "shape_inpainting", "shape_inpainting_best",
          "shape_independent", "evaluate")  # several processes work together; in the other stages the first one works alone


def run(session, stage, fresh=False):
    """One stage, by this process alone or, inside `parallel.group`, together with the others of this torchrun."""
    if stage in SHARED or parallel.rank() == 0:
        FUNCTIONS[stage](session, fresh=fresh)
    parallel.barrier()


FUNCTIONS = {"train": train_gan, "classifier": train_classifier, "encoder": train_encoder, "encode": encode,
             "encode_pool": encode_pool, "encode_best": encode_best,
             "shape_sampling": shape_sampling, "shape_inpainting": shape_inpainting,
             "shape_inpainting_best": shape_inpainting_best, "shape_independent": shape_independent,
             "tune": tune, "evaluate": evaluate}
