"""Training loops against plain loops written here, and resumed against uninterrupted."""

import copy

import pytest
import torch
from torch import nn

from cgi_helpers.data import TURNS, Split
from cgi_helpers.method import train
from cgi_helpers.method.masks import MASKS, center_mask, check_mask
from cgi_helpers.method.models import Classifier, Discriminator, Encoder, Generator
from cgi_helpers.method.runtime import draw_z_batch, generator, last

SIZE = 16


class Doubles(Split):
    """A split whose network input is float64, so that comparisons may be exact."""

    def batch(self, index, device="cpu"):
        return super().batch(index, device).double()


@pytest.fixture
def doubles(monkeypatch):
    """Latents in float64 as well."""
    monkeypatch.setattr(train, "draw_z_batch", lambda *a, **k: draw_z_batch(*a, **k).double())


def split(n=40, kind=Split, seed=0, flips=True):
    rng = generator("split", seed)
    images = torch.randint(0, 256, (n, 28, 28), generator=rng, dtype=torch.uint8)
    return kind(images, torch.randint(0, 10, (n,), generator=rng), SIZE, flips=flips)


def build(kind, seed=0, **options):
    torch.manual_seed(seed)
    return {
        "G": lambda: Generator(5, 4, size=SIZE),
        "D": lambda: Discriminator(4, size=SIZE),
        "C": lambda: Classifier(4, size=SIZE),
        "E": lambda: Encoder(5, 4, size=SIZE),
    }[kind]()


def same(a, b):
    return all(torch.equal(v, b.state_dict()[k]) for k, v in a.state_dict().items())


def close(a, b, tolerance=1e-9):
    for k, v in a.state_dict().items():
        torch.testing.assert_close(v, b.state_dict()[k], rtol=0, atol=tolerance, msg=lambda m, k=k: f"{k}: {m}")


# --- batches


def test_batches_are_a_fresh_permutation_per_epoch():
    epochs = [[train.batch_index(e * 4 + i, 22, 5, 0, "x") for i in range(4)] for e in range(3)]
    for epoch in epochs:
        drawn = torch.cat(epoch).tolist()
        assert len(drawn) == 20 and len(set(drawn)) == 20 and set(drawn) <= set(range(22))
    assert epochs[0][0].tolist() != epochs[1][0].tolist()
    assert epochs[1][2].tolist() == train.batch_index(6, 22, 5, 0, "x").tolist()
    assert (
        epochs[0][0].tolist()
        != train.batch_index(0, 22, 5, 1, "x").tolist()
        != train.batch_index(0, 22, 5, 0, "y").tolist()
    )
    assert sorted(train.batch_index(3, 4, 5, 0).tolist()) == [0, 1, 2, 3]  # fewer images than a batch


# --- GAN


def plain_gan(G, D, images, iterations, batch_size, g_updates, prior, seed):
    """DCGAN's alternation as one would write it first: sigmoid and log, no frozen D, a plain Adam."""
    opt_g, opt_d = (torch.optim.Adam(n.parameters(), 3e-3, betas=(0.4, 0.999), fused=False) for n in (G, D))
    G.train(), D.train()
    losses = []
    for step in range(iterations):
        real = images.batch(train.batch_index(step, len(images), batch_size, seed, "gan"))
        fake = G(draw_z_batch(batch_size, 5, prior, seed, "gan z", step).double())
        d_real, d_fake = torch.sigmoid(D(real)), torch.sigmoid(D(fake.detach()))
        d_loss = -torch.log(d_real).mean() - torch.log(1 - d_fake).mean()
        opt_d.zero_grad()
        d_loss.backward()
        opt_d.step()
        for update in range(g_updates):
            if update:
                fake = G(draw_z_batch(batch_size, 5, prior, seed, "gan z", step, update).double())
            g_loss = -torch.log(torch.sigmoid(D(fake))).mean()
            opt_g.zero_grad()
            g_loss.backward()
            opt_g.step()
        losses.append([v.item() for v in (d_loss, g_loss, d_real.mean(), d_fake.mean())])
    return losses


