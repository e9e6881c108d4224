"""Who judges the images: one discriminator in one mode, a weighted sum of several, or any function images -> logits."""

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from .fast import Around
from .field import play, take_norms
from .models import MODES, Discriminator, for_inference


class Term(NamedTuple):
    """`weight` times the logit of D in `mode`: "independent", "batch", or "field" with what `record_field` recorded."""

    D: Any
    mode: str = "independent"
    field: dict | None = None
    weight: float = 1.0


class Judge:
    """A weighted sum of discriminators' logits, to be used wherever `refine` takes a D:
    `Judge(Term(A), Term(B, weight=0.1))`."""

    def __init__(self, *terms: Any) -> None:
        self.terms = tuple(Term(*t) for t in terms)
        if not terms or not all(t.weight == t.weight and abs(t.weight) < float("inf") for t in self.terms):
            raise ValueError("A Judge needs at least one Term, each with a finite weight.")

    def played(self, field: dict) -> "Judge":
        """The same judge with the recorded `field` in the place of the company:
        its "batch" terms are in "field" mode."""
        return Judge(*(t._replace(mode="field", field=field) if t.mode == "batch" else t for t in self.terms))


def terms_of(D: Any, mode: str = "independent", field: dict | None = None) -> tuple[Term, ...]:
    """The terms of a Judge, or the one of a single D."""
    return D.terms if isinstance(D, Judge) else (Term(D, mode, field),)


class Score:
    """images (N, ...) -> logits (N,) by frozen copies of the terms' discriminators;
    `at(step)` plays the recorded fields.

    `around`: (known images, box); the images that are judged differ from the known ones inside the box only.
    """

    def __init__(self, terms: tuple[Term, ...], around: Any = None) -> None:
        self.terms, self.nets = terms, [prepared(*t[:3]) for t in terms]
        self.judges = [judging(net, t.mode, around) for net, t in zip(self.nets, terms)]

    def at(self, step: int) -> "Score":
        """This score as it judges at `step` of the refinement."""
        for net, term in zip(self.nets, self.terms):
            if term.mode == "field":
                play(net, term.field, step)
        return self

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return sum(term.weight * judge(x) for judge, term in zip(self.judges, self.terms))


def prepared(D: Any, mode: str, field: dict | None) -> Any:
    """A frozen copy of the network D for `mode`; a plain function is taken as it is."""
    if mode not in (*MODES, "field"):
        raise ValueError(f"Unknown discriminator mode {mode!r}: use one of {', '.join(MODES)}, field.")
    if not isinstance(D, nn.Module):
        return D
    net = for_inference(D, fold=mode in ("auto", "independent"))
    if mode == "field":
        take_norms(net, field)
    elif mode == "batch" and not takes_mode(net):
        for norm in net.modules():
            norm.train(isinstance(norm, _BatchNorm))
    return net


def judging(net: Any, mode: str, around: Any) -> Callable:
    """The function images -> logits (N,) of a prepared network."""
    if around and isinstance(net, Discriminator):
        known, box = around
        return Around(net, known, box, "auto" if mode == "field" else mode)
    if takes_mode(net):
        return lambda x: net(x, "auto" if mode == "field" else mode)
    return lambda x: flat(net(x), len(x))


def takes_mode(D: Callable) -> bool:
    """Whether D is called as D(x, mode), like the package's own."""
    return "mode" in inspect.signature(D.forward if isinstance(D, nn.Module) else D).parameters


def flat(logits: torch.Tensor, n: int) -> torch.Tensor:
    """(N,) from (N,), (N, 1), (N, 1, 1, 1); ValueError for more than one number per image."""
    if not torch.is_tensor(logits) or logits.numel() != n:
        raise ValueError(
            f"D must give one logit per image, but for {n} images its output has shape "
            f"{tuple(getattr(logits, 'shape', ())) or type(logits).__name__}: average over patches first."
        )
    return logits.reshape(n)
