"""Device, precision, seeds and loop plumbing that every other room uses."""

import contextlib
import hashlib
import os
import platform
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

CPUINFO = Path("/proc/cpuinfo")


def pick_device(name: str = "auto") -> torch.device:
    """Return a `torch.device`; `auto` prefers CUDA. Raises ValueError for an unknown or absent device."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    name = str(name)
    if name not in ("cpu", "cuda") and not name.startswith("cuda:"):
        raise ValueError(f"Unknown device {name!r}: use 'auto', 'cpu', 'cuda' or 'cuda:N'.")
    if name != "cpu" and not torch.cuda.is_available():
        raise ValueError(f"Device {name!r} was asked for but torch sees no GPU: use 'cpu' or 'auto'.")
    _, numbered, index = name.partition(":")
    if numbered and not (index.isdecimal() and int(index) < torch.cuda.device_count()):
        raise ValueError(
            f"Device {name!r} does not exist: torch sees {torch.cuda.device_count()} GPUs, counted from cuda:0."
        )
    return torch.device(name)


def fast_dtype(device: str | torch.device) -> torch.dtype | None:
    """bfloat16 where the hardware has units for it, else None (plain float32).

    Emulated bfloat16 is slower than float32, so a CPU counts only with AVX512-BF16 or AMX, a GPU only from Ampere (8.0)
    on. With CGI_FLOAT32=1 nothing counts: to see what the lower precision changes and brings.
    """
    if os.environ.get("CGI_FLOAT32") == "1":
        return None
    if torch.device(device).type == "cuda":
        return torch.bfloat16 if torch.cuda.get_device_capability(device) >= (8, 0) else None
    return torch.bfloat16 if {"avx512_bf16", "amx_bf16"} & cpu_features() else None


def cpu_features(cpuinfo: Any = CPUINFO) -> set:
    """Names of what this CPU can do, as torch tells them;
    older versions of torch do not, then as Linux tells them, else none."""
    if hasattr(torch.cpu, "get_capabilities"):
        return {name for name, there in torch.cpu.get_capabilities().items() if there is True}
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    return {name for line in lines if line.startswith("flags") for name in line.split()}


def accelerate(net: nn.Module, device: str | torch.device, amp: bool = True) -> nn.Module:
    """Move `net` to `device`, lay convolutions out channels-last and set its mixed precision.

    Networks of this package read their own `amp` attribute and always return float32, so no loop has to
    know about precision.
    """
    net = net.to(device, memory_format=torch.channels_last)
    net.amp = fast_dtype(device) if amp else None
    return net


def autocast(net: Any, x: torch.Tensor) -> Any:
    """The context in which `net` runs on `x`: its own `amp` dtype, or full precision (None)."""
    amp = getattr(net, "amp", None)
    return torch.autocast(x.device.type, amp) if amp else contextlib.nullcontext()


def clock(device: str | torch.device) -> float:
    """Seconds by a steady clock, once everything that was queued on `device` has finished."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def generator(*keys: Any) -> torch.Generator:
    """A CPU `torch.Generator` whose stream depends on `keys` only, e.g. `generator(seed, "z", step)`.

    One generator per image or per step makes every draw independent of batch size, of the number of
    processes and of where a run was interrupted.
    """
    digest = hashlib.sha256(repr(keys).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))


def draw_z(n: int, z_dim: int, prior: str, *keys: Any, device: str | torch.device = "cpu") -> torch.Tensor:
    """`n` latents (n, z_dim), row i from `generator(*keys, i)`; prior `normal` = N(0, 1), `uniform` = U[-1, 1]."""
    if prior not in ("normal", "uniform"):
        raise ValueError(f"Unknown latent prior {prior!r}: use 'normal' or 'uniform'.")
    return torch.stack([_draw(z_dim, prior, generator(*keys, i)) for i in range(n)]).to(device)


def draw_z_batch(n: int, z_dim: int, prior: str, *keys: Any, device: str | torch.device = "cpu") -> torch.Tensor:
    """As `draw_z` but one stream for the whole batch (training, where rows need no identity)."""
    return _draw((n, z_dim), prior, generator(*keys)).to(device)


def _draw(shape, prior, rng):
    if prior == "normal":
        return torch.randn(shape, generator=rng)
    return torch.rand(shape, generator=rng) * 2 - 1


@contextlib.contextmanager
def frozen(*nets: Any) -> Iterator[None]:
    """Evaluation mode and no parameter gradients inside; modes and flags are restored afterwards."""
    before = [(m, m.training) for net in nets for m in net.modules()]
    flags = [(p, p.requires_grad) for net in nets for p in net.parameters()]
    for net in nets:
        net.eval().requires_grad_(False)
    try:
        yield
    finally:
        for module, mode in before:
            module.training = mode
        for p, flag in flags:
            p.requires_grad_(flag)


@contextlib.contextmanager
def interrupt_between_steps() -> Iterator[Any]:
    """Inside, Ctrl-C only sets the yielded event, so that a loop can end its step and save; pressed again, it raises.

    Without this an interrupt could arrive between the updates of D and of G:
    a state that no resumed run should start from.
    """
    asked, pressed = threading.Event(), 0.0

    def handler(number, frame):
        nonlocal pressed
        if not asked.is_set():
            pressed = time.monotonic()
            asked.set()
        elif time.monotonic() - pressed > 1:  # one key press may reach a process twice
            raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():  # Ctrl-C arrives in the main thread only
        yield asked
        return
    before = signal.signal(signal.SIGINT, handler)
    try:
        yield asked
    finally:
        signal.signal(signal.SIGINT, before or signal.default_int_handler)


def last(loop: Iterator, progress: Any = None, total: int | None = None) -> Any:
    """Exhaust a loop that yields `(step, state)` and return the last state.

    `progress`: a text to show a tqdm bar under, or None for silence.
    """
    if progress:
        from tqdm.auto import tqdm

        loop = tqdm(loop, desc=progress, total=total, mininterval=1)
    state = None
    for _, state in loop:
        pass
    return state


def versions() -> dict[str, str]:
    """Name -> version of what results depend on."""
    return {"python": platform.python_version(), "torch": torch.__version__, "machine": platform.machine()}
