"""Figures: what they show, measured on the artists; nothing cropped, too small or registered with pyplot."""

import functools
import io

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch
from matplotlib.text import Text

from cgi_helpers import plots
from cgi_helpers.plots import style

RNG = np.random.default_rng(0)
GEN = torch.Generator().manual_seed(0)
NAN = float("nan")


def images(n, channels=1, h=16, w=16):
    return torch.rand(n, channels, h, w, generator=GEN) * 2 - 1


MASK = torch.ones(1, 1, 16, 16)
MASK[..., 4:12, 4:12] = 0
SCATTERED = (torch.rand(1, 1, 16, 16, generator=GEN) > 0.8).float()
WEIGHT = MASK * torch.rand(1, 1, 16, 16, generator=GEN)
MASKED, BEFORE, AFTER, ORIGINAL = (images(4) for _ in range(4))
HISTORY = {k: torch.rand(300, generator=GEN) for k in ("d_loss", "g_loss", "real", "fake")}
SCORES = torch.rand(6, 5, generator=GEN)
POINTS, STARTS = RNG.normal(size=(20, 2)), RNG.normal(size=(20, 2))
PANELS = [
    {"points": POINTS, "title": "real"},
    {"points": STARTS, "title": "generated", "score": RNG.uniform(0.2, 0.5, (8, 9))},
    {"points": POINTS, "title": "refined", "score": RNG.uniform(0.4, 0.9, (8, 9)), "moves": STARTS},
]
CHANGE = pd.DataFrame(
    [
        (m, r, v)
        for m, r, v in zip(
            ["sampling"] * 20 + ["inpainting"] * 20, (["inside"] * 10 + ["outside"] * 10) * 2, RNG.uniform(0, 0.2, 40)
        )
    ],
    columns=["method", "region", "change"],
)
LOGITS = {"real": RNG.normal(2, 1, 200), "refined": torch.randn(100, generator=GEN)}
STAGES = pd.DataFrame(
    [
        (row, stage, metric, v, v - 0.1, v + 0.1)
        for metric in ("psnr", "frechet_distance", "own_metric")
        for row, stage, v in (
            ("collaborative", 2.0, 3.0),
            ("collaborative", 0.0, 1.0),
            ("collaborative", 0.5, 2.0),
            ("semantic", NAN, 1.5),
        )
    ],
    columns=["row", "stage", "metric", "mean", "lo", "hi"],
)
GAINS = pd.DataFrame(
    [
        ("psnr", "report's search", 0.5, 0.3, 0.7),
        ("psnr", "best search", -0.05, -0.2, 0.1),
        ("ssim", "report's search", 0.02, 0.01, 0.03),
        ("ssim", "best search", -0.02, -0.03, -0.01),
    ],
    columns=["metric", "start", "mean", "lo", "hi"],
)
CLASSES = pd.DataFrame(
    {
        "row": ["best"] * 20,
        "class_name": ["Bag"] * 10 + ["Coat"] * 10,
        "gain": [-1.0] * 4 + [0.5] * 6 + [-1.0] * 1 + [2.0] * 9,
    }
)
LOSSES = CLASSES.assign(row="report's", gain=-CLASSES["gain"])
CAPTIONS = [tuple(f"case {i}\nimage {k}" for k in range(3)) for i in range(4)]
LONG = 2 * (
    "A caption that is long enough to need a second line, whatever the width of the figure may be: "
    "nobody reads it to its very end. "
)

