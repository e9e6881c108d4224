"""README.md and docs/*.md from docs/templates/*.md, in which every measured number is a field that names its source.

    python docs/build.py            writes them anew
    python docs/build.py --check    names those that are out of date and exits with 1

A field is {{file:path:format}}: `file` is a key of FILES, `path` leads through the JSON with / between keys, `format`
is Python's, after a factor if needed (`*1000 .0f`). Of a value with mean and ci95, `±.2f` writes mean ± half of the
interval, `[].2f` mean [lo, hi]. `path ÷ path` divides and `path − path` subtracts, which comes first.
{{table:NAME}} writes a table (or a sentence) of TABLES.
"""

import json
import math
import operator
import re
import sys
from functools import partial, reduce
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TEMPLATES = ROOT / "docs" / "templates"
HEAD = "<!-- Written by docs/build.py from docs/templates/{}: edit that file. -->\n"
FILES = {
    "metrics": "figures/laptop/metrics.json",
    "metrics_mnist": "figures/mnist/metrics.json",
    "metrics_desktop": "figures/desktop/metrics.json",
    "company": "data/pretrained/laptop/company.json",
    "search": "figures/laptop/02_baseline_inpainting.json",
    "gan": "figures/laptop/01_train_dcgan.json",
    "lab": "figures/laptop/00_live_lab.json",
    "card": "figures/laptop/09_report_card.json",
    "card_mnist": "figures/mnist/09_report_card.json",
    "speed": "benchmarks/results/laptop.json",
    "speed32": "benchmarks/results/laptop-float32.json",
    "scale": "benchmarks/results/scale.json",
    "shipped": "data/pretrained/laptop/*.safetensors",  # {artifact: its metadata}
    "measured": "docs/measured.json",  # by hand: value, and how, where and when
}
FIELD = re.compile(r"\{\{(\w+):([^{}]*?)(?::([^{}:]*))?\}\}")
STAGE = re.compile(r"_[\d.]+$")  # rows of single shaping stages end like this
COLUMNS = {
    "psnr": ("PSNR (dB)", ".2f"),
    "ssim": ("SSIM", ".4f"),
    "frechet_distance": ("Frechet distance", ".2f"),
    "frechet_limit": ("Frechet distance, extrapolated", ".2f"),
    "inception_score": ("Inception score", ".2f"),
    "label_agreement": ("label agreement", ".3f"),
}


class FieldError(ValueError):
    """A field that leads nowhere or cannot be written so; the message names it."""


def read(root, name):
    """Content of a source by its key in FILES."""
    if name not in FILES:
        raise FieldError(f"there is no source {name!r}: use one of {', '.join(FILES)}")
    if "*" in FILES[name]:
        return {path.stem: about(path) for path in sorted(root.glob(FILES[name]))}
    return json.loads((root / FILES[name]).read_text())


def about(path):
    """Metadata of an artifact, from the head of its safetensors file."""
    with open(path, "rb") as file:
        head = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    return json.loads(head["__metadata__"]["cgi"])


def follow(tree, path):
    """The value at `a/b/c`; `a − b` is the difference of two values, `a ÷ b` the ratio of two values or differences."""
    for sign, join in (("÷", operator.truediv), ("−", operator.sub)):
        if sign in path:
            return reduce(join, (follow(tree, part.strip()) for part in path.split(sign)))
    for key in path.split("/"):
        tree = tree[int(key)] if isinstance(tree, list) else tree[key]
    return tree


def written(value, how):
    """A value as the format of its field says."""
    if factor := re.match(r"\*([\d.e-]+) ", how):
        return written(value * float(factor[1]), how[factor.end() :])
    if how.startswith("±"):
        low, high = value["ci95"]
        return f"{value['mean']:{how[1:]}} ± {(high - low) / 2:{how[1:]}}"
    if how.startswith("[]"):
        low, high = value["ci95"]
        return f"{value['mean']:{how[2:]}} [{low:{how[2:]}}, {high:{how[2:]}}]"
    if isinstance(value, (dict, list)):
        raise TypeError("it is not a single value")
    return format(value, how)


def table(head, rows):
    """Markdown of a table."""
    return "\n".join("| " + " | ".join(row) + " |" for row in [head, ["---"] * len(head), *rows])


def notebooks(root):
    """Number, question and file of every notebook, as its own first line says."""
    rows = []
    for path in sorted((root / "notebooks").glob("[0-9][0-9]_*.ipynb")):
        title = "".join(json.loads(path.read_text())["cells"][0]["source"]).splitlines()[0]
        rows.append(
            [f"[`{path.stem}`](notebooks/{path.name})", title.lstrip("# ").partition("· ")[2] or title.lstrip("# ")]
        )
    return table(["notebook", "question"], rows)


