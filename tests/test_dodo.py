"""The batch: tiny notebooks through cgi_helpers.pipeline.figures and through doit."""

import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
import torch
from doit import doit_cmd

from cgi_helpers.pipeline import figures
from cgi_helpers.pipeline.plan import plan
from cgi_helpers.pipeline.presets import get_preset
from cgi_helpers.pipeline.session import start

ROOT = Path(__file__).resolve().parents[1]
PARAMETERS = "preset = None\nseed = 0\ndevice = 'auto'"
SAVES = """from cgi_helpers.pipeline.artifacts import Store
folder = Store(preset, seed).figures
folder.mkdir(parents=True, exist_ok=True)
for name in {names}:
    (folder / name).write_text('a figure')"""
BOTH = "['fig01_a.png', 'fig01_a.pdf', 'metrics.json']"


def tiny(folder, name, *code, figures=(), stages=(), parameters=PARAMETERS):
    """Write a notebook of a parameters cell and the given code cells."""
    cells = [nbformat.v4.new_code_cell(parameters, metadata={"tags": ["parameters"]})]
    cells += [nbformat.v4.new_code_cell(text) for text in code]
    nb = nbformat.v4.new_notebook(
        cells=cells,
        metadata={
            "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"},
            "cgi": {"figures": list(figures), "stages": list(stages)},
        },
    )
    path = folder / f"{name}.ipynb"
    nbformat.write(nb, path)
    return path


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """(folder of notebooks, root of their results): 01 has run, 02 fails, 03 must never start."""
    folder, root = tmp_path_factory.mktemp("notebooks"), tmp_path_factory.mktemp("root")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CGI_ROOT", str(root))
        session = start("smoke", device="cpu")
        first = tiny(
            folder,
            "01_good",
            SAVES.format(names=BOTH),
            "assert preset == 'smoke' and device == 'cpu'",
            figures=["fig01_a", "metrics.json"],
            stages=["train"],
        )
        tiny(folder, "02_bad", "print('kept')", "x = 1\nraise KeyError('no such mask')", "print('never')")
        tiny(folder, "03_after", SAVES.format(names=BOTH))
        assert not figures.up_to_date(first, session)
        seconds = figures.execute(first, session)
        assert seconds > 0
        yield folder, root, session


def edit(path, change):
    """Change a notebook's JSON in place; returns its former text."""
    text = path.read_text()
    nb = json.loads(text)
    change(nb)
    path.write_text(json.dumps(nb))
    return text


def test_a_finished_run_leaves_notebook_html_figures_and_stamp(place):
    folder, root, session = place
    assert figures.up_to_date(folder / "01_good.ipynb", session)
    executed = root / "artifacts" / "smoke" / "executed"
    assert sorted(p.name for p in executed.iterdir() if p.name.startswith(("01", ".01"))) == [
        "01_good.html",
        "01_good.ipynb",
        "01_good.json",
    ]
    nb = nbformat.read(executed / "01_good.ipynb", 4)
    assert any("injected-parameters" in c.metadata.get("tags", []) for c in nb.cells)
    assert "<html" in (executed / "01_good.html").read_text()
    assert (root / "figures" / "smoke" / "fig01_a.pdf").exists()
    stamp = json.loads((executed / "01_good.json").read_text())
    assert stamp["parameters"] == {"preset": "smoke", "seed": 0, "device": "cpu"}


def test_doit_stops_at_the_failing_notebook_and_keeps_what_was_made(place):
    folder, root, _ = place
    before = (root / "figures" / "smoke" / "fig01_a.png").stat().st_mtime_ns
    result = subprocess.run(
        [
            sys.executable,
            "-m",
            "doit",
            "run",
            "-f",
            ROOT / "dodo.py",
            "preset=smoke",
            "device=cpu",
            f"notebooks={folder}",
        ],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=600,
    )
    executed = root / "artifacts" / "smoke" / "executed"
    assert result.returncode == 1 and "-- [1/3] 01_good" in result.stdout and "[2/3] 02_bad" in result.stdout
    assert "KeyError: 'no such mask'" in result.stderr and "02_bad.failed.ipynb" in result.stderr
    assert "raise KeyError" in result.stderr and not {"Traceback", "WARNING"} & set(result.stderr.split())
    assert len(result.stderr.splitlines()) <= 8 and "03_after" not in result.stdout
    failed = (executed / "02_bad.failed.ipynb").read_text()
    assert "papermill-error-cell" in failed and "kept" in failed
    assert not any((executed / n).exists() for n in ("02_bad.ipynb", "02_bad.json", "03_after.ipynb"))
    assert not list(executed.glob(".*running*"))
    assert (root / "figures" / "smoke" / "fig01_a.png").stat().st_mtime_ns == before


