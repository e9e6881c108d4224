"""Widgets. Nothing outside this folder imports ipywidgets."""

from .explore import explore
from .page import LiveLab

__all__ = ["LiveLab", "explore"]
