"""Devices, precision, random streams, frozen networks, and Ctrl-C between steps."""

import contextlib
import signal
import threading
import time

import pytest
import torch
from torch import nn

from cgi_helpers.method import runtime

# --- devices and precision


@pytest.mark.parametrize("name", ["gpu", "mps", "", "CPU", "cuda0", 3])
def test_unknown_device_is_refused(name):
    with pytest.raises(ValueError, match="Unknown device .*: use 'auto', 'cpu', 'cuda' or 'cuda:N'"):
        runtime.pick_device(name)


@pytest.mark.parametrize("name", ["cuda", "cuda:0", "cuda:7"])
def test_an_absent_gpu_is_refused(name, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match=f"Device '{name}' was asked for but torch sees no GPU"):
        runtime.pick_device(name)


@pytest.mark.parametrize("name", ["cuda:1", "cuda:x", "cuda:", "cuda:-1"])
def test_a_gpu_that_does_not_exist_is_refused(name, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(ValueError, match=f"Device '{name}' does not exist: torch sees 1 GPUs"):
        runtime.pick_device(name)


def test_auto_prefers_cuda(monkeypatch):
    for there, kind in ((True, "cuda"), (False, "cpu")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda there=there: there)
        assert runtime.pick_device().type == kind
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert runtime.pick_device("cuda:1") == torch.device("cuda", 1)
    assert runtime.pick_device(torch.device("cpu")) == torch.device("cpu")


def test_bfloat16_on_gpus_from_ampere_on(monkeypatch):
    monkeypatch.delenv("CGI_FLOAT32", raising=False)
    monkeypatch.setattr(
        torch.cuda, "get_device_capability", {"cuda:0": (8, 0), "cuda:1": (7, 5), "cuda:2": (9, 0)}.__getitem__
    )
    assert [runtime.fast_dtype(f"cuda:{i}") for i in range(3)] == [torch.bfloat16, None, torch.bfloat16]
    monkeypatch.setenv("CGI_FLOAT32", "1")
    assert runtime.fast_dtype("cuda:0") is None


@pytest.mark.parametrize(
    "found, expected",
    [(set(), None), ({"avx512_f"}, None), ({"avx512_bf16"}, torch.bfloat16), ({"amx_bf16"}, torch.bfloat16)],
)
def test_bfloat16_only_where_the_hardware_has_it(monkeypatch, found, expected):
    monkeypatch.delenv("CGI_FLOAT32", raising=False)
    monkeypatch.setattr(runtime, "cpu_features", lambda: found)
    assert runtime.fast_dtype("cpu") is expected
    net = runtime.accelerate(nn.Conv2d(2, 3, 3), "cpu")
    assert net.amp is expected and net.weight.is_contiguous(memory_format=torch.channels_last)
    assert runtime.accelerate(nn.Conv2d(2, 3, 3), "cpu", amp=False).amp is None
    assert isinstance(runtime.autocast(net, net.weight), contextlib.nullcontext if expected is None else torch.autocast)


def test_features_are_asked_of_torch_then_of_linux(monkeypatch, tmp_path):
    told = {"avx2": True, "avx512_bf16": False, "num_sockets": 1, "cpu_name": "x"}
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: told, raising=False)
    assert runtime.cpu_features() == {"avx2"}
    monkeypatch.delattr(torch.cpu, "get_capabilities")  # as in versions that lack it
    cpuinfo = tmp_path / "cpuinfo"
    assert runtime.cpu_features(cpuinfo) == set()
    cpuinfo.write_text(
        "processor\t: 0\nflags\t\t: fpu avx2 amx_bf16\n\nprocessor\t: 1\nflags\t\t: fpu avx2 amx_bf16\nbugs\t: odd\n"
    )
    assert {"fpu", "avx2", "amx_bf16"} <= runtime.cpu_features(cpuinfo) and "odd" not in runtime.cpu_features(cpuinfo)


@pytest.mark.skipif(
    not (hasattr(torch.cpu, "get_capabilities") and runtime.CPUINFO.exists()), reason="needs both sources"
)
def test_torch_and_linux_name_the_same_units(monkeypatch):
    units = {"avx2", "avx512_bf16", "amx_bf16"}
    by_torch = runtime.cpu_features() & units
    monkeypatch.delattr(torch.cpu, "get_capabilities")
    assert runtime.cpu_features() & units == by_torch