def evaluation(root, source="metrics"):
    """Every row of the evaluation but those of single shaping stages, with 95 % intervals, and the originals."""
    content = read(root, source)
    columns = {key: how for key, how in COLUMNS.items() if key in content["methods"]["semantic"]}
    rows = [
        [f"`{name}`", *(written(scores[key], f"±{how}") if key in scores else "" for key, (_, how) in columns.items())]
        for name, scores in content["methods"].items()
        if not STAGE.search(name)
    ]
    floor = [(content["floor"].get(key), how) for key, (_, how) in columns.items()]
    of_floor = (
        "" if value is None else written(value, f"±{how}" if isinstance(value, dict) else how) for value, how in floor
    )
    rows.append(["originals", *of_floor])
    return table(["row", *(title for title, _ in columns.values())], rows)


def adjusted(root):
    """Which paired gains whose interval leaves 0 out are undecided once all tests are taken together (Holm)."""
    from cgi_helpers.study.evaluation import PAIRS
    from cgi_helpers.study.statistics import holm

    content = read(root, "metrics")
    gains = {
        (pair, key): value
        for pair in content
        if pair.startswith("paired_gain")
        for key, value in content[pair].items()
        if key != "psnr_hole"  # PSNR and a constant
    }
    p = {}
    for test, value in gains.items():
        spread = (value["ci95"][1] - value["ci95"][0]) / 3.92
        p[test] = math.erfc(abs(value["mean"]) / spread / 2**0.5) if spread else float(value["mean"] == 0)
    after, lost = holm(p), []
    for pair, key in gains:
        low, high = gains[pair, key]["ci95"]
        if low * high > 0 and after[pair, key] >= 0.05:
            name = " - ".join(f"`{row}`" for row in PAIRS.get(pair, (pair,)))
            title = COLUMNS.get(key, (key.replace("_", " "),))[0]
            lost.append(f"{title} of {name} (p {p[pair, key]:.3f}, adjusted {after[pair, key]:.2f})")
    first = f"Taken together ({len(p)} tests, Holm, 5 %), of the gains whose interval leaves 0 out "
    return first + (f"these are undecided: {'; '.join(lost)}" if lost else "all stay decided")


CARD = {
    "psnr": ("PSNR (dB)", ".2f"),
    "ssim": ("SSIM", ".3f"),
    "frechet_distance": ("Frechet distance", ".1f"),
    "kernel_distance_2": ("kernel distance, second classifier", ".2f"),
    "detectability": ("detectability (0.5: none)", ".3f"),
    "detectability_others": ("by the others", ".3f"),
    "seconds": ("seconds per image", ".3f"),
}


def card(root, source="card"):
    """Every method of the report card; bold: best, or not worse than the best by the interval of their difference."""
    content = read(root, source)["table"]
    rows = []
    for name, scores in content["methods"].items():
        row = [f"`{name}`"]
        for key, (_, how) in CARD.items():
            text = written(scores[key]["mean"], how) if key == "seconds" else written(scores[key], f"±{how}")
            row.append(f"**{text}**" if content["leaders"][key].get(name) in ("best", "not worse") else text)
        rows.append(row)
    return table(["method", *(title for title, _ in CARD.values())], rows)


def claims(root, source="card"):
    """Every claim with what decided it, as notebook 09 wrote it."""
    rows = [[c["claim"], c["source"], f"*{c['verdict']}*", c["evidence"]] for c in read(root, source)["claims"]]
    return table(["claim", "from", "verdict", "by"], rows)


OF_PRESETS = (
    "semantic",
    "semantic_best",
    "collaborative_best",
    "collaborative_field",
    "unet",
    "collaborative_unet",
    "collaborative_unet_inverted",
)


def presets(root):
    """The evaluation of every preset whose numbers are there: its best search, refined together and alone."""
    rows = []
    for path in sorted((root / "figures").glob("*/metrics.json")):
        content = json.loads(path.read_text())
        methods, gain = content["methods"], content["paired_gain_best"]
        rows.append(
            [
                f"`{path.parent.name}`",
                f"{content['test_images']:,}",
                *(
                    f"{methods[row]['psnr']['mean']:.2f} / {methods[row]['frechet_distance']['mean']:.2f}"
                    if row in methods
                    else ""
                    for row in OF_PRESETS
                ),
                written(gain["psnr"], "[]+.2f"),
            ]
        )
    head = ["preset", "test images", *(f"`{row}`" for row in OF_PRESETS)]
    return table([*head, "gain of PSNR, best search (dB)"], rows)


def stored(root, kind):
    """(preset, content) of every `benchmarks/results/KIND_PRESET.json`."""
    for path in sorted((root / "benchmarks" / "results").glob(f"{kind}_*.json")):
        yield path.stem.removeprefix(f"{kind}_"), json.loads(path.read_text(encoding="utf-8"))


def gained(row):
    """[gain of PSNR with its interval, Frechet distance] of a try or a control."""
    half = f" ± {row['half_interval']:.2f}" if "half_interval" in row else ""
    return [f"{row['psnr_gain']:+.2f}{half}", f"{row['frechet_distance']:.2f}"]


