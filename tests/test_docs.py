"""README.md and docs/: written by docs/build.py, every measured number a field, every link and file there."""

import importlib.util
import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

ROOT = Path(__file__).resolve().parents[1]
TEMPLATES = sorted((ROOT / "docs" / "templates").glob("*.md"))
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
spec = importlib.util.spec_from_file_location("docs_build", ROOT / "docs" / "build.py")
build = importlib.util.module_from_spec(spec)
spec.loader.exec_module(build)

# a typed number with a unit of something measured; settings and sizes have none
MEASURED = re.compile(r"(?<![\w.])\d[\d.,]*\s?(dB|ms|s|seconds|min|minutes|hours|GB|MB|MiB|%|times|x)(?![\w%-])")
# what a reader may type by hand
SETTINGS = ("95 %", "4x4", "5x5")


def test_every_page_is_what_its_template_and_its_sources_give():
    assert build.main(["--check"]) == 0


def test_a_page_that_was_edited_by_hand_is_noticed(tmp_path, monkeypatch, capsys):
    for name in ["docs/templates", *{Path(f).parent.as_posix() for f in build.FILES.values()} - {"docs"}, "notebooks"]:
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("*.png", "*.pdf"))
    shutil.copy(ROOT / "docs" / "measured.json", tmp_path / "docs")
    monkeypatch.setattr(build, "ROOT", tmp_path)
    monkeypatch.setattr(build, "pages", lambda root=tmp_path, pages=build.pages: pages(root))
    assert build.main(["--check"]) == 1 and "README.md is out of date" in capsys.readouterr().err
    assert build.main([]) == 0 and build.main(["--check"]) == 0
    page = tmp_path / "docs" / "numbers.md"
    page.write_text(page.read_text().replace("2,000", "3,000", 1))
    assert build.main(["--check"]) == 1 and "docs/numbers.md is out of date" in capsys.readouterr().err
    content = json.loads((tmp_path / "docs" / "measured.json").read_text())
    content["install"]["disk_gb"] = 7.7
    (tmp_path / "docs" / "measured.json").write_text(json.dumps(content))
    assert build.main(["--check"]) == 1 and "docs/installing.md is out of date" in capsys.readouterr().err


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda p: p.name)
def test_no_measured_number_is_typed_by_hand(path):
    text = re.sub(r"```.*?```|`[^`\n]*`", "", build.FIELD.sub("", path.read_text(encoding="utf-8")), flags=re.DOTALL)
    typed = [match[0] for match in MEASURED.finditer(text) if match[0] not in SETTINGS]
    assert not typed


@pytest.mark.parametrize(
    "text, found",
    [
        ("gains 0.5 dB", True),
        ("takes 8 minutes", True),
        ("37 %", True),
        ("3.5 times", True),
        ("20 steps of 0.008", False),
        ("32x32", False),
        ("Python 3.11", False),
        ("2 cores", False),
    ],
)
def test_the_search_for_typed_numbers_finds_them(text, found):
    assert bool(MEASURED.search(text)) == found


SOURCE = {"a": {"mean": 1.234, "ci95": [1.0, 1.5]}, "list": [3, 4], "two words, 0.1": 0.5}


@pytest.mark.parametrize(
    "field, expected",
    [
        ("{{measured:a/mean:.1f}}", "1.2"),
        ("{{measured:a:±.2f}}", "1.23 ± 0.25"),
        ("{{measured:a:[]+.1f}}", "+1.2 [+1.0, +1.5]"),
        ("{{measured:list/1}}", "4"),
        ("{{measured:two words, 0.1:*1000 .0f}}", "500"),
        ("{{measured:list/0 ÷ list/1:.2f}}", "0.75"),
        ("{{measured:list/1 − list/0:.0f}}", "1"),
        ("{{measured:list/1 − list/0 ÷ list/1:.2f}}", "0.25"),
    ],
)
def test_fields(tmp_path, field, expected):
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "measured.json").write_text(json.dumps(SOURCE))
    assert build.fill(f"before {field} after", tmp_path) == f"before {expected} after"


