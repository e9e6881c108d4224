"""The recorded field: on the batch that was recorded it is batch mode; with it an image depends on no other image."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from cgi_helpers.method.field import STATISTICS, GivenBatchNorm
from cgi_helpers.method.judge import Judge, Term
from cgi_helpers.method.masks import block_mask, center_mask, composite
from cgi_helpers.method.models import Discriminator, Generator
from cgi_helpers.method.refine import Overlay, identity, record_field, refine, refine_all
from cgi_helpers.method.runtime import generator, last

from nets import lively

SIZE, STEPS = 16, 6
PATH = dict(layer=1, steps=STEPS, step_size=0.15)


def nets(size=SIZE):
    return lively(Generator(6, 4, size=size)), lively(Discriminator(4, size=size), 1)


def features(G, n, seed=0, layer=1):
    with torch.no_grad():
        return G.to_features(torch.randn(n, 6, generator=generator("field", seed), dtype=torch.float64), layer)


def images(n, size=SIZE, seed=0):
    return torch.rand(n, 1, size, size, generator=generator("images", seed), dtype=torch.float64) * 2 - 1


def statistics(shape, channels=3):
    rng = generator("statistics")
    x, *vectors = (
        torch.randn(s, generator=rng, dtype=torch.float64, requires_grad=True) for s in (shape, *[(channels,)] * 6)
    )
    mean, var, push, pull, weight, bias = (v.detach() for v in vectors)
    return x, mean, var.exp(), push, pull, weight, bias


# --- BatchNorm with given statistics


@pytest.mark.parametrize("shape", [(5, 3), (4, 3, 2, 5)])
def test_it_is_batchnorm_where_the_statistics_are_those_of_the_batch(shape):
    x, *_, weight, bias = statistics(shape)
    y = F.batch_norm(x, None, None, weight, bias, True, 0.0, 1e-5)
    g = torch.randn(y.shape, generator=generator("g"), dtype=torch.float64)
    (expected,) = torch.autograd.grad(y, x, g)
    dims = [d for d in range(x.ndim) if d != 1]
    var, mean = torch.var_mean(x.detach(), dims, correction=0)
    x_hat = (y.detach() - bias.view(1, 3, *[1] * (x.ndim - 2))) / weight.view(1, 3, *[1] * (x.ndim - 2))
    ours = GivenBatchNorm.apply(x, mean, var, g.mean(dims), (g * x_hat).mean(dims), weight, bias, 1e-5)
    torch.testing.assert_close(ours, y, rtol=0, atol=1e-12)
    torch.testing.assert_close(torch.autograd.grad(ours, x, g)[0], expected, rtol=0, atol=1e-12)


def test_the_gradient_is_that_of_finite_differences():
    """Without the backward statistics it is the derivative itself;
    with them, that of the output beside a potential of x."""
    x, mean, var, push, pull, weight, bias = statistics((2, 3, 2, 2))
    assert torch.autograd.gradcheck(
        lambda x: GivenBatchNorm.apply(x, mean, var, 0 * push, 0 * pull, weight, bias, 1e-5), x
    )
    slope = weight / torch.sqrt(var + 1e-5)
    wide = (1, 3, 1, 1)

    def potential(x):
        x_hat = (x - mean.view(wide)) / torch.sqrt(var + 1e-5).view(wide)
        return (
            slope.view(wide)
            * (push.view(wide) * x + pull.view(wide) * torch.sqrt(var + 1e-5).view(wide) * x_hat**2 / 2)
        ).sum()

    (gradient,) = torch.autograd.grad(GivenBatchNorm.apply(x, mean, var, push, pull, weight, bias, 1e-5).sum(), x)
    for i in range(0, x.numel(), 5):
        e = torch.zeros(x.numel(), dtype=torch.float64)
        e[i] = 1e-5

        def value(v):
            return GivenBatchNorm.apply(v, mean, var, push, pull, weight, bias, 1e-5).sum() - potential(v)

        difference = (value(x.detach() + e.view_as(x)) - value(x.detach() - e.view_as(x))) / 2e-5
        assert gradient.flatten()[i].item() == pytest.approx(difference.item(), rel=1e-6)


# --- against batch mode, alone and in company


def compositions(y, mask):
    return {"sampling": identity, "function": lambda x: composite(y, x, mask), "overlay": Overlay(y, mask)}


@pytest.mark.parametrize("kind", ["sampling", "function", "overlay"])
@pytest.mark.parametrize("layer", [0, 1, 2])
def test_on_the_companions_themselves_it_is_batch_mode_at_every_step(kind, layer):
    G, D = nets()
    h, path = features(G, 5, layer=layer), {**PATH, "layer": layer}
    compose = compositions(images(5), block_mask(SIZE, generator(5)).double())[kind]
    field = record_field(G, D, h, compose=compose, **path)
    steps = zip(
        refine(G, D, h, compose=compose, mode="batch", **path),
        refine(G, D, h, compose=compose, mode="field", field=field, **path),
        strict=True,
    )
    for (_, batch), (_, ours) in steps:
        for key in ("images", "features", "logits", "path"):
            torch.testing.assert_close(ours[key], batch[key], rtol=0, atol=1e-9)
    assert (batch["features"] - h).abs().max() > 1e-3


@pytest.mark.parametrize("kind", ["function", "overlay"])
def test_an_image_alone_or_among_16(kind):
    G, D = nets()
    field = record_field(
        G, D, features(G, 8, seed=1), compose=compositions(images(8, seed=1), center_mask(SIZE).double())[kind], **PATH
    )
    h, y, mask = features(G, 16), images(16), center_mask(SIZE).double()
    options = dict(mode="field", field=field, **PATH)
    together = last(refine(G, D, h, compose=compositions(y, mask)[kind], **options))
    for i in (0, 7, 15):
        alone = last(refine(G, D, h[i : i + 1], compose=compositions(y[i : i + 1], mask)[kind], **options))
        torch.testing.assert_close(alone["images"][0], together["images"][i], rtol=0, atol=1e-10)
    for mode in ("independent", "batch"):
        other = last(refine(G, D, h, compose=compositions(y, mask)[kind], mode=mode, **PATH))
        assert (other["images"] - together["images"]).abs().max() > 1e-3


def test_the_overlay_gives_what_the_whole_networks_give_also_in_micro_batches():
    G, D = nets(32)
    z = torch.randn(7, 6, generator=generator("z"), dtype=torch.float64)
    y, masks = images(7, 32), torch.cat([block_mask(32, generator(i)) for i in range(7)]).double()
    field = record_field(G, D, features(G, 6, seed=2), **PATH)
    options = dict(mode="field", field=field, batch_size=3, **PATH)
    a, _ = refine_all(G, D, z, compose=Overlay(y, masks), **options)
    b, _ = refine_all(G, D, z, compose=lambda x, rows: composite(y[rows], x, masks[rows]), **options)
    torch.testing.assert_close(a, b, rtol=0, atol=1e-9)


def test_each_step_has_its_own_statistics_and_all_four_matter():
    G, D = nets()
    companions, h = features(G, 8, seed=1), features(G, 3)
    field = record_field(G, D, companions, **PATH)
    assert set(STATISTICS) < set(field) and all(torch.is_tensor(v) for v in field.values())
    assert field["mean"].shape == (STEPS + 1, 8) and field["mean"].diff(dim=0).abs().max() > 1e-3
    # nothing moves after the last step
    assert field["push"][:-1].abs().max() > 0 and field["push"][-1].abs().max() == 0
    right = last(refine(G, D, h, mode="field", field=field, **PATH))["features"]
    for name in STATISTICS:
        spoilt = {**field, name: field[name] * 1.5 + 0.01}
        assert (last(refine(G, D, h, mode="field", field=spoilt, **PATH))["features"] - right).abs().max() > 1e-5, name


def test_fewer_steps_are_the_beginning_of_the_path():
    G, D = nets()
    field, h = record_field(G, D, features(G, 8, seed=1), **PATH), features(G, 2)
    full = [s["path"] for _, s in refine(G, D, h, mode="field", field=field, **PATH)]
    short = [s["path"] for _, s in refine(G, D, h, mode="field", field=field, **{**PATH, "steps": 3})]
    assert all(torch.equal(a, b) for a, b in zip(full, short)) and len(short) == 4


# --- several discriminators


def test_a_judge_is_the_weighted_sum_of_its_discriminators():
    G, D = nets()
    other, y, mask, h = lively(Discriminator(4, size=SIZE), 2), images(4), center_mask(SIZE).double(), features(G, 4)

    def total(x):
        return D(x, "batch") + 0.3 * other(x, "independent")

    judge = Judge(Term(D, "batch"), Term(other, weight=0.3))
    for compose in (lambda x: composite(y, x, mask), Overlay(y, mask)):
        a, b = (last(refine(G, d, h, compose=compose, **PATH)) for d in (judge, total))
        torch.testing.assert_close(a["images"], b["images"], rtol=0, atol=1e-9)
        torch.testing.assert_close(a["path"], b["path"], rtol=0, atol=1e-8)


def test_a_judge_recorded_and_played_is_itself_on_its_companions():
    G, D = nets()
    judge, h = Judge(Term(D, "batch"), Term(lively(Discriminator(4, size=SIZE), 2), weight=0.3)), features(G, 5)
    compose = Overlay(images(5), center_mask(SIZE).double())
    played = judge.played(record_field(G, judge, h, compose=compose, **PATH))
    assert [t.mode for t in played.terms] == ["field", "independent"]
    a, b = (last(refine(G, d, h, compose=compose, **PATH)) for d in (judge, played))
    torch.testing.assert_close(a["images"], b["images"], rtol=0, atol=1e-9)


class Foreign(nn.Module):
    """A discriminator of somebody else's: plain BatchNorm, no mode, output (N, 1)."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(1, 4, 4, 2, 1),
            nn.BatchNorm2d(4),
            nn.LeakyReLU(0.2),
            nn.Flatten(),
            nn.Linear(256, 8),
            nn.BatchNorm1d(8, affine=False),
            nn.LeakyReLU(0.2),
            nn.Linear(8, 1),
        )

    def forward(self, x):
        return self.net(x)


