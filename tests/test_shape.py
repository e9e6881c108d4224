"""Discriminator shaping against a plain loop written here."""

import copy

import pytest
import torch

from cgi_helpers.data import Split
from cgi_helpers.method import shape
from cgi_helpers.method.masks import block_mask, center_mask, composite
from cgi_helpers.method.models import Discriminator, Generator
from cgi_helpers.method.refine import Overlay, refine
from cgi_helpers.method.runtime import draw_z_batch, generator, last
from cgi_helpers.method.train import batch_index

SIZE = 16


class Doubles(Split):
    """A split whose network input is float64, so that comparisons may be exact."""

    def batch(self, index, device="cpu"):
        return super().batch(index, device).double()


@pytest.fixture(autouse=True)
def doubles(monkeypatch):
    monkeypatch.setattr(shape, "draw_z_batch", lambda *a, **k: draw_z_batch(*a, **k).double())


def pool(n=30):
    rng = generator("pool")
    images = Doubles(torch.randint(0, 256, (n, 28, 28), generator=rng, dtype=torch.uint8), torch.zeros(n).long(), SIZE)
    return images, torch.randn(n, 5, generator=rng).double()


def nets(scale=4.0):
    """G and D in float64; larger weights than DCGAN's first ones, so that refinement moves something."""
    torch.manual_seed(0)
    G, D = Generator(5, 4, size=SIZE).double(), Discriminator(4, size=SIZE).double()
    with torch.no_grad():
        for net in (G, D):
            for p in net.parameters():
                if p.ndim > 1:
                    p.mul_(scale)
            for m in net.modules():
                if isinstance(m, torch.nn.BatchNorm2d):
                    m.running_mean.normal_(0, 0.2)
                    m.running_var.uniform_(0.5, 1.5)
    return G.eval(), D.eval()


def same(a, b):
    return all(torch.equal(v, b.state_dict()[k]) for k, v in a.state_dict().items())


OPTIONS = dict(layer=1, refine_steps=4, step_size=0.3, batch_size=8, lr=1e-3, seed=5)
MASK = center_mask(SIZE)


def plain_shaping(G, D, images, z, iterations, mode, compose, r1):
    """-log D(real) - log(1 - D(refined)), with the same images' latents, refined by the present D; a plain Adam."""
    opt = torch.optim.Adam(D.parameters(), 1e-3, betas=(0.5, 0.999), fused=False)
    result = []
    for step in range(iterations):
        index = batch_index(step, len(images), 8, 5, "shape")
        real = images.batch(index)
        latents = z[index] if z is not None else draw_z_batch(8, 5, "uniform", 5, "shape z", step).double()
        states = [
            s
            for _, s in refine(
                G,
                D,
                G.to_features(latents, 1).detach(),
                layer=1,
                steps=4,
                step_size=0.3,
                compose=compose(real),
                mode=mode,
            )
        ]
        refined = states[-1]["images"]
        d_real, d_fake = torch.sigmoid(D(real, mode)), torch.sigmoid(D(refined, mode))
        loss = -torch.log(d_real).mean() - torch.log(1 - d_fake).mean()
        if r1:
            x = real.clone().requires_grad_()
            (slope,) = torch.autograd.grad(D(x, mode).sum(), x, create_graph=True)
            loss = loss + r1 / 2 * (slope**2).sum((1, 2, 3)).mean()
        opt.zero_grad()
        loss.backward()
        opt.step()
        result.append(
            [loss.item(), D_mean(d_real), D_mean(d_fake), (states[-1]["logits"] - states[0]["path"]).mean().item()]
        )
    return result


def D_mean(probability):
    """Mean logit."""
    return torch.log(probability / (1 - probability)).mean().item()