@pytest.mark.parametrize(
    "field, sentence",
    [
        ("{{measured:b/mean:.1f}}", "'b'"),
        ("{{nowhere:a:.1f}}", "no source 'nowhere'"),
        ("{{measured:a}}", "not a single value"),
        ("{{measured:list/7}}", "IndexError"),
        ("{{table:nothing}}", "'nothing'"),
        ("{{speed:a:.1f}}", "FileNotFoundError"),
    ],
)
def test_a_field_that_leads_nowhere_is_named(tmp_path, field, sentence):
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "measured.json").write_text(json.dumps(SOURCE))
    with pytest.raises(build.FieldError, match=sentence) as error:
        build.fill(field, tmp_path)
    assert field in str(error.value)


def test_metadata_of_a_shipped_result_is_a_source(tmp_path):
    folder = tmp_path / "data" / "pretrained" / "laptop"
    folder.mkdir(parents=True)
    metadata = {"cgi": json.dumps({"seconds": 120.0, "iterations": {"2": 167}})}
    save_file({"a": torch.zeros(1)}, folder / "shaped_report.safetensors", metadata)
    text = "{{shipped:shaped_report/iterations/2}} in {{shipped:shaped_report/seconds:*0.0166667 .0f}} minutes"
    assert build.fill(text, tmp_path) == "167 in 2 minutes"


def made_up(**gains):
    """The evaluation's JSON in a folder's place: gains of `collaborative` by measure, as (mean, half interval)."""
    values = {key: {"mean": mean, "ci95": [mean - half, mean + half]} for key, (mean, half) in gains.items()}
    return {"methods": {"semantic": values}, "paired_gain": values, "floor": {"frechet_distance": 1.29}}


@pytest.fixture
def metrics_in(tmp_path):
    def write(content):
        path = tmp_path / build.FILES["metrics"]
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(content))
        return tmp_path

    return write


def test_gains_that_many_tests_leave_undecided_are_named(metrics_in):
    gains = {"psnr": (1.0, 0.1), "ssim": (0.1, 0.5), "frechet_distance": (0.36, 0.35), "psnr_hole": (0.36, 0.35)}
    said = build.fill("{{table:adjusted}}", metrics_in(made_up(**gains)))
    assert said.startswith("Taken together (3 tests, Holm, 5 %)")
    assert said.endswith("Frechet distance of `collaborative` - `semantic` (p 0.044, adjusted 0.09)")


def test_gains_that_many_tests_leave_decided_are_not_named(metrics_in):
    said = build.fill("{{table:adjusted}}", metrics_in(made_up(psnr=(1.0, 0.1), ssim=(0.1, 0.5))))
    assert said.endswith("all stay decided")


def test_originals_have_what_was_measured_of_them(metrics_in):
    content = made_up(psnr=(1.0, 0.1), frechet_distance=(3.0, 0.5), label_agreement=(0.9, 0.01))
    last = build.fill("{{table:evaluation}}", metrics_in(content)).splitlines()[-1]
    assert last == "| originals |  | 1.29 |  |"


@pytest.mark.parametrize(
    "path", [*PAGES, ROOT / "CONTRIBUTING.md", ROOT / "benchmarks" / "README.md"], ids=lambda p: p.name
)
def test_links_lead_to_files(path):
    links = re.findall(r"\]\(([^)#]+)\)", path.read_text(encoding="utf-8"))
    assert not [link for link in links if "://" not in link and not (path.parent / link).exists()]


def test_readme_is_one_screen_and_names_every_notebook():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 60
    assert not [p.name for p in (ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb") if f"notebooks/{p.name}" not in text]


def test_contributing_keeps_every_recipe_short():
    sections = re.split(r"^## ", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    titles = {section.splitlines()[0] for section in sections}
    assert {
        f"Add a {what}" for what in ("data set", "generator", "shaping", "method", "mask", "preset", "notebook")
    } <= titles
    assert not [section.splitlines()[0] for section in sections if len(section.strip().splitlines()) > 15]