@pytest.mark.parametrize(
    "change",
    [
        lambda nb: nb["cells"][1]["source"].append("\nx = 1"),
        lambda nb: nb["cells"].pop(),
        lambda nb: nb["metadata"]["cgi"].update(stages=[]),
        lambda nb: nb["metadata"]["cgi"]["figures"].append("fig02_b"),
    ],
    ids=["cell", "fewer cells", "stages", "figures"],
)
def test_a_change_of_code_makes_it_out_of_date(place, change):
    folder, _, session = place
    path = folder / "01_good.ipynb"
    text = edit(
        path,
        lambda nb: [
            c.update(source=c["source"] if isinstance(c["source"], list) else [c["source"]]) for c in nb["cells"]
        ],
    )
    assert figures.up_to_date(path, session)
    edit(path, change)
    assert not figures.up_to_date(path, session)
    path.write_text(text)


def test_outputs_markdown_and_cell_metadata_do_not(place):
    folder, _, session = place
    path = folder / "01_good.ipynb"

    def harmless(nb):
        nb["cells"][1].update(execution_count=7, outputs=[{"output_type": "stream", "name": "stdout", "text": "hello"}])
        nb["cells"][1]["metadata"]["collapsed"] = True
        nb["cells"].append({"cell_type": "markdown", "metadata": {}, "source": "words", "id": "w"})

    text = edit(path, harmless)
    assert figures.up_to_date(path, session)
    path.write_text(text)


@pytest.mark.parametrize(
    "name",
    [
        "figures/smoke/fig01_a.png",
        "figures/smoke/fig01_a.pdf",
        "figures/smoke/metrics.json",
        "artifacts/smoke/executed/01_good.html",
        "artifacts/smoke/executed/01_good.json",
    ],
)
def test_a_lost_file_makes_it_out_of_date(place, name):
    folder, root, session = place
    away = (root / name).with_name("away")
    os.replace(root / name, away)
    assert not figures.up_to_date(folder / "01_good.ipynb", session)
    os.replace(away, root / name)
    assert figures.up_to_date(folder / "01_good.ipynb", session)


def test_a_figure_of_another_run_makes_it_out_of_date(place):
    folder, root, session = place
    figure = root / "figures" / "smoke" / "fig01_a.png"
    text = figure.read_text()
    figure.write_text("the committed figure, after git checkout")
    assert not figures.up_to_date(folder / "01_good.ipynb", session)
    figure.write_text(text)
    assert figures.up_to_date(folder / "01_good.ipynb", session)


def test_another_seed_package_or_stage_result_makes_it_out_of_date(place, monkeypatch):
    folder, _, session = place
    path = folder / "01_good.ipynb"
    now = figures.notebook_fingerprint(path, session)
    assert figures.notebook_fingerprint(path, start("smoke", 1, "cpu")) != now
    assert figures.notebook_fingerprint(path, start("laptop", device="cpu")) != now
    with monkeypatch.context() as patch:
        patch.setattr(figures, "source_digest", lambda: "another package")
        assert figures.notebook_fingerprint(path, session) != now
    session.store.save("history", {"d_loss": torch.zeros(2)}, "train", session.fingerprint("train"))
    assert figures.notebook_fingerprint(path, session) != now
    session.store.find("history").unlink()
    assert figures.up_to_date(path, session)


def test_source_digest_sees_names_and_contents(tmp_path):
    (tmp_path / "a.py").write_text("x = 1")
    first = figures.source_digest(tmp_path)
    (tmp_path / "notes.txt").write_text("no code")
    assert figures.source_digest(tmp_path) == first
    (tmp_path / "a.py").write_text("x = 2")
    second = figures.source_digest(tmp_path)
    (tmp_path / "a.py").rename(tmp_path / "b.py")
    assert len({first, second, figures.source_digest(tmp_path)}) == 3


def test_unknown_parameters_are_refused_before_running(tmp_path, root):
    session = start("smoke", device="cpu")
    path = tiny(tmp_path, "01_a", "raise SystemExit", parameters="preset = None\nseed = 0\ndevice = 'auto'\nepochs = 3")
    with pytest.raises(ValueError, match="01_a.ipynb has no parameter 'epoch'.* preset, seed, device, epochs"):
        figures.execute(path, session, epoch=2)
    path = tiny(tmp_path, "02_b", "raise SystemExit", parameters="preset = None\ndevice = 'auto'")
    with pytest.raises(ValueError, match="no parameter 'seed'"):
        figures.execute(path, session)
    assert not session.store.own.exists()


def test_a_promised_figure_must_be_written_in_this_run(tmp_path, root, monkeypatch):
    session = start("smoke", device="cpu")
    path = tiny(tmp_path, "01_a", figures=["fig01_a"])
    session.store.figures.mkdir(parents=True)
    for ending, age in ((".png", 0), (".pdf", 3600)):
        figure = session.store.figures / f"fig01_a{ending}"
        figure.write_text("from an earlier run")
        os.utime(figure, (figure.stat().st_mtime - age,) * 2)
    monkeypatch.setattr(figures, "run_cells", lambda path, output, parameters: output.write_text(path.read_text()))
    with pytest.raises(figures.NotebookError, match=r"did not write fig01_a\.pdf into"):
        figures.execute(path, session)
    assert not figures.stamp_path(path, session).exists()