FIGURES = {
    "scheme_inpainting": plots.scheme_inpainting,
    "scheme_collaborative": plots.scheme_collaborative,
    "image_grid": lambda: plots.image_grid(
        images(10), columns=4, title="Ten images", labels=[f"no. {i}" for i in range(10)]
    ),
    "image_grid colour": lambda: plots.image_grid(images(3, 3, 8, 12), title=LONG),
    "rows": lambda: plots.rows(MASKED, BEFORE, AFTER, ORIGINAL, mask=MASK),
    "rows epochs": lambda: plots.rows(
        MASKED,
        BEFORE,
        AFTER,
        ORIGINAL,
        columns=["0", "0.1", "0", "0.1"],
        groups=[2, 2],
        vmax=0.7,
        mask=MASK.expand(4, 1, 16, 16),
        column_title="shaping epochs",
        title=LONG,
    ),
    "rows one": lambda: plots.rows(*(images(1, 3) for _ in range(4)), mask=SCATTERED),
    "rows many": lambda: plots.rows(*(images(12) for _ in range(4)), columns=list("abcdefghijkl")),
    "masks": lambda: plots.masks({"center": MASK, "scattered": SCATTERED}),
    "weight": lambda: plots.weight(MASK, WEIGHT),
    "search_progress": lambda: plots.search_progress(
        images(5)[:, None], [1, 5, 10, 50, 100], torch.linspace(9, 1, 100), -torch.ones(100)
    ),
    "losses": lambda: plots.losses(HISTORY, [10, 200]),
    "score_path": lambda: plots.score_path(SCORES, threshold=torch.tensor(0.6)),
    "plane": lambda: plots.plane(PANELS, (-3, 3, -3, 3), centers=POINTS[:8]),
    "plane bare": lambda: plots.plane(PANELS[:1], (-3, 3, -3, 3)),
    "change_by_region": lambda: plots.change_by_region(CHANGE),
    "logit_histogram": lambda: plots.logit_histogram(LOGITS),
    "metric_by_stage": lambda: plots.metric_by_stage(STAGES),
    "metric_by_stage one": lambda: plots.metric_by_stage(STAGES, ["psnr"]),
    "paired_gains": lambda: plots.paired_gains(GAINS),
    "paired_gains adjusted": lambda: plots.paired_gains(GAINS.assign(p=[0.001, 1.0, 0.2, 0.01])),
    "gain_distribution": lambda: plots.gain_distribution(CLASSES, "psnr"),
    "gain_distribution two": lambda: plots.gain_distribution(pd.concat([CLASSES, LOSSES]), "psnr"),
    "disagreements": lambda: plots.disagreements(ORIGINAL, BEFORE, AFTER, CAPTIONS),
}


@functools.cache
def drawn(name):
    """The figure, rendered once as PNG, with its renderer."""
    fig = FIGURES[name]()
    canvas = FigureCanvasAgg(fig)
    canvas.print_png(buffer := io.BytesIO())
    assert buffer.getvalue().startswith(b"\x89PNG")
    return fig, canvas.get_renderer()


def shown(ax):
    return np.ma.filled(ax.get_images()[0].get_array().astype(float), np.nan)


def colour_bars(fig):
    return [ax for ax in fig.axes if ax.get_label() == "<colorbar>"]


@pytest.mark.parametrize("name", FIGURES)
def test_figure_is_complete_and_readable(name):
    fig, renderer = drawn(name)
    assert type(fig) is Figure and not plt.get_fignums()
    width, height = fig.get_size_inches()
    assert width <= 11
    box = fig.get_tightbbox(renderer)
    assert box.x0 >= -0.01 and box.y0 >= -0.01 and box.x1 <= width + 0.01 and box.y1 <= height + 0.01, (
        f"drawn outside: {box.extents}"
    )
    texts = [t for t in fig.findobj(Text) if t.get_text().strip() and t.get_visible()]
    assert min(t.get_fontsize() for t in texts) >= 9
    assert fig.get_suptitle()


@pytest.mark.parametrize("name", FIGURES)
def test_no_panel_title_or_label_collides(name):
    fig, renderer = drawn(name)
    labels = [t for ax in fig.axes for t in (ax.title, ax.xaxis.label, ax.yaxis.label, *ax.texts)] + [fig._suptitle]
    for axis in (axis for ax in fig.axes if ax.axison for axis in (ax.xaxis, ax.yaxis)):
        low, high = sorted(axis.get_view_interval())
        labels += [t for place, t in zip(axis.get_majorticklocs(), axis.get_ticklabels()) if low <= place <= high]
    boxes = [
        (t.get_text(), t.get_window_extent(renderer).padded(-1))
        for t in labels
        if t.get_text().strip() and t.get_visible()
    ]
    for i, (a, box) in enumerate(boxes):
        for b, other in boxes[i + 1 :]:
            assert not box.overlaps(other), f"{a!r} overlaps {b!r}"


