"""The three lists of packages agree, and no tracked file knows an address or a place of the machine it was made on."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

tomllib = pytest.importorskip("tomllib" if sys.version_info >= (3, 11) else "tomli")

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "pyproject.toml").read_text()
PROJECT = tomllib.loads(TEXT)["project"]
EXTRAS = PROJECT["optional-dependencies"]
LOCKED = ("lab", "app", "unit", "test")  # the extra `data` is asked for by name, its version must fit torch's
WANTED = {
    r.name: r
    for r in map(Requirement, PROJECT["dependencies"] + [line for extra in LOCKED for line in EXTRAS[extra]])
    if r.name != PROJECT["name"]
}.values()
LOCK = (ROOT / "requirements.lock").read_text()
# written so that this file does not match itself
FOREIGN = re.compile(
    r"https?://[^\s\"'<>)]*(pypi|pythonhosted|/simple\b|/whl\b|conda\.anaconda)"
    r"|index[-_]url\s*[=:]|/wor[k]/"
)


def pins():
    """{name: versions} of the lock (a name may have one version per Python)."""
    found = {}
    for line in LOCK.splitlines():
        if match := re.match(r"([A-Za-z0-9._-]+)(?:\[.*?\])?==(\S+)", line):
            found.setdefault(match[1].lower(), []).append(match[2])
    return found


@pytest.mark.parametrize("wanted", WANTED, ids=lambda r: r.name)
def test_every_dependency_has_a_lower_bound_and_a_pin_within(wanted):
    assert ">=" in {s.operator for s in wanted.specifier}
    versions = pins()[wanted.name.lower()]
    assert versions and all(wanted.specifier.contains(v) for v in versions)


def test_an_upper_bound_has_a_reason_beside_it():
    bounded = [line for line in TEXT.splitlines() if re.match(r'\s+"[\w-]+[^"]*<', line)]
    assert bounded and all("  # " in line for line in bounded)


def test_lock_has_no_addresses():
    assert "://" not in LOCK and "@ " not in LOCK and not re.search(r"^--", LOCK, re.MULTILINE)


def test_seaborn_and_matplotlib_fit():
    bounds = {r.name: r.specifier for r in WANTED}
    assert bounds["seaborn"].contains("0.13.2") and not bounds["matplotlib"].contains("3.13.0")


def test_conda_environment_follows_pyproject():
    entries = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    conda = {r.name: r.specifier for r in (Requirement(e) for e in entries if isinstance(e, str))}
    (pip,) = [e["pip"] for e in entries if isinstance(e, dict)]
    (match,) = [re.fullmatch(r"-e \.\[([\w,]+)\]", line) for line in pip]
    assert match[1] == "lab,test"  # as run.py installs; the others are for those who ask for them
    assert conda.pop("python") == SpecifierSet(PROJECT["requires-python"])
    assert conda.pop("pip") == SpecifierSet()
    assert conda == {r.name: r.specifier for r in WANTED if r.name in conda}


def files():
    """What git tracks or would track; none outside a checkout."""
    try:
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=ROOT,
            capture_output=True,
            check=True,
        ).stdout
    except (OSError, subprocess.CalledProcessError):
        return []
    return [ROOT / name for name in listed.decode().split("\0") if name and (ROOT / name).is_file()]


def test_no_file_names_a_registry_or_a_place_of_this_machine():
    tracked = files()
    if not tracked:
        pytest.skip("not a git checkout")
    found = {str(f): FOREIGN.search(f.read_bytes().decode("utf-8", "ignore")) for f in tracked}
    assert not {name: match[0] for name, match in found.items() if match}


@pytest.mark.parametrize(
    "text",
    [
        "https://py" + "pi.org/sim" + "ple/torch",
        "--index" + "-url = x",
        "/wor" + "k/x",
        "https://download.example/wh" + "l/cpu",
    ],
)
def test_the_search_finds_what_it_looks_for(text):
    assert FOREIGN.search(text)
