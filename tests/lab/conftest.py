"""A smoke session whose networks look trained, without training any."""

from dataclasses import replace

import pytest
import torch

from cgi_helpers.method.runtime import draw_z, generator
from cgi_helpers.pipeline.presets import get_preset
from cgi_helpers.pipeline.session import start

from nets import lively

pytest.importorskip("ipywidgets")

from cgi_helpers.lab.engine import Engine  # noqa: E402
from cgi_helpers.lab.recipe import COMPANY, default_recipe  # noqa: E402


@pytest.fixture(scope="session")
def networks():
    """{kind: network} as `Engine.nets` holds them: float32, eval, no parameter gradients."""
    return tiny(start("smoke", device="cpu", progress=False))


@pytest.fixture
def session(root):
    return start("smoke", device="cpu", progress=False)


def tiny(session):
    """{kind: network} as `Engine.nets` holds them: float32, eval, no parameter gradients."""
    nets = {kind: lively(session.build(kind), i) for i, kind in enumerate(("generator", "encoder"))}
    nets["discriminator"] = lively(session.build("discriminator"), 10)
    for k, row in enumerate(COMPANY.values()):
        for i, e in enumerate(session.preset.shapings[row].epochs):
            nets[row, e] = lively(session.build("discriminator"), 10 + i + 20 * k * (i > 0))
    for i, row in enumerate(session.preset.feedforward):
        nets["fitted", row] = lively(session.feedforward(row)[0], 50 + i)
        for e in session.preset.shapings[row].epochs[1:]:
            nets[row, e] = lively(session.build("discriminator"), 60 + i)
    inverted = session.preset.shapings["unet_inverted"].epochs[-1]
    nets["unet_inverted", inverted] = lively(session.build("discriminator"), 70)
    for net in nets.values():
        net.float().requires_grad_(False).amp = None
    with torch.no_grad():  # latents of a sensible size
        nets["encoder"].net[-1].weight.mul_(0.2)
    y = session.data["train"].batch(slice(0, 8))
    nets["companions", "best"] = y, draw_z(8, session.preset.networks.z_dim, "normal", "companions")
    nets.update({("companions", row): (y, y) for row in session.preset.feedforward})
    nets["companions", "unet_inverted"] = nets["companions", "best"]
    return nets


class Colours:
    """Twenty random colour images as a split; no labels."""

    labels = classes = None
    turned = False

    def __init__(self, size):
        self.images = torch.rand(20, 3, size, size, generator=generator("colours")) * 2 - 1

    def __len__(self):
        return len(self.images)

    def batch(self, index, device="cpu"):
        return self.images[index].to(device)


@pytest.fixture(params=[32, 64])
def colour(request, root):
    """(engine, short recipe, (3, side)) of a session with colour images without labels and
    networks that look trained."""
    session = start(get_preset("smoke", channels=3, size=request.param), device="cpu", progress=False)
    session.__dict__["data"] = dict.fromkeys(("train", "validation", "test"), Colours(request.param))
    engine = Engine(session)
    engine.nets.update(tiny(session))
    recipe = replace(default_recipe(session), iterations=4, steps=3, layer=1, step_size=0.05)
    return engine, recipe, (3, request.param)


@pytest.fixture
def equip(networks):
    """Give an engine the networks of this session."""

    def give(engine):
        engine.nets.update(networks)
        return engine

    return give