@pytest.mark.parametrize("name", ["scheme_inpainting", "scheme_collaborative"])
def test_texts_of_the_schemes_fit_their_boxes(name):
    fig, renderer = drawn(name)
    boxes = [p.get_window_extent(renderer) for p in fig.axes[0].patches if isinstance(p, FancyBboxPatch)]
    for text in fig.axes[0].texts:
        if text.get_text():
            t = text.get_window_extent(renderer)
            holders = [b for b in boxes if b.contains(*t.get_points().mean(0))]
            assert holders and all(b.x0 < t.x0 and t.x1 < b.x1 and b.y0 < t.y0 and t.y1 < b.y1 for b in holders), (
                text.get_text()
            )


def test_rows_heat_map_is_exactly_the_change_on_one_scale():
    fig, _ = drawn("rows")
    change = (AFTER - BEFORE).abs().numpy()
    heat, norm = shown(fig.axes[2]), fig.axes[2].get_images()[0].norm
    _, corners = style._tile(AFTER)
    for (x, y), expected in zip(corners, change):
        np.testing.assert_allclose(heat[y : y + 16, x : x + 16], expected[0], atol=1e-6)
    assert np.isnan(heat).sum() == 3 * 16  # only the gaps are empty
    assert norm.vmin == 0 and norm.vmax == pytest.approx(np.quantile(change, 0.995), rel=1e-5)
    assert len(fig.axes) == 6 and len(colour_bars(fig)) == 1
    assert colour_bars(fig)[0].get_xlabel() == "|change| (grey range 2)"


def test_rows_show_their_images_on_the_grey_scale_with_labels():
    fig, _ = drawn("rows epochs")
    _, corners = style._tile(AFTER, groups=[2, 2])
    for k, expected in ((0, MASKED), (1, BEFORE), (3, AFTER), (4, ORIGINAL)):
        assert fig.axes[k].get_images()[0].get_clim() == (-1, 1)
        for (x, y), image in zip(corners, expected):
            np.testing.assert_allclose(shown(fig.axes[k])[y : y + 16, x : x + 16], image[0], atol=1e-6)
    assert [ax.get_ylabel() for ax in fig.axes[:5]] == list(plots.ROWS)
    assert [t.get_text() for t in fig.axes[0].get_xticklabels()] == ["0", "0.1", "0", "0.1"]
    np.testing.assert_allclose(fig.axes[0].get_xticks(), [x + 7.5 for x, _ in corners])
    assert fig.axes[0].get_xlabel() == "shaping epochs"
    assert fig.axes[2].get_images()[0].get_clim() == (0, 0.7)
    gaps = np.diff([x for x, _ in corners]) - 16
    assert gaps[1] > gaps[0] == gaps[2]


def test_rows_hole_is_painted_flat_in_the_input_only_and_outlined_in_the_heat_map():
    fig, _ = drawn("rows")
    paint = fig.axes[0].get_images()[1].get_array()
    hole = style._tile(MASK.expand(4, 1, 16, 16), fill=1)[0][..., 0] == 0
    assert ((paint[..., 3] == 1) == hole).all() and hole.sum() == 4 * 64
    np.testing.assert_allclose(paint[hole][:, :3] - to_rgb(plots.HOLE), 0, atol=1e-6)
    assert [len(ax.get_images()) for ax in fig.axes[1:5]] == [1, 1, 1, 1]
    outline = fig.axes[2].collections[0].get_paths()[0].vertices
    assert outline[:, 1].min() == 3.5 and outline[:, 1].max() == 11.5
    assert not drawn("rows one")[0].axes[2].collections  # scattered pixels are not outlined


def test_rows_of_equal_images_show_no_change():
    fig = plots.rows(MASKED, AFTER, AFTER, ORIGINAL)
    assert np.nanmax(shown(fig.axes[2])) == 0 and fig.axes[2].get_images()[0].norm.vmax > 0


def test_rows_average_the_change_over_colours():
    a, b = images(2, 3), images(2, 3)
    np.testing.assert_allclose(shown(plots.rows(a, a, b, b).axes[2])[:, :16], (b - a).abs().mean(1)[0], atol=1e-6)


def test_impossible_groups_and_channels_are_one_sentence():
    with pytest.raises(ValueError, match="add up to the 4 columns"):
        plots.rows(MASKED, BEFORE, AFTER, ORIGINAL, groups=[2, 3])
    with pytest.raises(ValueError, match="1 or 3 channels"):
        plots.image_grid(images(2, 2))


