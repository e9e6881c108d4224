"""README.md and docs/: written by docs/build.py, every measured number a field, every link and file there."""

import importlib.util
import json
import re
import shutil
from pathlib import Path

import pytest

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