def tried(root):
    """Every try of `benchmarks/sweep.py` that was shaped or refined, after each of its epochs but 0."""
    rows = []
    for preset, content in stored(root, "sweep"):
        for kind, tries in content["tried"].items():
            for tag, found in tries.items():
                for epochs, row in found.get("epochs", {}).items():
                    if epochs != "0":
                        before = f"{row['before']:.2f}" if "before" in row else ""
                        rows.append(
                            [f"`{preset}`", kind.replace("_", " ", 1), f"`{tag}`", epochs, *gained(row), before]
                        )
    head = ["preset", "what", "changed", "epochs of shaping", "PSNR gain (dB)", "Frechet distance", "before"]
    return table(head, rows)


def controls(root):
    """Every row of `benchmarks/controls.py`."""
    rows = [
        [f"`{preset}`", name, f"{row['step_size']:g}" if "step_size" in row else "", *gained(row)]
        for preset, content in stored(root, "controls")
        for name, row in content["rows"].items()
    ]
    return table(["preset", "control", "step size", "PSNR gain (dB)", "Frechet distance"], rows)


def memory(root):
    """Megabytes of every method, a column per preset, from `benchmarks/memory.py`."""
    found = {preset: content["megabytes"] for preset, content in stored(root, "memory")}
    names = dict.fromkeys(name for column in found.values() for name in column)
    rows = [
        [f"`{name}`", *(f"{column[name]:.0f}" if name in column else "" for column in found.values())] for name in names
    ]
    return table(["method", *(f"`{preset}` (MB)" for preset in found)], rows)


def seeds(root):
    """Changes over GAN seeds from `benchmarks/seeds.py`, with their 95 % intervals."""
    from cgi_helpers.study import seeded

    rows = []
    for path in sorted((root / "benchmarks" / "results").glob("seeds_*.json")):
        found = seeded.table(seeded.read(path))
        for row in dict.fromkeys(found.index.get_level_values(0)):
            cells = []
            for measure in seeded.MEASURES:
                line = found.loc[row, measure]
                text = f"{line['mean']:.3f}"
                if line["change"] == line["change"]:
                    over = f" [{line['low']:+.3f}, {line['high']:+.3f}]" if line["low"] == line["low"] else ""
                    text += f" ({line['change']:+.3f}{over}; {line['shaping_sd']:.3f})"
                cells.append(text)
            first = found.loc[row, seeded.MEASURES[0]]
            counts = f"{first['gans']:.0f} x {first['shapings']:.0f}"
            rows.append([f"`{path.stem.removeprefix('seeds_')}`", f"`{row}`", counts, *cells])
    return table(["preset", "row", "GANs x shapings", *(m.replace("_", " ") for m in seeded.MEASURES)], rows)


TABLES = {
    "tried": tried,
    "controls": controls,
    "memory": memory,
    "seeds": seeds,
    "notebooks": notebooks,
    "evaluation": evaluation,
    "evaluation_mnist": partial(evaluation, source="metrics_mnist"),
    "evaluation_desktop": partial(evaluation, source="metrics_desktop"),
    "adjusted": adjusted,
    "card": card,
    "card_mnist": partial(card, source="card_mnist"),
    "claims": claims,
    "claims_mnist": partial(claims, source="card_mnist"),
    "presets": presets,
}


def fill(text, root=ROOT):
    """A template with its fields replaced. Raises FieldError."""

    def one(match):
        source, path, how = match.groups()
        try:
            return TABLES[path](root) if source == "table" else written(follow(read(root, source), path), how or "")
        except (KeyError, IndexError, TypeError, ValueError, OSError) as error:
            raise FieldError(f"{match[0]}: {type(error).__name__}: {error}") from error

    return FIELD.sub(one, text)


def pages(root=ROOT):
    """{path: content} of everything that is written."""
    made = {}
    for template in sorted((root / "docs" / "templates").glob("*.md")):
        target = root / template.name if template.name == "README.md" else root / "docs" / template.name
        made[target] = HEAD.format(template.name) + fill(template.read_text(encoding="utf-8"), root)
    return made


def main(arguments):
    """Exit code."""
    try:
        made = pages()
    except FieldError as error:
        print(f"Error: {error}.", file=sys.stderr)
        return 1
    old = [path for path, text in made.items() if not path.exists() or path.read_text(encoding="utf-8") != text]
    if "--check" in arguments:
        for path in old:
            print(f"{path.relative_to(ROOT)} is out of date: run `python docs/build.py`.", file=sys.stderr)
        return int(bool(old))
    for path in old:
        path.write_text(made[path], encoding="utf-8")
        print(path.relative_to(ROOT))
    return 0


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))  # the package of this checkout decides `adjusted`
    sys.exit(main(sys.argv[1:]))