def test_unknown_stage_and_no_notebook_are_one_sentence(tmp_path, root):
    with pytest.raises(ValueError, match="unknown stage 'trian': known are train"):
        figures.described(tiny(tmp_path, "01_a", stages=["trian"]))
    (tmp_path / "02_b.ipynb").write_text("{")
    with pytest.raises(ValueError, match="02_b.ipynb is not a notebook"):
        figures.described(tmp_path / "02_b.ipynb")


@pytest.mark.parametrize(
    "variables, sentence",
    [
        ({"preset": "lptop"}, "Unknown preset 'lptop'"),
        ({"preset": "smoke", "device": "gpu"}, "device 'gpu'"),
        ({"preset": "smoke", "notebooks": "/nowhere"}, "no numbered notebook"),
        ({"preset": "smoke", "seed": "0,one"}, "seed must be a whole number >= 0 but is 'one'"),
        ({"preset": "smoke", "seed": "1,0,1"}, "once, not smoke-seed1, smoke, smoke-seed1"),
    ],
)
def test_dodo_refuses_bad_variables_in_one_sentence(root, monkeypatch, variables, sentence):
    monkeypatch.setattr(doit_cmd, "_CMDLINE_VARS", variables)
    with pytest.raises(SystemExit, match=f"^Error: .*{sentence}"):
        runpy.run_path(str(ROOT / "dodo.py"))
    assert not (root / "artifacts").exists()


MEETING = """import time
from pathlib import Path
place = Path({folder!r})
(place / f"here-{{seed}}").touch()
for _ in range(600):
    if (place / f"here-{{1 - seed}}").exists():
        break
    time.sleep(0.1)
else:
    raise TimeoutError("the other seed never came")"""


def test_two_seeds_run_side_by_side_and_a_failure_stops_its_own_seed_only(tmp_path, root):
    folder = tmp_path / "notebooks"
    folder.mkdir()
    tiny(folder, "01_meet", MEETING.format(folder=str(tmp_path)))
    tiny(folder, "02_odd", "assert seed == 0, 'only seed 0 gets on'")
    tiny(folder, "03_last", "print(preset, seed)")
    result = subprocess.run(
        [
            sys.executable,
            "-m",
            "doit",
            "run",
            "-f",
            ROOT / "dodo.py",
            "-n",
            "2",
            "--continue",
            "preset=smoke",
            "seed=0,1",
            "device=cpu",
            f"notebooks={folder}",
        ],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=600,
    )
    assert "Error: smoke-seed1 02_odd.ipynb stopped in cell [3]: AssertionError: only seed 0 gets on" in result.stderr
    ran = {
        name: sorted(p.stem for p in (root / "artifacts" / name / "executed").glob("*.html"))
        for name in ("smoke", "smoke-seed1")
    }
    assert result.returncode != 0 and ran == {"smoke": ["01_meet", "02_odd", "03_last"], "smoke-seed1": ["01_meet"]}


def tasks(monkeypatch, **variables):
    """The names in dodo.py, loaded with these variables."""
    monkeypatch.setattr(doit_cmd, "_CMDLINE_VARS", {"preset": "smoke", **variables})
    return runpy.run_path(str(ROOT / "dodo.py"))


def test_fresh_puts_every_stage_of_a_seed_before_its_notebooks(root, monkeypatch):
    made = list(tasks(monkeypatch, seed="0,4", device="cpu", fresh="1")["task_notebook"]())
    names = [task["name"] for task in made]
    one = [*plan(get_preset("smoke")), *(path.stem for path in figures.notebooks())]
    assert names == [f"smoke:{n}" for n in one] + [f"smoke-seed4:{n}" for n in one]
    first = [names.index("smoke:train"), names.index("smoke-seed4:train")]
    for i, task in enumerate(made):
        assert task["task_dep"] == ([] if i in first else [f"notebook:{names[i - 1]}"])
    assert not made[0]["uptodate"][0](None, None)


def test_a_stage_of_the_batch_runs_and_tells_its_failure(root, monkeypatch, capfd):
    module = tasks(monkeypatch, device="cpu")
    compute, session = module["compute"], module["SESSIONS"][0]
    assert compute("encoder", session) is not None and "Error: Artifact 'generator'" in capfd.readouterr().err
    assert compute("classifier", session) is None and session.up_to_date("classifier")


def test_jobs_take_the_gpus_in_turn(root, monkeypatch):
    module = tasks(monkeypatch, device="cpu")
    assert module["device_of"](1) == "cpu"
    monkeypatch.setattr(doit_cmd, "_CMDLINE_VARS", {})
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert [module["device_of"](i) for i in range(3)] == ["cuda:0", "cuda:1", "cuda:0"]


def test_notebooks_are_the_numbered_ones_in_order(tmp_path):
    for name in ("10_z", "02_b", "01_a", "draft", "1_x"):
        tiny(tmp_path, name)
    assert [p.stem for p in figures.notebooks(tmp_path)] == ["01_a", "02_b", "10_z"]