# --- random streams


def test_a_stream_depends_on_its_keys_only():
    def draw(*keys):
        return torch.rand(4, generator=runtime.generator(*keys)).tolist()

    torch.manual_seed(1)
    first = draw(0, "z", 3)
    torch.manual_seed(2)
    assert draw(0, "z", 3) == first
    others = [
        draw(0, "z", 4),
        draw(1, "z", 3),
        draw(0, "y", 3),
        draw(0, "z", "3"),
        draw(0, "z"),
        draw("0z3"),
        draw(0, "z", 3, 0),
    ]
    assert len({tuple(o) for o in [first, *others]}) == 8


@pytest.mark.parametrize("prior", ["normal", "uniform"])
def test_row_i_of_draw_z_does_not_depend_on_the_number_of_rows(prior):
    z = runtime.draw_z(300, 50, prior, 7, "x")
    assert torch.equal(runtime.draw_z(3, 50, prior, 7, "x"), z[:3]) and not torch.equal(z[0], z[1])
    assert z.mean().item() == pytest.approx(0, abs=0.03)
    assert z.std().item() == pytest.approx(1 if prior == "normal" else 3**-0.5, rel=0.03)
    assert (z.abs().max() <= 1) == (prior == "uniform")
    batch = runtime.draw_z_batch(300, 50, prior, 7, "x")
    assert torch.equal(batch, runtime.draw_z_batch(300, 50, prior, 7, "x")) and (batch.abs().max() <= 1) == (
        prior == "uniform"
    )


def test_unknown_prior_is_refused():
    with pytest.raises(ValueError, match="Unknown latent prior 'gauss'"):
        runtime.draw_z(1, 2, "gauss", 0)


# --- loops


def test_frozen_restores_every_mode_and_flag_also_after_an_error():
    net, other = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Linear(2, 2)), nn.Linear(2, 2)
    net[1].eval()
    net[0].weight.requires_grad_(False)
    before = [m.training for m in net.modules()], [p.requires_grad for p in net.parameters()]
    assert True in before[0] and False in before[0] and True in before[1] and False in before[1]
    for fails in (False, True):
        with contextlib.suppress(ZeroDivisionError), runtime.frozen(net, other):
            assert not any(m.training for m in [*net.modules(), other])
            assert not any(p.requires_grad for p in [*net.parameters(), *other.parameters()])
            if fails:
                1 / 0
        assert ([m.training for m in net.modules()], [p.requires_grad for p in net.parameters()]) == before
        assert other.training and other.weight.requires_grad


def test_last_exhausts_a_loop(capsys):
    assert runtime.last((i, {"value": i}) for i in range(5)) == {"value": 4}
    assert runtime.last(iter(())) is None
    assert capsys.readouterr().err == ""
    runtime.last(((i, None) for i in range(5)), "searching", 5)
    assert "searching" in capsys.readouterr().err


def test_versions_name_what_results_depend_on():
    assert runtime.versions()["torch"] == torch.__version__ and set(runtime.versions()) == {
        "python",
        "torch",
        "machine",
    }


# --- Ctrl-C


def test_ctrl_c_waits_for_the_end_of_the_step():
    handler = signal.getsignal(signal.SIGINT)
    with runtime.interrupt_between_steps() as asked:
        assert not asked.is_set()
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)  # one key press may arrive twice
        assert asked.is_set()
    assert signal.getsignal(signal.SIGINT) is handler


def test_pressed_again_it_raises_at_once(monkeypatch):
    handler, clock = signal.getsignal(signal.SIGINT), iter((10.0, 10.5, 11.5))
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    with pytest.raises(KeyboardInterrupt), runtime.interrupt_between_steps():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        pytest.fail("the third signal did not raise")
    assert signal.getsignal(signal.SIGINT) is handler


def test_other_threads_cannot_and_need_not_take_the_signal():
    handler, seen = signal.getsignal(signal.SIGINT), []

    def job():
        with runtime.interrupt_between_steps() as asked:
            seen.append((asked.is_set(), signal.getsignal(signal.SIGINT) is handler))

    thread = threading.Thread(target=job)
    thread.start()
    thread.join()
    assert seen == [(False, True)]
