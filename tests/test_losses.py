"""Losses against the report's formulas, written with sigmoid and log in float64."""

import pytest
import torch

from cgi_helpers.method import losses

LOGITS = torch.linspace(-9, 9, 37, dtype=torch.float64)


def test_generator_loss_is_minus_log_d_or_log_one_minus_d():
    d = 1 / (1 + torch.exp(-LOGITS))
    torch.testing.assert_close(losses.generator_loss(LOGITS), -torch.log(d), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(losses.generator_loss(LOGITS, saturating=True), torch.log(1 - d), rtol=1e-12, atol=1e-12)


def test_generator_loss_gradients():
    """d/dl of -log D is D - 1, of log(1 - D) it is -D: both ask for a higher logit."""
    logits = LOGITS.clone().requires_grad_()
    d = 1 / (1 + torch.exp(-LOGITS))
    (plain,) = torch.autograd.grad(losses.generator_loss(logits).sum(), logits)
    (saturating,) = torch.autograd.grad(losses.generator_loss(logits, True).sum(), logits)
    torch.testing.assert_close(plain, d - 1)
    torch.testing.assert_close(saturating, -d)


def test_prior_loss_applies_lambda_once():
    for saturating in (False, True):
        torch.testing.assert_close(
            losses.prior_loss(LOGITS, 1e-4, saturating),
            1e-4 * losses.generator_loss(LOGITS, saturating),
            rtol=1e-14,
            atol=0,
        )
    assert losses.prior_loss(LOGITS, 0).eq(0).all()


def test_discriminator_loss_is_the_two_expectations():
    real, fake = LOGITS[:20], LOGITS[5:]
    d_real, d_fake = 1 / (1 + torch.exp(-real)), 1 / (1 + torch.exp(-fake))
    expected = -torch.log(d_real).mean() - torch.log(1 - d_fake).mean()
    torch.testing.assert_close(losses.discriminator_loss(real, fake), expected, rtol=1e-12, atol=1e-12)
    assert losses.discriminator_loss(torch.zeros(3), torch.zeros(5)) == pytest.approx(
        2 * torch.tensor(2.0).log().item()
    )


def test_losses_stay_finite_where_the_sigmoid_does_not():
    far = torch.tensor([-800.0, 800.0])
    torch.testing.assert_close(losses.generator_loss(far), torch.tensor([800.0, 0.0]))
    torch.testing.assert_close(losses.generator_loss(far, True), torch.tensor([0.0, -800.0]))
    assert losses.discriminator_loss(far[:1], far[1:]) == 1600


def test_context_loss_sums_over_channels_and_pixels_of_each_image():
    torch.manual_seed(0)
    x, y, weight = torch.randn(3, 2, 4, 5).double(), torch.randn(3, 2, 4, 5).double(), torch.rand(1, 1, 4, 5).double()
    expected = [
        sum(
            abs(weight[0, 0, i, j] * (x[k, c, i, j] - y[k, c, i, j]))
            for c in range(2)
            for i in range(4)
            for j in range(5)
        )
        for k in range(3)
    ]
    torch.testing.assert_close(losses.context_loss(x, y, weight), torch.stack(expected))
    assert losses.context_loss(x, x, weight).eq(0).all()


def test_r1_penalty_is_the_mean_squared_gradient_of_the_logit():
    torch.manual_seed(0)
    w, x = torch.randn(1, 3, 3).double().requires_grad_(), torch.randn(5, 1, 3, 3).double()

    def D(x, mode):
        assert mode == "batch"
        return (w * x**2).flatten(1).sum(1)

    penalty = losses.r1_penalty(D, x, "batch")
    torch.testing.assert_close(penalty, (2 * w * x).pow(2).flatten(1).sum(1).mean())
    (gradient,) = torch.autograd.grad(penalty, w)  # it must train D, so it carries a graph
    torch.testing.assert_close(gradient, (8 * w * x**2).mean(0).detach())
    assert not x.requires_grad
