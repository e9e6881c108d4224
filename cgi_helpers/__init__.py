"""Collaborative GAN inpainting: helpers behind the notebooks. Each module is one room; see README."""

__version__ = "0.1.0"
