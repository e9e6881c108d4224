"""Any generator, cut in two: z -> features -> image, as the refinement needs it."""

from collections.abc import Callable

from torch import is_tensor, nn

from .models import for_inference


def split(G: nn.Module, at: int | str) -> tuple[Callable, Callable]:
    """(to_features, to_image) of a frozen copy of G, cut behind the submodule named `at` ("blocks.2"),
    or number `at` of a Sequential.

    `to_features(*inputs)` runs G and returns the output h (N, ...) of that submodule; `to_image(h)` is G's output for
    the same inputs with h in its place, so that skip connections, conditions and styles stay as they were: call
    `to_features` first. A whole pass of G each (a Sequential cut by number runs its two halves only). ValueError for a
    name that does not exist, that is used not exactly once per call, or whose output is no tensor.
    """
    net = for_inference(G)
    if isinstance(at, int):
        if not isinstance(net, nn.Sequential) or not 0 <= at < len(net):
            raise ValueError(
                "Only a Sequential is cut by number, "
                f"here from 0 to {len(net) - 1 if isinstance(net, nn.Sequential) else 'none'}, "
                f"but got {at} for a {type(net).__name__}: give the name of a submodule."
            )
        return nn.Sequential(*list(net)[: at + 1]), nn.Sequential(*list(net)[at + 1 :])
    modules = dict(net.named_modules())
    if not at or at not in modules:
        raise ValueError(
            f"There is no submodule {at!r} in this {type(net).__name__}: "
            f"use one of {', '.join(n for n in modules if n)}."
        )
    inputs: list = []

    def run(arguments, replace):
        """(output of G, outputs of the submodule); `replace(h)`: what takes the output's place."""
        seen = []
        handle = modules[at].register_forward_hook(lambda module, given, h: (seen.append(h), replace(h))[1])
        try:
            return net(*arguments), seen
        finally:
            handle.remove()

    def to_features(*arguments):
        _, seen = run(arguments, lambda h: h)
        if len(seen) != 1:
            raise ValueError(
                f"Submodule {at!r} runs {len(seen)} times in one call of the generator: cut where it runs once."
            )
        if not is_tensor(seen[0]):
            raise ValueError(
                f"The output of submodule {at!r} is a {type(seen[0]).__name__}, no tensor: cut inside or behind it."
            )
        inputs[:] = arguments
        return seen[0].detach()

    def to_image(h):
        if not inputs or len(h) != len(inputs[0]):
            raise ValueError(
                f"to_image continues the last call of to_features, of {len(inputs[0]) if inputs else 'no'} images, "
                f"but got features of {len(h)}: call to_features for them first."
            )
        return run(inputs, lambda _: h)[0]

    return to_features, to_image
