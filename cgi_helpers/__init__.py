"""Collaborative GAN inpainting: helpers behind the notebooks. Each module is one room; see README.

What a researcher imports stands here as a table of contents: `from cgi_helpers import inpaint`. A name is looked up
when it is asked for, so that `import cgi_helpers` itself takes no time.
"""

from importlib import import_module

__version__ = "0.1.0"

CONTENTS = {
    "pretrained": "api",
    "inpaint": "api",
    "find_latent": "method.search",
    "refine": "method.refine",
    "refine_features": "method.refine",
    "record_field": "method.refine",
    "Overlay": "method.fast",
    "split": "method.split",
    "Judge": "method.judge",
    "Term": "method.judge",
    "shape_discriminator": "method.shape",
}


def __getattr__(name):
    """A name of the table from its module."""
    if name not in CONTENTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{CONTENTS[name]}"), name)


def __dir__():
    return sorted({*globals(), *CONTENTS})