def test_any_discriminator_with_batchnorm_has_a_field_and_is_left_alone():
    G, D, h = nets()[0], lively(Foreign(), 3), features(nets()[0], 5)
    before = {k: v.clone() for k, v in D.state_dict().items()}
    field = record_field(G, D, h, **PATH)
    a, b, c = (last(refine(G, D, h, mode=m, field=field, **PATH))["images"] for m in ("batch", "field", "independent"))
    torch.testing.assert_close(a, b, rtol=0, atol=1e-9)
    assert (a - c).abs().max() > 1e-4
    assert all(torch.equal(v, before[k]) for k, v in D.state_dict().items()) and not D.training


# --- bad input


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(field=None), "pass field=record_field"),
        (dict(step_size=0.2), "recorded with step_size = 0.15 but step_size is 0.2"),
        (dict(layer=0), "recorded with layer = 1 but layer is 0"),
        (dict(momentum=0.5), "recorded with momentum = 0.9"),
        (dict(steps=STEPS + 1), "recorded for 6 steps"),
        (dict(D=lively(Discriminator(8, size=SIZE))), "it has 8 channels where this one normalises 16"),
        (dict(mode="company"), "Unknown discriminator mode 'company': use one of auto, batch, independent, field"),
    ],
)
def test_a_field_that_does_not_fit_is_one_sentence(change, message):
    G, D = nets()
    field = record_field(G, D, features(G, 4), **PATH)
    options = {**PATH, "mode": "field", "field": field, "D": D, **change}
    D = options.pop("D")
    with pytest.raises(ValueError, match=message) as error:
        last(refine(G, D, features(G, 2, layer=options["layer"]), **options))
    assert "\n" not in str(error.value)


def test_what_cannot_be_recorded_is_one_sentence():
    G, D = nets()
    with pytest.raises(ValueError, match="1 discriminators in that mode and 1 companions"):
        record_field(G, D, features(G, 1), **PATH)
    with pytest.raises(ValueError, match="but there are 0 discriminators"):
        record_field(G, Judge(Term(D)), features(G, 4), **PATH)
    with pytest.raises(ValueError, match="finite weight"):
        Judge(Term(D, weight=float("nan")))
    with pytest.raises(ValueError, match="at least one Term"):
        Judge()
