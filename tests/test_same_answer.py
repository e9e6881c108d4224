"""The fast paths against the plain reference, and bfloat16 against float32,
on the shipped `laptop` networks and real images."""

import copy
import sys
from pathlib import Path

import pytest
import torch

from cgi_helpers import data
from cgi_helpers.method.masks import center_mask, composite, weight_map
from cgi_helpers.method.refine import Overlay, refine, refine_all
from cgi_helpers.method.runtime import draw_z, fast_dtype, last
from cgi_helpers.method.search import find_latent, whitening
from cgi_helpers.pipeline.session import start
from cgi_helpers.study import metrics

# dB of the mean PSNR of 64 images: bfloat16 may cost no more (README);
# the smallest gain in the evaluation's table is larger
BOUND = 0.1


@pytest.fixture(scope="module")
def shipped():
    """(preset, {name: network}, 64 test images, mask)."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("CGI_ROOT", raising=False)
        session = start("laptop", device="cpu", progress=False)
        nets = {kind: session.net(kind) for kind in ("generator", "encoder")}
        nets.update({row: session.shaped(row, 2) for row in ("report", "per_image")})
    return session.preset, nets, data.load("fashion_mnist", 64)["test"].batch(slice(0, 64)), center_mask(64)


def exact(net):
    """A float32 copy."""
    net = copy.deepcopy(net)
    net.amp = None
    return net


@pytest.fixture
def reference(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[1] / "benchmarks"))
    monkeypatch.delitem(sys.modules, "reference", raising=False)
    import reference

    return reference


def test_one_iteration_of_the_search_agrees_with_the_reference_in_float32(shipped, reference):
    _, nets, y, mask = shipped
    G, z = exact(nets["generator"]), draw_z(len(y), 100, "normal", 0, "same").clamp(-1, 1)
    (_, one), (_, two) = find_latent(G, None, y, mask, z=z, iterations=1, clip=1.0)
    after, _, context, _ = reference.search_step(
        G, exact(nets["report"]), z, torch.zeros_like(z), y, weight_map(mask), 0
    )
    torch.testing.assert_close(one["context"], context, rtol=1e-4, atol=0)
    _, _, context, _ = reference.search_step(
        G, exact(nets["report"]), after, torch.zeros_like(z), y, weight_map(mask), 1
    )
    torch.testing.assert_close(two["context"], context, rtol=1e-4, atol=0)  # from one gradient step further


def test_one_step_of_the_refinement_agrees_with_the_reference_in_float32(shipped, reference):
    p, nets, y, mask = shipped
    s = p.shapings["report"]
    G, D, z = exact(nets["generator"]), exact(nets["report"]), draw_z(len(y), 100, "normal", 0, "same")
    h = G.to_features(z, s.layer).detach()
    state = last(
        refine(
            G,
            D,
            h,
            layer=s.layer,
            steps=1,
            step_size=s.step_size,
            mode="batch",
            compose=Overlay(y, mask),
            stop="median",
            threshold=float("inf"),
        )
    )
    moved, _ = reference.refine_step(
        G, copy.deepcopy(D).train(), z, h, torch.zeros_like(h), y, mask, s.layer, s.step_size
    )
    torch.testing.assert_close(state["features"], moved, rtol=0, atol=1e-4)
    torch.testing.assert_close(state["images"], composite(y, G.to_image(moved, s.layer), mask), rtol=0, atol=1e-4)


@pytest.mark.skipif(fast_dtype("cpu") is None, reason="this CPU has no bfloat16 units, so that float32 runs anyway")
def test_bfloat16_changes_the_mean_psnr_by_less_than_its_bound(shipped):
    p, nets, y, mask = shipped
    whiten, found, best = whitening(exact(nets["generator"]), mask, window=p.window), {}, p.searches["best"]
    for precision, as_is in (("bfloat16", lambda net: net), ("float32", exact)):
        G, E = as_is(nets["generator"]), as_is(nets["encoder"])
        with torch.no_grad():
            z = E(y, mask)
        z = last(
            find_latent(G, None, y, mask, z=z, iterations=best.iterations, optimiser="adam", lr=best.lr, whiten=whiten)
        )["z"]
        found[precision] = [composite(y, G(z).detach(), mask)]
        for row in ("report", "per_image"):
            s = p.shapings[row]
            found[precision].append(
                refine_all(
                    G,
                    as_is(nets[row]),
                    z,
                    layer=s.layer,
                    steps=s.steps,
                    step_size=s.step_size,
                    mode=s.mode,
                    compose=Overlay(y, mask),
                )[0]
            )
    for a, b in zip(*found.values(), strict=True):
        assert not torch.equal(a, b)
        assert abs(float((metrics.psnr(a, y) - metrics.psnr(b, y)).mean())) < BOUND
