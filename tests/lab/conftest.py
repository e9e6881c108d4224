"""A smoke session whose networks look trained, without training any."""

import pytest
import torch
from nets import lively

from cgi_helpers.pipeline.session import start

pytest.importorskip("ipywidgets")


@pytest.fixture(scope="session")
def networks():
    """{kind: network} as `Engine.nets` holds them: float32, eval, no parameter gradients."""
    session = start("smoke", device="cpu", progress=False)
    stages = session.preset.shapings["per_image"].epochs
    nets = {kind: lively(session.build(kind), i) for i, kind in enumerate(("generator", "encoder"))}
    nets.update({e: lively(session.build("discriminator"), 10 + i) for i, e in enumerate(stages)})
    for net in nets.values():
        net.float().requires_grad_(False).amp = None
    with torch.no_grad():  # latents of a sensible size
        nets["encoder"].net[-1].weight.mul_(0.2)
    return nets


@pytest.fixture
def session(root):
    return start("smoke", device="cpu", progress=False)


@pytest.fixture
def equip(networks):
    """Give an engine the networks of this session."""
    def give(engine):
        engine.nets.update(networks)
        return engine
    return give