@pytest.mark.parametrize("g_updates, prior", [(1, "normal"), (2, "uniform")])
def test_train_gan_equals_a_plain_loop(doubles, g_updates, prior):
    images = split(kind=Doubles)
    nets, plain = ([build("G").double(), build("D").double()] for _ in range(2))
    states = [
        {k: float(s[k]) for k in ("d_loss", "g_loss", "real", "fake")}
        for _, s in train.train_gan(
            *nets, images, iterations=5, batch_size=8, g_updates=g_updates, lr=3e-3, beta1=0.4, prior=prior, seed=3
        )
    ]
    expected = plain_gan(*plain, images, 5, 8, g_updates, prior, 3)
    for state, values in zip(states, expected, strict=True):
        assert list(state.values()) == pytest.approx(values, rel=1e-8)
    for net, reference in zip(nets, plain):
        close(net, reference)
        assert all(p.requires_grad for p in net.parameters())
        assert not same(net, build("G" if isinstance(net, Generator) else "D").double())


def run_gan(start=0, stop=7, nets=None, optimisers=None, seed=0):
    G, D = nets or (build("G"), build("D"))
    for step, state in train.train_gan(
        G, D, split(), iterations=7, batch_size=8, g_updates=2, seed=seed, start=start, optimisers=optimisers
    ):
        if step == stop:
            return (G, D), state["optimisers"]


@pytest.mark.parametrize("stop", [1, 3, 6])  # an epoch has 5 batches
def test_gan_resumed_equals_uninterrupted(stop):
    whole, _ = run_gan()
    nets, optimisers = copy.deepcopy(run_gan(stop=stop))
    torch.manual_seed(99)
    resumed, _ = run_gan(stop, 7, nets, optimisers)
    assert all(same(a, b) for a, b in zip(whole, resumed))
    fresh_moments, _ = run_gan(stop, 7, copy.deepcopy(run_gan(stop=stop)[0]))
    assert not same(whole[0], fresh_moments[0])  # the optimisers are part of the state


def test_same_seed_same_bytes_other_seed_others():
    torch.manual_seed(1)
    a, _ = run_gan()
    torch.manual_seed(2)
    b, _ = run_gan()
    c, _ = run_gan(seed=1)
    assert same(a[0], b[0]) and same(a[1], b[1]) and not same(a[0], c[0])


def test_the_defaults_are_dcgans():
    opt = train.adam(build("D"), 2e-4)
    assert opt.defaults["betas"] == (0.5, 0.999) and opt.defaults["lr"] == 2e-4 and opt.defaults["weight_decay"] == 0


# --- classifier


def test_classifier_loss_and_learning_rate():
    """Cross entropy with 5 % smoothing on flipped images, one-cycle rate: up over a tenth, then down to near zero."""
    C, images = build("C"), split()
    plain = copy.deepcopy(C).train()
    rates, losses = zip(
        *(
            (s["optimisers"][0].param_groups[0]["lr"], s["loss"].item())
            for _, s in train.train_classifier(C, images, iterations=20, batch_size=10, lr=0.01, seed=4)
        )
    )
    assert rates == pytest.approx([min(0.01 * (i + 1) / 2, 0.01 * (20 - i) / 18) for i in range(20)])
    index = train.batch_index(0, 40, 10, 4, "classifier")
    flip = torch.rand(10, generator=generator(4, "flip", 0)) < 0.5
    x = torch.stack([image.flip(-1) if f else image for image, f in zip(images.batch(index), flip)])
    p = torch.log(torch.softmax(plain(x), 1))
    expected = -(0.95 * p[range(10), images.labels[index]] + 0.05 * p.mean(1)).mean()
    assert 0 < flip.sum() < 10 and losses[0] == pytest.approx(expected.item(), rel=1e-5)


def test_classifier_learns_labels_that_belong_to_their_images():
    labels = torch.arange(40) % 10
    rng = generator("patterns")
    patterns = torch.randint(0, 256, (10, 28, 14), generator=rng).repeat(1, 1, 2)
    patterns[:, :, 14:] = patterns[:, :, :14].flip(2)  # symmetric: flips change nothing
    images, C = Split(patterns[labels].byte(), labels, SIZE), build("C")
    last(train.train_classifier(C, images, iterations=60, batch_size=20))
    assert (C.eval()(images.batch(slice(None))).argmax(1) == labels).all()


# --- encoder


def test_training_masks_are_half_centre_half_any_kind():
    made = train.training_masks(200, SIZE, 0, 0)
    check_mask(made, SIZE)
    assert made.shape == (200, 1, SIZE, SIZE)
    centre = (made == center_mask(SIZE)).flatten(1).all(1)
    assert centre[:100].all() and 5 < centre[100:].sum() < 40  # the random half may draw it too
    assert torch.equal(made, train.training_masks(200, SIZE, 0, 0)) and len(MASKS) > 3
    assert not torch.equal(made, train.training_masks(200, SIZE, 1, 0)) and not torch.equal(
        made, train.training_masks(200, SIZE, 0, 1)
    )


