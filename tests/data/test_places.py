"""Where the repository is: the checkout around the package; for an installed package CGI_ROOT or the present folder."""

from pathlib import Path

from cgi_helpers.data import places


def test_the_checkout_around_the_package_comes_first(tmp_path, monkeypatch):
    (tmp_path / "clone" / "notebooks").mkdir(parents=True)
    monkeypatch.setenv("CGI_ROOT", str(tmp_path))
    assert places.repository(tmp_path / "clone" / "cgi_helpers") == tmp_path / "clone"
    assert Path(places.__file__).parents[2] == places.ROOT and places.lost() == ""


def test_an_installed_package_looks_in_the_named_or_the_present_folder_and_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("CGI_ROOT", str(tmp_path / "named"))
    assert places.repository(tmp_path / "site-packages" / "cgi_helpers") == tmp_path / "named"
    monkeypatch.delenv("CGI_ROOT")
    monkeypatch.chdir(tmp_path)
    assert places.repository(tmp_path / "site-packages" / "cgi_helpers") == tmp_path
    assert "is no checkout of the repository: work in one, or name it by CGI_ROOT" in places.lost(tmp_path)
