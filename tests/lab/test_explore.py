"""The worker thread and the sliders over it; handlers are called directly, no browser."""

import ast
import sys
import threading
from pathlib import Path

import pytest

widgets = pytest.importorskip("ipywidgets")

from matplotlib.figure import Figure  # noqa: E402

import cgi_helpers  # noqa: E402
from cgi_helpers.lab import explore  # noqa: E402
from cgi_helpers.lab.number import Number  # noqa: E402
from cgi_helpers.lab.worker import Worker  # noqa: E402

PNG = b"\x89PNG\r\n"
LONG = 60  # seconds; reached by failing tests only


# --- the worker


def test_a_job_runs_on_the_workers_thread():
    worker, seen = Worker(), []
    worker.submit(lambda cancel: seen.append((threading.current_thread() is threading.main_thread(), cancel.is_set())))
    assert worker.wait(LONG) and seen == [(False, False)]


def test_the_newest_request_wins():
    worker, started, release, done = Worker(), threading.Event(), threading.Event(), []

    def first(cancel):
        started.set()
        assert release.wait(LONG)
        done.append(("first", cancel.is_set()))

    worker.submit(first)
    assert started.wait(LONG)
    assert not worker.wait(0)  # busy
    for name in ("second", "third", "fourth"):
        worker.submit(lambda cancel, name=name: done.append((name, cancel.is_set())))
    release.set()
    assert worker.wait(LONG) and done == [("first", True), ("fourth", False)]


def test_a_job_that_fails_does_not_end_the_worker(capsys):
    worker, done = Worker(), []

    def fails(cancel):
        raise RuntimeError("boom")

    worker.submit(fails)
    assert worker.wait(LONG)
    thread = worker.thread
    worker.submit(lambda cancel: done.append(1))
    assert worker.wait(LONG) and done == [1] and worker.thread is thread
    assert "RuntimeError: boom" in capsys.readouterr().err


def test_a_new_thread_takes_over_when_the_old_one_went_idle():
    worker, done = Worker(), []
    worker.submit(lambda cancel: done.append(1))
    assert worker.wait(LONG)
    gone = threading.Thread(target=lambda: None)
    gone.start()
    gone.join()
    with worker.condition:
        worker.thread = gone
    worker.submit(lambda cancel: done.append(2))
    assert worker.wait(LONG) and done == [1, 2]


def test_synchronous_runs_at_once_in_the_caller():
    worker, seen = Worker(synchronous=True), []
    worker.submit(lambda cancel: seen.append((threading.current_thread(), cancel.is_set())))
    assert seen == [(threading.current_thread(), False)] and worker.thread is None
    with pytest.raises(RuntimeError, match="boom"):
        worker.submit(lambda cancel: (_ for _ in ()).throw(RuntimeError("boom")))


# --- the sliders


def drawing(calls):
    def draw(lam=0.01, layer=2, mask="center", rate=0.5):
        calls.append((lam, layer, mask, rate))
        if layer == 4:
            raise ValueError("layer <4> & more")
        figure = Figure(figsize=(1, 1))
        figure.add_subplot().plot([0, layer, len(calls)])
        return figure

    return draw


CONTROLS = dict(lam=(1e-4, 1.0), layer=(0, 4), mask=["center", "half"], rate=(0.0, 1.0))


def test_defaults_of_the_function_are_the_defaults_of_the_controls():
    calls = []
    explorer = explore(drawing(calls), synchronous=True, hints={"lam": "weight of the prior"}, **CONTROLS)
    kinds = {n: type(c) for n, c in explorer.controls.items()}
    assert kinds == {"lam": Number, "layer": Number, "mask": widgets.Dropdown, "rate": Number}
    assert explorer.values() == {"lam": pytest.approx(0.01), "layer": 2, "mask": "center", "rate": 0.5}
    stops = {n: [v for _, v in explorer.controls[n].slider.options] for n in ("layer", "rate")}
    assert (
        stops["layer"] == [0, 1, 2, 3, 4]
        and len(stops["rate"]) == 51
        and (stops["rate"][0], stops["rate"][-1]) == (0, 1)
    )
    notches = [v for _, v in explorer.controls["lam"].slider.options]
    assert (notches[0], notches[-1], len(notches)) == (1e-4, 1.0, 41)
    assert explorer.controls["lam"].slider.tooltip == explorer.controls["lam"].field.tooltip == "weight of the prior"
    assert list(explorer.children) == [*explorer.controls.values(), explorer.status, explorer.picture]
    assert calls == [] and explorer.frames == 0 and explorer.picture.value == b""  # nothing before one is moved
    assert explorer.picture.layout.display == "none"  # and no sign of a broken picture