def test_image_grid_places_images_and_labels():
    x = images(5)
    fig = plots.image_grid(x, columns=2, labels=list("abcde"))
    (ax,), (canvas, corners) = fig.axes, style._tile(x, 2)
    below = corners[2][1] - 16 - 1
    assert [t.get_text() for t in ax.texts] == list("abcde") and below == 0
    for text, (left, top), image in zip(ax.texts, [(0, 0), (17, 0)], x):
        np.testing.assert_allclose(shown(ax)[top : top + 16, left : left + 16], image[0], atol=1e-6)
        assert left < text.get_position()[0] < left + 16 and text.get_position()[1] > 16
    assert ax.get_images()[0].get_clim() == (-1, 1)


def test_colour_images_keep_their_colours():
    x = images(2, 3, 8, 12)
    shown_ = plots.image_grid(x).axes[0].get_images()[0].get_array()
    np.testing.assert_allclose(shown_[:8, :12, :3], (x[0].permute(1, 2, 0) + 1) / 2, atol=1e-6)
    assert (shown_[:8, 12, 3] == 0).all()  # the gap is transparent


def test_heat_map_lightness_falls_evenly():
    r = plots.HEAT(np.linspace(0, 1, 64))[:, :3]
    linear = np.where(r <= 0.04045, r / 12.92, ((r + 0.055) / 1.055) ** 2.4)
    lightness = 116 * np.cbrt(linear @ [0.2126, 0.7152, 0.0722]) - 16
    assert (np.diff(lightness) < 0).all() and lightness[0] - lightness[-1] > 50
    assert np.abs(lightness - np.linspace(lightness[0], lightness[-1], 64)).max() < 6


def test_masks_say_how_much_is_missing():
    titles = [ax.get_title() for ax in drawn("masks")[0].axes]
    assert titles == ["center\n25% missing", f"scattered\n{1 - SCATTERED.mean():.0%} missing"]


def test_weight_profile_is_the_middle_row():
    _, centre, right, _ = drawn("weight")[0].axes
    np.testing.assert_allclose(right.lines[0].get_ydata(), WEIGHT[0, 0, 8])
    np.testing.assert_allclose(shown(centre), WEIGHT[0, 0])
    band = right.collections[0].get_paths()[0].vertices[:, 0]
    assert (band.min(), band.max()) == (3.5, 11.5)


def test_search_progress_marks_the_frames_and_takes_logs_of_positive_losses_only():
    strip, context, prior = drawn("search_progress")[0].axes
    assert [t.get_text() for t in strip.get_xticklabels()] == ["1", "5", "10", "50", "100"]
    assert (context.get_yscale(), prior.get_yscale()) == ("log", "linear")
    assert [line.get_xdata()[0] for line in context.lines[1:]] == [1, 5, 10, 50, 100]
    np.testing.assert_allclose(context.lines[0].get_xydata()[[0, -1]], [(1, 9), (100, 1)])


def test_losses_show_raw_values_and_their_mean():
    left, right = drawn("losses")[0].axes
    for ax, first, key in ((left, 0, "d_loss"), (left, 2, "g_loss"), (right, 0, "real"), (right, 2, "fake")):
        raw, mean = ax.lines[first : first + 2]
        np.testing.assert_allclose(raw.get_ydata(), HISTORY[key], atol=1e-6)
        assert mean.get_ydata()[150] == pytest.approx(HISTORY[key][149:152].mean().item(), rel=1e-5)
        assert raw.get_xdata()[0] == 1 and raw.get_xdata()[-1] == 300
    assert sum(line.get_label() == "sample grids" for line in left.lines) == 1
    assert len(plots.losses(HISTORY).axes[0].lines) == 4


def test_score_path_has_every_image_the_mean_and_the_threshold():
    lines = drawn("score_path")[0].axes[0].lines
    np.testing.assert_allclose(np.stack([line.get_ydata() for line in lines[:5]], 1), SCORES, atol=1e-6)
    np.testing.assert_allclose(lines[5].get_ydata(), SCORES.mean(1), atol=1e-6)
    assert lines[6].get_ydata()[0] == pytest.approx(0.6) and len(lines) == 7