def loops_weight(mask, window):
    reach, w = window // 2, torch.zeros_like(mask)
    for k in range(len(mask)):
        for i in range(SIZE):
            for j in range(SIZE):
                near = mask[k, 0, max(0, i - reach) : i + reach + 1, max(0, j - reach) : j + reach + 1]
                w[k, 0, i, j] = mask[k, 0, i, j] * (near == 0).float().mean()
    return w


def test_encoder_loss_is_the_searchs_context_plus_pixels_plus_latents():
    G, E, images = build("G").eval(), build("E"), split()
    plain = copy.deepcopy(E).train()
    nn.init.normal_(G.blocks[-1][0].weight, 0, 0.3)
    state = next(train.train_encoder(E, G, images, iterations=4, batch_size=6, window=5, prior="uniform", seed=2))[1]
    z = draw_z_batch(3, 5, "uniform", 2, "encoder z", 0)
    y = torch.cat([images.batch(train.batch_index(0, 40, 3, 2, "encoder")), G(z)]).detach()
    mask = train.training_masks(3, SIZE, 0, 2)
    mask = torch.cat([mask, mask])
    z_hat = plain(y, mask)
    x, total = G(z_hat), 0
    for k in range(6):
        total += (loops_weight(mask, 5)[k] * (x[k] - y[k])).abs().sum() + 0.1 * (x[k] - y[k]).abs().sum()
    expected = total / 6 + 10 * ((z_hat[3:] - z) ** 2).mean()
    assert state["loss"].item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize("training", [False, True])
def test_encoder_learns_and_g_is_untouched(training):
    G, E = build("G"), build("E")
    with torch.no_grad():
        for p in G.parameters():
            if p.ndim > 1:
                p.mul_(15)  # samples that differ from each other
        z = draw_z_batch(64, 5, "normal", "held out")
        y = G.eval()(z)
    G.train(training)
    next(G.parameters()).requires_grad_(False)
    flags = [p.requires_grad for p in G.parameters()] + [m.training for m in G.modules()]
    before = copy.deepcopy(G)
    last(train.train_encoder(E, G, split(), iterations=50, batch_size=32, lr=0.02))
    with torch.no_grad():
        error = (E.eval()(y, center_mask(SIZE)) - z).square().mean()
    assert error < 0.5  # knowing nothing leaves 1
    assert same(G, before) and all(p.grad is None for p in G.parameters())
    assert flags == [p.requires_grad for p in G.parameters()] + [m.training for m in G.modules()]


# --- resuming the two others


def run_other(kind, start=0, stop=7, net=None, optimisers=None, seed=0):
    net, G = net or build(kind), build("G")
    loop = (
        train.train_classifier(net, split(), iterations=7, batch_size=8, seed=seed, start=start, optimisers=optimisers)
        if kind == "C"
        else train.train_encoder(
            net, G, split(), iterations=7, batch_size=8, seed=seed, start=start, optimisers=optimisers
        )
    )
    for step, state in loop:
        if step == stop:
            return net, state["optimisers"]


@pytest.mark.parametrize("kind", ["C", "E"])
def test_others_resumed_equal_uninterrupted(kind):
    whole, _ = run_other(kind)
    net, optimisers = copy.deepcopy(run_other(kind, stop=3))
    torch.manual_seed(99)
    assert same(whole, run_other(kind, 3, 7, net, optimisers)[0])
    assert same(whole, run_other(kind)[0]) and not same(whole, run_other(kind, seed=1)[0])


def test_without_labels_the_classifier_learns_which_way_is_up():
    dark_below = torch.full((40, SIZE, SIZE), 250, dtype=torch.uint8)
    dark_below[:, SIZE // 2 :] = torch.randint(0, 60, (40, SIZE // 2, SIZE), generator=generator("dark")).byte()
    images = Split(dark_below, torch.zeros(40).long(), SIZE, classes=TURNS, turned=True)
    C = Classifier(8, size=SIZE, classes=4)
    last(train.train_classifier(C, images, iterations=60, batch_size=20))
    upright = images.batch(slice(0, 8))
    with torch.no_grad():
        for turns in range(4):
            assert (C.eval()(upright.rot90(turns, (2, 3))).argmax(1) == turns).all()
