"""The recorded field: what BatchNorm does to the images of a batch,
written down once and played back to a single image.

In "batch" mode D normalises over the images that are refined together: each is judged, and pushed, relative to its
company. All that an image feels of the company are four numbers per channel: mean and variance on the way forward and,
on the way back, the two means that BatchNorm's gradient subtracts. `refine.record_field` writes them down for every
step while training images are refined together; with them ("field" mode) an image alone moves as it would in that
company: the mean-field limit of the coupled batch.
"""

from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

STATISTICS = ("mean", "var", "push", "pull")


class GivenBatchNorm(torch.autograd.Function):
    """BatchNorm (Ioffe and Szegedy 2015) of x (N, C, ...) in a batch of which only four vectors (C,) are known.

    Forward x_hat = (x - mean) / sqrt(var + eps), y = weight x_hat + bias; backward, with g = dL/dy,
    dL/dx = weight / sqrt(var + eps) (g - push - pull x_hat). In the batch itself push = E[g] and pull = E[g x_hat].
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        mean: torch.Tensor,
        var: torch.Tensor,
        push: torch.Tensor,
        pull: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor,
        eps: float,
    ) -> torch.Tensor:
        wide = (1, -1) + (1,) * (x.ndim - 2)
        mean, var, push, pull, weight, bias = (v.view(wide) for v in (mean, var, push, pull, weight, bias))
        slope = torch.rsqrt(var + eps)
        x_hat = (x - mean) * slope
        ctx.save_for_backward(x_hat, weight * slope, push, pull)
        return torch.addcmul(bias, x_hat, weight).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, g: torch.Tensor) -> tuple:
        x_hat, slope, push, pull = ctx.saved_tensors
        return (slope * (g - push - pull * x_hat)).to(g.dtype), *[None] * 7


class FieldNorm(nn.Module):
    """Stands for a BatchNorm layer; normalises by the statistics that `play` put in, one row (4, C) per step."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.channels, self.eps = norm.num_features, norm.eps
        self.given: Any = None
        self.weight = torch.ones_like(norm.running_mean) if norm.weight is None else norm.weight.detach()
        self.bias = torch.zeros_like(norm.running_mean) if norm.bias is None else norm.bias.detach()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return GivenBatchNorm.apply(x, *self.given, self.weight, self.bias, self.eps)


def norms_of(net: nn.Module, kind: type) -> list:
    """The normalisations of `net` in the order of its modules."""
    return [m for m in net.modules() if isinstance(m, kind)]


def take_norms(net: nn.Module, field: Any) -> None:
    """Replace the BatchNorm layers of `net` (a copy of D) by `FieldNorm`s;
    ValueError if the table is not of this network."""
    if not isinstance(field, dict) or not set(STATISTICS) <= set(field):
        raise ValueError(
            "Mode 'field' plays back recorded statistics: pass field=record_field(G, D, h, ...), "
            "or use mode='independent'."
        )
    for parent in list(net.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, _BatchNorm):
                setattr(parent, name, FieldNorm(child))
    channels, recorded = sum(n.channels for n in norms_of(net, FieldNorm)), field["mean"].shape[1]
    if channels != recorded:
        raise ValueError(
            f"The field was recorded for another discriminator: it has {recorded} channels where this one "
            f"normalises {channels}."
        )


def play(net: nn.Module, field: Any, step: int) -> None:
    """Put the statistics of `step` into the `FieldNorm`s of `net`."""
    if step >= len(field["mean"]):
        raise ValueError(
            f"The field was recorded for {len(field['mean']) - 1} steps: record it again for more, "
            "or refine for no more."
        )
    norms = norms_of(net, FieldNorm)
    rows = [field[k][step].to(norms[0].weight).split([n.channels for n in norms]) for k in STATISTICS] if norms else []
    for i, norm in enumerate(norms):
        norm.given = [row[i] for row in rows]


class Recorder:
    """Writes down the four statistics of every BatchNorm layer of `net` at each forward and backward pass."""

    def __init__(self, net: nn.Module) -> None:
        self.now: list[dict] = [{} for _ in norms_of(net, _BatchNorm)]
        self.rows: dict[str, list] = {k: [] for k in STATISTICS}
        for seen, norm in zip(self.now, norms_of(net, _BatchNorm)):
            norm.register_forward_hook(
                lambda norm, inputs, y, seen=seen: self.forward(seen, norm, inputs[0].detach(), y)
            )

    def forward(self, seen: dict, norm: nn.Module, x: torch.Tensor, y: torch.Tensor) -> None:
        x, dims = x.to(norm.running_mean.dtype), [0, *range(2, x.ndim)]
        seen["var"], seen["mean"] = torch.var_mean(x, dims, correction=0)
        seen["push"] = seen["pull"] = torch.zeros_like(seen["mean"])
        wide = (1, -1) + (1,) * (x.ndim - 2)
        x_hat = (x - seen["mean"].view(wide)) * torch.rsqrt(seen["var"] + norm.eps).view(wide)

        def backward(g):
            seen["push"], seen["pull"] = g.mean(dims, dtype=x.dtype), (g * x_hat).mean(dims)

        if y.requires_grad:
            y.register_hook(backward)

    def keep(self) -> None:
        """End of a step: one more row of the table."""
        for k in STATISTICS:
            self.rows[k].append(torch.cat([seen[k] for seen in self.now]))

    def table(self) -> dict[str, torch.Tensor]:
        """{"mean", "var", "push", "pull"}: (steps + 1, channels of all layers) each."""
        return {k: torch.stack(rows) for k, rows in self.rows.items()}