def test_plane_shares_one_scale_and_its_arrows_end_at_the_points():
    fig, _ = drawn("plane")
    low, high = PANELS[1]["score"].min(), PANELS[2]["score"].max()
    assert [ax.get_images()[0].get_clim() for ax in fig.axes[1:3]] == [(low, high)] * 2
    assert len(colour_bars(fig)) == 1 and not colour_bars(drawn("plane bare")[0])
    assert [ax.get_title() for ax in fig.axes[:3]] == ["real", "generated", "refined"]
    arrows = fig.axes[2].collections[0]
    np.testing.assert_allclose(arrows.XY + np.stack([arrows.U, arrows.V], 1), POINTS)
    np.testing.assert_allclose(fig.axes[2].collections[1].get_offsets(), POINTS)


def test_change_by_region_bars_are_means():
    (ax,) = drawn("change_by_region")[0].axes
    means = CHANGE.groupby(["region", "method"], sort=False)["change"].mean()
    heights = [bar.get_height() for bars in ax.containers for bar in bars]
    np.testing.assert_allclose(
        heights, [means[r, m] for r in ("inside", "outside") for m in ("sampling", "inpainting")]
    )


def test_logit_histogram_shares_bins():
    (ax,) = drawn("logit_histogram")[0].axes
    edges = [np.unique(p.get_xy()[:, 0]) for p in ax.patches]
    assert len(edges) == 4 and all(np.array_equal(e, edges[0]) for e in edges)
    assert [line.get_xdata()[0] for line in ax.lines] == pytest.approx(
        [np.median(LOGITS["real"]), np.median(LOGITS["refined"].numpy())]
    )


def test_metric_by_stage_sorts_stages_and_draws_references_level():
    fig, _ = drawn("metric_by_stage")
    assert [ax.get_title() for ax in fig.axes] == ["PSNR (dB) ↑", "Fréchet distance ↓", "own metric"]
    line, level = fig.axes[0].lines
    assert line.get_xydata().tolist() == [[0, 1], [0.5, 2], [2, 3]]
    assert level.get_ydata() == [1.5, 1.5] and level.get_linestyle() == "--"
    assert [t.get_text() for t in fig.legends[0].get_texts()] == ["collaborative", "semantic"]
    assert len(drawn("metric_by_stage one")[0].axes) == 1


def test_paired_gains_fill_only_intervals_that_exclude_zero():
    fig, _ = drawn("paired_gains")
    points = [line for ax in fig.axes for line in ax.lines if line.get_marker() == "o"]
    assert [line.get_markerfacecolor() != "white" for line in points] == [True, False, True, True]
    assert [line.get_xdata()[0] for line in points] == GAINS["mean"].tolist()
    assert [t.get_text() for t in fig.axes[0].get_yticklabels()] == ["report's search", "best search"]
    assert [ax.get_title() for ax in fig.axes] == ["PSNR (dB)", "SSIM"]


def test_paired_gains_fill_only_what_the_adjusted_p_decides():
    fig, _ = drawn("paired_gains adjusted")
    points = [line for ax in fig.axes for line in ax.lines if line.get_marker() == "o"]
    assert [line.get_markerfacecolor() != "white" for line in points] == [True, False, False, True]


def test_gain_distribution_orders_classes_and_states_shares():
    (ax,) = drawn("gain_distribution")[0].axes
    assert [t.get_text() for t in ax.get_yticklabels()] == ["Coat", "Bag"]
    assert [t.get_text() for t in ax.texts] == ["90%", "60%"]


def test_gain_distribution_names_every_row_with_its_median_and_share():
    titles = [ax.get_title() for ax in drawn("gain_distribution two")[0].axes]
    assert titles == [
        "best\nmedian +0.50, 75% of the images gain",
        "report's\nmedian -0.50, 25% of the images gain",
    ]


def test_disagreements_keep_captions_with_their_images():
    axes = np.array(drawn("disagreements")[0].axes).reshape(3, 4)
    for k, stack in enumerate((ORIGINAL, BEFORE, AFTER)):
        for i in range(4):
            assert axes[k, i].get_xlabel() == f"case {i}\nimage {k}"
            np.testing.assert_allclose(shown(axes[k, i]), stack[i, 0], atol=1e-6)
    assert [ax.get_ylabel() for ax in axes[:, 0]] == ["original", "semantic", "collaborative"]