def test_moving_a_control_draws_the_new_values():
    calls = []
    explorer = explore(drawing(calls), synchronous=True, **CONTROLS)
    explorer.controls["layer"].value = 3
    first = bytes(explorer.picture.value)
    explorer.controls["mask"].value = "half"
    assert [c[1:3] for c in calls] == [(3, "center"), (3, "half")] and explorer.frames == 2
    assert first[:6] == PNG and explorer.picture.value[:6] == PNG and explorer.picture.value != first
    assert "Computing" not in explorer.status.value
    explorer.refresh()  # what a button would call
    assert explorer.frames == 3 and calls[-1] == calls[-2]


def test_a_number_beyond_the_range_gets_a_word_until_the_next_move():
    explorer = explore(drawing([]), synchronous=True, **CONTROLS)
    explorer.controls["layer"].field.value = 40
    assert explorer.values()["layer"] == 4 and explorer.status.value == "layer goes from 0 to 4, so 40 became 4."
    explorer.controls["layer"].slider.value = 3
    assert "became" not in explorer.status.value


def test_an_error_is_shown_and_the_next_drawing_clears_it():
    explorer = explore(drawing([]), synchronous=True, **CONTROLS)
    explorer.controls["layer"].value = 3
    before = explorer.picture.value
    explorer.controls["layer"].value = 4
    assert explorer.status.value == "<b>ValueError:</b> layer &lt;4&gt; &amp; more"  # as text, not as HTML
    assert explorer.picture.value == before and explorer.frames == 1
    explorer.controls["layer"].value = 1
    assert "ValueError" not in explorer.status.value and explorer.frames == 2


def test_an_error_on_the_worker_thread_is_shown_too():
    explorer = explore(drawing([]), synchronous=False, **CONTROLS)
    explorer.controls["layer"].value = 4
    assert explorer.worker.wait(LONG) and "ValueError" in explorer.status.value
    explorer.controls["layer"].value = 1
    assert explorer.worker.wait(LONG) and explorer.frames == 1 and explorer.picture.value[:6] == PNG


class SlowToSave:
    """A figure that is overtaken while it is being written."""

    def __init__(self, figure, wait):
        self.figure, self.wait = figure, wait

    def savefig(self, *args, **options):
        self.wait()
        self.figure.savefig(*args, **options)


@pytest.mark.parametrize("slow", ["drawing", "saving", "failing"])
def test_only_the_newest_values_are_shown(slow):
    """Three moves while the first drawing runs: the first is thrown away, the second never starts."""
    started, release, calls, draw = threading.Event(), threading.Event(), [], drawing([])

    def wait():
        started.set()
        assert release.wait(LONG)

    def first_is_slow(layer=2):
        calls.append(layer)
        if len(calls) > 1:
            return draw(layer=layer)
        if slow == "saving":
            return SlowToSave(draw(layer=layer), wait)
        wait()
        if slow == "failing":
            raise ValueError("too late to matter")
        return draw(layer=layer)

    explorer = explore(first_is_slow, synchronous=False, layer=(0, 4))
    explorer.controls["layer"].value = 0
    assert started.wait(LONG) and "Computing" in explorer.status.value
    explorer.controls["layer"].value = 1
    explorer.controls["layer"].value = 3
    release.set()
    assert explorer.worker.wait(LONG)
    assert calls == [0, 3] and explorer.frames == 1 and "ValueError" not in explorer.status.value


def test_unknown_argument_is_refused():
    with pytest.raises(ValueError, match="draw.. has no argument 'lambda_': its arguments are lam, layer, mask, rate"):
        explore(drawing([]), lambda_=(0, 1))


def test_synchronous_mode_by_environment(monkeypatch):
    monkeypatch.setenv("CGI_SYNC", "1")
    assert explore(drawing([]), layer=(0, 4)).worker.synchronous
    assert not explore(drawing([]), synchronous=False, layer=(0, 4)).worker.synchronous
    monkeypatch.delenv("CGI_SYNC")
    assert not explore(drawing([]), layer=(0, 4)).worker.synchronous


def test_synchronous_mode_by_itself_in_colab(monkeypatch):
    monkeypatch.setitem(sys.modules, "google.colab", object())
    for value, expected in ((None, True), ("1", True), ("0", False)):
        monkeypatch.delenv("CGI_SYNC", raising=False) if value is None else monkeypatch.setenv("CGI_SYNC", value)
        assert explore(drawing([]), layer=(0, 4)).worker.synchronous is expected


def test_nothing_outside_the_lab_imports_widgets():
    package = Path(cgi_helpers.__file__).parent
    for path in package.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = (
                [a.name for a in node.names]
                if isinstance(node, ast.Import)
                else [node.module or ""]
                if isinstance(node, ast.ImportFrom)
                else []
            )
            for name in names:
                assert path.parent.name == "lab" or name.split(".")[0] not in (
                    "ipywidgets",
                    "lab",
                    "anywidget",
                    "IPython",
                ), (path, name)
