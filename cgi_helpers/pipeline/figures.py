"""Running the notebooks in a batch: what one run depends on, whether it is up to date, and the run itself.

doit (dodo.py) only schedules. A notebook tells about itself in its metadata, `{"cgi": {"stages": [...], "figures":
[...]}}`: the stages whose results it reads and the base names of the figures it saves (each as .png and .pdf; a name
with an ending, such as metrics.json, is that one file).
"""

import hashlib
import json
import os
import sys
import time
from pathlib import Path

from .artifacts import ROOT, atomic_write, fingerprint, write_json
from .plan import plan
from .presets import get_preset

NOTEBOOKS = ROOT / "notebooks"
CLOCK_SLACK = 2.0  # seconds: the coarsest clock of the file systems in use


class NotebookError(RuntimeError):
    """A notebook stopped, or did not write what it promises; the message holds the cell's error in a few lines."""


def notebooks(folder=NOTEBOOKS):
    """The numbered notebooks, in the order in which they run."""
    return sorted(Path(folder).glob("[0-9][0-9]_*.ipynb"))


def read(path):
    """The notebook as plain JSON; ValueError if it is none."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not a notebook ({error}).") from error


def described(path, preset=None):
    """(stages, figures) that the notebook names in its metadata;
    a stage that the preset (None: laptop) lacks raises ValueError."""
    about = read(path).get("metadata", {}).get("cgi", {})
    stages, figures = about.get("stages", []), about.get("figures", [])
    known = plan(preset or get_preset("laptop"))
    for stage in stages:
        if stage not in known:
            raise ValueError(f"{path} names the unknown stage {stage!r}: known are {', '.join(known)}.")
    return stages, figures


def source_digest(folder=ROOT / "cgi_helpers"):
    """Hash of the package's Python files: names and contents."""
    h = hashlib.sha256()
    for path in sorted(Path(folder).rglob("*.py")):
        h.update(f"{path.relative_to(folder).as_posix()}\0".encode() + path.read_bytes() + b"\0")
    return h.hexdigest()[:16]


def stage_state(stage, session):
    """What a stage depends on, and the content of what it wrote (None: not computed yet)."""
    written = {a: (session.store.metadata(a) or {}).get("digest") for a in session.plan[stage].writes}
    return [session.fingerprint(stage), written]


def notebook_fingerprint(path, session):
    """What a run depends on: code cells (sources, not outputs), figure names, package, preset, seed and its stages."""
    stages, figures = described(path, session.preset)
    code = ["".join(cell["source"]) for cell in read(path)["cells"] if cell["cell_type"] == "code"]
    return fingerprint(
        code=code,
        figures=figures,
        package=source_digest(),
        preset=session.preset.name,
        seed=session.seed,
        stages={s: stage_state(s, session) for s in stages},
    )


def products(path, session):
    """Files of a finished run: the figures, the executed notebook and its HTML."""
    folder, name = session.store.own / "executed", Path(path).stem
    figures = [
        session.store.figures / f"{figure}{ending}"
        for figure in described(path)[1]
        for ending in ([""] if Path(figure).suffix else [".png", ".pdf"])
    ]
    return figures, [folder / f"{name}.ipynb", folder / f"{name}.html"]


def stamp_path(path, session):
    """Where a finished run notes what it depended on."""
    return session.store.own / "executed" / f"{Path(path).stem}.json"


def digests(files):
    """{name: hash of the content}."""
    return {f.name: hashlib.sha256(f.read_bytes()).hexdigest()[:16] for f in files}


def up_to_date(path, session):
    """True if the last run finished, nothing that it depends on has changed and its figures are as it left them."""
    try:
        stamp = json.loads(stamp_path(path, session).read_text())
    except (OSError, ValueError):
        return False
    figures, executed = products(path, session)
    exist = all(f.exists() for f in figures + executed)
    return (
        exist
        and stamp.get("fingerprint") == notebook_fingerprint(path, session)
        and stamp.get("figures") == digests(figures)
    )


def check_parameters(path, parameters):
    """Raise ValueError for a parameter that the notebook's `parameters` cell lacks (papermill would only warn)."""
    from papermill import inspect_notebook

    known = list(inspect_notebook(str(path)))
    for name in parameters:
        if name not in known:
            raise ValueError(
                f"{Path(path).name} has no parameter {name!r}: its cell tagged `parameters` "
                f"has {', '.join(known) or 'none'}."
            )


def explain(error):
    """The cell's error in a few lines: which cell, its error, and the innermost line of its code."""
    if not hasattr(error, "ename"):
        return f"{type(error).__name__}: {error}"
    lines = [f"cell [{error.exec_count}]: {error.ename}: {error.evalue}".rstrip()]
    return "\n".join(lines + [f"    {line}" for line in error.source.strip().splitlines()[:5]])


def run_cells(path, output, parameters):
    """Run all cells into `output`, which is kept, annotated, as NAME.failed.ipynb if one of them fails."""
    import papermill

    running = output.with_name(f".{output.stem}.running.ipynb")
    failed = output.with_name(f"{output.stem}.failed.ipynb")
    failed.unlink(missing_ok=True)
    try:
        papermill.execute_notebook(
            str(path),
            str(running),
            parameters,
            kernel_name="python3",
            cwd=str(Path(path).parent),
            progress_bar=sys.stderr.isatty(),
            start_timeout=300,
            extra_arguments=["--log-level=CRITICAL"],
        )
        os.replace(running, output)
    except Exception as error:
        where = f"\nThe annotated notebook is {failed}." if running.exists() else ""
        raise NotebookError(f"{Path(path).name} stopped in {explain(error)}{where}") from error
    finally:
        if running.exists():
            os.replace(running, failed)


def write_html(executed):
    """The executed notebook as one HTML page beside it."""
    from nbconvert import HTMLExporter

    html, _ = HTMLExporter().from_filename(str(executed))
    atomic_write(executed.with_suffix(".html"), lambda p: p.write_text(html, encoding="utf-8"))


def execute(path, session, **parameters):
    """Run one notebook with the session's preset, seed and device; figures, executed notebook, HTML and stamp remain.

    ValueError before any work for a parameter it does not have; NotebookError if a cell fails or a promised figure is
    not written. Returns seconds. The stamp is made after the run, because the notebook may compute its own stages.
    """
    path, started = Path(path), time.time()
    parameters = {"preset": session.preset.name, "seed": session.seed, "device": str(session.device), **parameters}
    check_parameters(path, parameters)
    session.store.check_writable()
    figures, (executed, _) = products(path, session)
    executed.parent.mkdir(parents=True, exist_ok=True)
    stamp_path(path, session).unlink(missing_ok=True)
    run_cells(path, executed, parameters)
    write_html(executed)
    late = [f.name for f in figures if not f.exists() or f.stat().st_mtime < started - CLOCK_SLACK]
    if late:
        raise NotebookError(f"{path.name} ran, but did not write {', '.join(late)} into {session.store.figures}.")
    seconds = round(time.time() - started, 1)
    write_json(
        stamp_path(path, session),
        {
            "fingerprint": notebook_fingerprint(path, session),
            "seconds": seconds,
            "parameters": parameters,
            "figures": digests(figures),
        },
    )
    return seconds
