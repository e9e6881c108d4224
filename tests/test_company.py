"""What a discriminator says of images in company, and who keeps whom company."""

import torch

from cgi_helpers.method.models import Discriminator
from cgi_helpers.method.runtime import generator
from cgi_helpers.pipeline.company import answers, orders

from nets import lively


def images(n, level):
    noise = torch.rand(n, 1, 16, 16, generator=generator("company", level), dtype=torch.float64)
    return 0.2 * noise + level


def test_orders_are_permutations_and_one_of_them_puts_each_class_together():
    labels = torch.tensor([2, 0, 1, 0, 2, 1, 1, 0])
    found = orders(labels, 0)
    assert all(sorted(order.tolist()) == list(range(8)) for order in found.values())
    assert labels[found["one class"]].tolist() == [0, 0, 0, 1, 1, 1, 2, 2]
    assert torch.equal(orders(labels, 0)["random"], found["random"])


def test_answers_are_the_logits_of_each_company():
    D, real, fake = lively(Discriminator(4, size=16)), images(8, 0.3), images(8, -0.3)
    found = answers(D, real, fake)
    right = (D(real, "batch") > 0).double().sum() + (D(fake, "batch") < 0).double().sum()
    assert found["right"]["pure"] == float(right) / 16
    right = 0
    for part in (slice(0, 4), slice(4, 8)):
        logits = D(torch.cat([real[part], fake[part]]), "batch")
        right += float((logits[:4] > 0).sum() + (logits[4:] < 0).sum())
    assert found["right"]["mixed"] == right / 16
    lone = torch.stack([D(torch.cat([fake[i : i + 1], real[1:]]), "batch")[0] for i in range(8)]).median()
    assert found["one among others"]["generated"] == lone.item()


def test_a_judge_of_the_mean_knows_no_batch():
    class Mean(torch.nn.Module):
        def forward(self, x, mode="independent"):
            return x.flatten(1).mean(1)

    found = answers(Mean(), images(8, 0.3), images(8, -0.4))
    assert found["right"] == {"pure": 1.0, "running": 1.0, "mixed": 1.0}
    assert found["one among others"]["generated"] < 0 < found["one among others"]["real"]
