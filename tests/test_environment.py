"""The three lists of packages agree, and no tracked file knows an address or a place of the machine it was made on."""

import re
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
WANTED = [Requirement(r) for r in PROJECT["dependencies"] + EXTRAS["lab"] + EXTRAS["app"] + EXTRAS["test"]]
LOCK = (ROOT / "requirements.lock").read_text()
# written so that this file does not match itself
FOREIGN = re.compile(r"https?://[^\s\"'<>)]*(pypi|pythonhosted|/simple\b|/whl\b|conda\.anaconda)"
                     r"|index[-_]url\s*[=:]|/wor[k]/")


def pins():
    """{name: versions} of the lock (a name may have one version per Python)."""
    found = {}
    for line in LOCK.splitlines():
        if match := re.match(r"([A-Za-z0-9._-]+)(?:\[.*?\])?==(\S+)", line):
            found.setdefault(match[1].lower(), []).append(match[2])
    return found


@pytest.mark.parametrize("wanted", WANTED, ids=lambda r: r.name)
def test_every_dependency_has_two_bounds_and_a_pin_within_them(wanted):
    operators = {s.operator for s in wanted.specifier}
    assert operators == {">=", "<"}
    versions = pins()[wanted.name.lower()]
    assert versions and all(wanted.specifier.contains(v) for v in versions)


def test_lock_has_no_addresses():
    assert "://" not in LOCK and "@ " not in LOCK and not re.search(r"^--", LOCK, re.MULTILINE)


def test_seaborn_and_matplotlib_fit():
    bounds = {r.name: r.specifier for r in WANTED}
    assert bounds["seaborn"].contains("0.13.2") and not bounds["matplotlib"].contains("3.13.0")


def test_conda_environment_follows_pyproject():
    entries = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    conda = {r.name: r.specifier for r in (Requirement(e) for e in entries if isinstance(e, str))}
    pip, = [e["pip"] for e in entries if isinstance(e, dict)]
    match, = [re.fullmatch(r"-e \.\[([\w,]+)\]", line) for line in pip]
    assert set(match[1].split(",")) == set(EXTRAS) - {"app"}  # voila is for those who ask for it
    python, supported = conda.pop("python"), SpecifierSet(PROJECT["requires-python"])
    inside = [v for v in (f"3.{i}" for i in range(30)) if python.contains(v)]
    assert inside == ["3.11", "3.12", "3.13"] and all(supported.contains(v) for v in inside)
    assert conda.pop("pip") == SpecifierSet()
    assert conda == {r.name: r.specifier for r in WANTED if r.name in conda}


def files():
    """What git tracks or would track; none outside a checkout."""
    try:
        listed = subprocess.run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
                                cwd=ROOT, capture_output=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return []
    return [ROOT / name for name in listed.decode().split("\0") if name and (ROOT / name).is_file()]


def test_no_file_names_a_registry_or_a_place_of_this_machine():
    tracked = files()
    if not tracked:
        pytest.skip("not a git checkout")
    found = {str(f): FOREIGN.search(f.read_bytes().decode("utf-8", "ignore")) for f in tracked}
    assert not {name: match[0] for name, match in found.items() if match}


@pytest.mark.parametrize("text", ["https://py" + "pi.org/sim" + "ple/torch", "--index" + "-url = x", "/wor" + "k/x",
                                  "https://download.example/wh" + "l/cpu"])
def test_the_search_finds_what_it_looks_for(text):
    assert FOREIGN.search(text)