@pytest.mark.parametrize("mode", ["batch", "independent"])
@pytest.mark.parametrize("inpainting, encoded, r1", [(True, True, 0.0), (False, True, 0.7), (True, False, 0.0)])
def test_equals_a_plain_loop(mode, inpainting, encoded, r1):
    images, z = pool()
    z = z if encoded else None
    compose = (lambda real: lambda x: composite(real, x, MASK)) if inpainting else shape.whole
    own = (lambda real: Overlay(real, MASK)) if inpainting else shape.whole
    (G, D), (G2, D2) = nets(), nets()
    states = [
        [float(s[k]) for k in ("d_loss", "real", "refined", "gain")]
        for _, s in shape.shape_discriminator(
            G, D, images, z, iterations=5, mode=mode, compose=own, r1=r1, prior="uniform", **OPTIONS
        )
    ]
    expected = plain_shaping(G2, D2, images, z, 5, mode, compose, r1)
    for state, values in zip(states, expected, strict=True):
        assert state == pytest.approx(values, rel=1e-7, abs=1e-9) and state[3] > 1e-4
    for k, v in D.state_dict().items():
        torch.testing.assert_close(v, D2.state_dict()[k], rtol=0, atol=1e-9)


@pytest.mark.parametrize("mode", ["batch", "independent"])
@pytest.mark.parametrize("training", [False, True])
def test_shaping_changes_ds_weights_only(mode, training):
    images, z = pool()
    G, D = nets()
    G.train(training), D.train(training)
    next(G.parameters()).requires_grad_(False)
    flags = [[p.requires_grad for p in n.parameters()] for n in (G, D)], [m.training for m in G.modules()]
    old_g, old_d, old_z, old_images = copy.deepcopy(G), copy.deepcopy(D), z.clone(), images.images.clone()
    last(shape.shape_discriminator(G, D, images, z, iterations=2, mode=mode, **OPTIONS))
    assert same(G, old_g) and torch.equal(z, old_z) and torch.equal(images.images, old_images)
    assert flags == ([[p.requires_grad for p in n.parameters()] for n in (G, D)], [m.training for m in G.modules()])
    assert all(p.grad is None for p in G.parameters())
    for (name, a), (_, b) in zip(D.named_parameters(), old_d.named_parameters()):
        assert not torch.equal(a, b), name
    for (name, a), (_, b) in zip(D.named_buffers(), old_d.named_buffers()):
        assert torch.equal(a, b), name  # neither mode touches the running statistics


def test_the_fakes_carry_the_context_of_the_real_images_beside_them():
    images, z = pool()
    G, D = nets()
    seen = []

    def compose(real):
        seen.append(real)
        return Overlay(real, block_mask(SIZE, generator(1)))

    last(shape.shape_discriminator(G, D, images, z, iterations=3, compose=compose, **OPTIONS))
    assert len(seen) == 3
    for step, real in enumerate(seen):
        assert torch.equal(real, images.batch(batch_index(step, 30, 8, 5, "shape")))


def test_shaping_teaches_d_to_tell_refined_samples_from_real_ones():
    images, z = pool()
    G, D = nets()
    gaps = [
        float(s["real"] - s["refined"]) for _, s in shape.shape_discriminator(G, D, images, z, iterations=30, **OPTIONS)
    ]
    assert sum(gaps[-5:]) / 5 > sum(gaps[:5]) / 5 + 0.5


def run(start=0, stop=6, D=None, optimisers=None, seed=5):
    images, z = pool()
    G, fresh = nets()
    D = D or fresh
    for step, state in shape.shape_discriminator(
        G,
        D,
        images,
        z,
        iterations=6,
        start=start,
        optimisers=optimisers,
        stop="probabilistic",
        **{**OPTIONS, "seed": seed},
    ):
        if step == stop:
            return D, state["optimisers"]


def test_resumed_equals_uninterrupted_and_same_seed_same_bytes():
    whole, _ = run()
    D, optimisers = copy.deepcopy(run(stop=3))
    torch.manual_seed(99)
    assert same(whole, run(3, 6, D, optimisers)[0])
    assert same(whole, run()[0]) and not same(whole, run(seed=6)[0])


def test_bad_options_are_one_sentence():
    images, z = pool()
    for change, message in (
        (dict(layer=9), "Layer must be"),
        (dict(refine_steps=-1), "refinement steps"),
        (dict(step_size=0), "step size"),
        (dict(stop="mean"), "Unknown stopping rule"),
        (dict(mode="eval"), "Unknown discriminator mode"),
        (dict(micro_batch=0), "shape_micro_batch must be None"),
    ):
        with pytest.raises(ValueError, match=message):
            next(shape.shape_discriminator(*nets(), images, z, iterations=1, **{**OPTIONS, **change}))
