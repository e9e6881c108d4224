"""Widgets. Nothing outside this folder imports ipywidgets."""

from .explore import explore

__all__ = ["explore"]
