"""What a screen shows, as plain data:
pictures as PNG data URLs with captions, curves as SVG in the page's own colours."""

import base64
import html
import io
import math
import re
import textwrap

import numpy as np
import torch.nn.functional as F
from matplotlib.colors import to_hex, to_rgb
from PIL import Image

from ..plots.style import HEAT, HOLE, _figure
from .recipe import to_bytes

CHANGE = 0.5  # change of a pixel (range 2) drawn in the darkest red
SMOOTH = 5  # pixels over which gradient maps are averaged: single pixels are noise
RED = np.array([HEAT(i)[:3] for i in range(256)]) * 255


def url(pixels):
    """uint8 array (C, H, W), C = 1 or 3, -> PNG data URL."""
    array = np.ascontiguousarray(pixels.transpose(1, 2, 0))
    out = io.BytesIO()
    Image.fromarray(array[..., 0] if array.shape[2] == 1 else array).save(out, "PNG", compress_level=1)
    return "data:image/png;base64," + base64.b64encode(out.getvalue()).decode()


def pixels_of(address):
    """Inverse of `url`: a PNG data URL -> uint8 array (C, H, W)."""
    array = np.asarray(Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2]))))
    return array[None] if array.ndim == 2 else array.transpose(2, 0, 1)


def heat(values, most):
    """Non-negative (H, W) values -> colours (3, H, W) uint8, from white (0) to dark red (`most` and more)."""
    index = np.clip(np.asarray(values) / most * 255, 0, 255).round().astype(int)
    return RED[index].round().astype(np.uint8).transpose(2, 0, 1)


def masked(pixels, mask):
    """Composite bytes (C, H, W) with the hole in the flat colour HOLE: (3, H, W) uint8."""
    colour = (np.array(to_rgb(HOLE)) * 255).round().astype(np.uint8)[:, None, None]
    return np.where(mask == 0, colour, np.broadcast_to(pixels, (3, *pixels.shape[1:])))


def picture(title, pixels, note="", scale=None):
    """One picture of a screen. `scale`: (lowest, highest, text) of a colour bar below it."""
    return {"title": title, "src": url(pixels), "note": note, "scale": scale}


def change_scale(text="change of a pixel (black to white: 2)"):
    return {"low": "0", "high": f"≥ {CHANGE:g}", "text": text}


def changed(title, after, before, note=""):
    """Heat map of the largest change of any channel between two uint8 images (C, H, W)."""
    change = np.abs(after.astype(int) - before.astype(int)).max(0) / 127.5
    return picture(title, heat(change, CHANGE), note, change_scale())


def screen(pictures, charts=""):
    """A view: what the widget `Screen` and `figure` draw. `heat`: CSS gradient of the heat map."""
    return {"pictures": pictures, "charts": charts, "heat": ", ".join(to_hex(HEAT(i)) for i in range(0, 256, 51))}


def shaped(epochs):
    """Name of a stored discriminator."""
    return f"D shaped {epochs:g}" if epochs else "D unshaped"


def run_view(run, index):
    """Screen of frame `index` of a run: input, completion, change, original; curves with a marker at that frame."""
    frame, y, mask = run.frames[index], to_bytes(run.y[0]), run.mask[0].cpu().numpy()
    refining = frame.phase == "refine"
    before = run.frames[run.searched if refining else 0].image
    step = f"iter. {frame.step}"
    if refining:  # an earlier step may be the one that is kept, and shown
        step = f"step {frame.step}" if frame.kept == frame.step else f"{frame.kept} kept"
    judge = shaped(run.recipe.epochs if refining else 0)
    logit = frame.score if refining else frame.logit  # of the picture shown; the curve has that of the present step
    d = "" if math.isnan(logit) else f"{judge}: {probability(logit)} real"
    pictures = [
        picture("input", masked(y, mask), "the hole is blue"),
        picture("refined" if refining else "filled by the search", frame.image, f"{step}, {psnr(frame.image, y)}"),
        changed("change", frame.image, before, d),
        picture("original", y, ""),
    ]
    search, steps = run.frames[: run.searched], run.frames[run.searched :]
    here = (index, None) if not refining else (None, index - run.searched)
    charts = (
        chart("context loss", "iteration", [f.context for f in search], here[0], run.recipe.iterations)
        + chart("prior loss", "iteration", [f.prior for f in search], here[0], run.recipe.iterations)
        + chart("logit of D", "refinement step", [f.logit for f in steps], here[1], run.recipe.steps)
    )
    return screen(pictures, charts)


def probability(logit):
    """sigmoid(logit) as text."""
    p = 1 / (1 + math.exp(-max(-700, min(700, logit))))
    return "< 0.1 %" if p < 0.001 else "> 99.9 %" if p > 0.999 else f"{100 * p:.1f} %"


def psnr(a, b):
    """PSNR of two uint8 images (the stored frames) as text."""
    error = np.mean((a.astype(float) - b) ** 2)
    return f"PSNR {math.inf if error == 0 else 10 * math.log10(255**2 / error):.1f} dB"


def number(v):
    """Three significant digits, without exponents where they are short."""
    return re.sub(r"e([-+])0*", r"e\1", f"{v:.3g}")


def chart(title, xlabel, values, marker=None, most=1, width=161, height=84):
    """One curve as SVG text: values over 0 ... most, a marker (dot, line, value) at index `marker`; NaN leaves gaps."""
    left, right, top, bottom = 2, width - 2, 20, height - 18
    finite = [v for v in values if math.isfinite(v)]
    low, high = (min(finite), max(finite)) if finite else (0.0, 1.0)

    def at(i, v):
        return left + (right - left) * i / max(1, most), bottom - (bottom - top) * (v - low) / ((high - low) or 1.0)

    points = " ".join("{:.1f},{:.1f}".format(*at(i, v)) for i, v in enumerate(values) if math.isfinite(v))
    parts = [
        f'<text x="{left}" y="14" class="name">{html.escape(title)}</text>',
        f'<rect x="{left}" y="{top}" width="{right - left}" height="{bottom - top}" class="frame"/>',
        f'<polyline points="{points}" class="curve"/>',
        f'<text x="{left}" y="{height - 4}" class="small">0</text>',
        f'<text x="{width / 2:.0f}" y="{height - 4}" class="small middle">{html.escape(xlabel)}</text>',
        f'<text x="{right}" y="{height - 4}" class="small end">{most}</text>',
    ]
    if finite:  # a falling curve leaves the upper right corner free, a rising one the upper left
        x, side = (right - 4, " end") if finite[-1] < finite[0] else (left + 4, "")
        parts += [
            f'<text x="{x}" class="small{side}" y="{top + y}">{name} {number(v)}</text>'
            for y, name, v in ((14, "max", high), (30, "min", low))
        ]
    now = number(values[marker]) if marker is not None and marker < len(values) else ""
    if now and math.isfinite(values[marker]):
        x, y = at(marker, values[marker])
        parts += [
            f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{top}" y2="{bottom}" class="marker"/>',
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" class="dot"/>',
            f'<text x="{right}" y="14" class="name end">{now}</text>',
        ]
    label = html.escape(f"{title} over {xlabel}" + f", now {now}" * bool(now))
    size = f'viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
    return f'<svg {size} role="img" aria-label="{label}">{"".join(parts)}</svg>'


def compare_view(run, images):
    """Screen of `Engine.compare`: the same hole filled by the search alone and with every stored discriminator."""
    y, mask = to_bytes(run.y[0]), run.mask[0].cpu().numpy()
    base = to_bytes(images["semantic"][0])
    shown = [
        picture("input", masked(y, mask), "the hole is blue"),
        picture("original", y),
        picture("search alone", base, psnr(base, y)),
    ]
    for epochs, image in images.items():
        if epochs != "semantic":
            pixels = to_bytes(image[0])
            title = shaped(epochs) + f" epoch{'s' * (epochs > 1)}" * bool(epochs)
            shown.append(picture(title, pixels, psnr(pixels, y)))
    shown.append(changed(f"change at {run.recipe.epochs:g} epochs", to_bytes(images[run.recipe.epochs][0]), base))
    return screen(shown)


def diversity_view(run, images, spread):
    """Screen of `Engine.diversity`: completions of one hole from different z, and how much they differ per pixel."""
    y, mask = to_bytes(run.y[0]), run.mask[0].cpu().numpy()
    shown = [picture("input", masked(y, mask), "the hole is blue")]
    for i, image in enumerate(images):
        pixels = to_bytes(image)
        shown.append(picture(f"from z {i + 1}", pixels, psnr(pixels, y)))
    shown.append(picture("spread", heat(spread.cpu().numpy(), CHANGE), "", change_scale("standard deviation")))
    return screen(shown)


def gradient_view(run, maps):
    """Screen of `Engine.gradients`: where every stored D asks for change, before (search alone) and after refinement.

    Averaged over SMOOTH x SMOOTH pixels; every map is drawn relative to its own largest value, because between
    discriminators the lengths are not comparable.
    """
    hole, shown = run.mask[0, 0].cpu().numpy() == 0, []
    for name, title, note in (
        ("semantic", "search alone", "what D looks at"),
        ("refined", "refined", f"hole: {100 * hole.mean():.0f} % of area"),
    ):
        shown.append(picture(title, to_bytes(getattr(run, name)[0]), note))
        for epochs, both in maps.items():
            values = F.avg_pool2d(both[name][None], SMOOTH, 1, SMOOTH // 2, count_include_pad=False)[0].numpy()
            share = values[hole].sum() / max(values.sum(), 1e-12)
            shown.append(
                picture(
                    shaped(epochs),
                    heat(values, max(values.max(), 1e-12)),
                    f"{100 * share:.0f} % in the hole",
                    {"low": "0", "high": "largest", "text": ""},
                )
            )
    return screen(shown)


def figure(view, columns=4, title=None):
    """A screen as a matplotlib Figure, for a batch run: the same pixels, titles, notes and colour bars."""
    shown = view["pictures"]
    rows = -(-len(shown) // columns)
    width = min(1.75, 11 / columns)  # inches of a picture
    notes = [textwrap.fill(p["note"], int(12 * width)) for p in shown]
    height = width + 0.9 + 0.18 * max(note.count("\n") + 1 for note in notes)
    result = _figure(width * columns, height * rows + 0.4 * bool(title), title)
    axes = result.subplots(rows, columns, squeeze=False).ravel()
    for ax in axes:
        ax.set_axis_off()
    for ax, p, note in zip(axes, shown, notes):
        ax.imshow(pixels_of(p["src"]).transpose(1, 2, 0), cmap="gray", vmin=0, vmax=255, interpolation="nearest")
        ax.set_title(p["title"], fontsize=9)
        ax.text(0.5, -0.04, note, transform=ax.transAxes, ha="center", va="top", fontsize=9)
        if p["scale"]:
            low = -0.27 * (1.2 + note.count("\n")) / width  # below the note
            bar = ax.inset_axes([0.2, low, 0.6, 0.05])
            bar.imshow(np.linspace(0, 1, 256)[None], cmap=HEAT, aspect="auto")
            bar.set(xticks=[], yticks=[])
            for x, side, text in ((0.17, "right", p["scale"]["low"]), (0.83, "left", p["scale"]["high"])):
                ax.text(x, low + 0.025, text, transform=ax.transAxes, ha=side, va="center", fontsize=9)
    return result
