"""The pipeline for doit: one task per numbered notebook, in order; the first failure stops the rest.

`python run.py figures` calls it. By hand: `doit preset=smoke`, with `seed=N`, `device=cpu` and `notebooks=FOLDER` as
further variables. Whether a notebook is up to date is decided in cgi_helpers/figures.py, not by doit.
"""

import os
import sys
from pathlib import Path

from doit import get_var
from doit.exceptions import TaskFailed

from cgi_helpers import figures
from cgi_helpers.artifacts import ArtifactError
from cgi_helpers.session import start


def setup():
    """(session, notebooks), or one sentence and exit code 1 before any work."""
    try:
        session = start(get_var("preset", None), int(get_var("seed", "0")), get_var("device", "auto"), progress=False)
        found = figures.notebooks(get_var("notebooks", figures.NOTEBOOKS))
        if not found:
            raise ValueError(f"There is no numbered notebook in {get_var('notebooks', figures.NOTEBOOKS)}.")
        for path in found:
            figures.described(path)
        session.store.check_writable()
        return session, found
    except (ArtifactError, ValueError) as error:
        sys.exit(f"Error: {error}")


SESSION, FOUND = setup()
DOIT_CONFIG = {"dep_file": str(SESSION.store.own / ".doit.db"), "backend": "json", "verbosity": 2}


def run(path):
    """Run one notebook and tell its seconds; the error of a failing one goes to stderr in a few lines."""
    try:
        print(f"   {Path(path).stem}: {figures.execute(path, SESSION):.0f} s", flush=True)
    except (figures.NotebookError, ArtifactError, ValueError, OSError) as error:
        print(f"Error: {error}", file=sys.stderr, flush=True)
        return TaskFailed(str(error), report=False)
    except KeyboardInterrupt:
        return TaskFailed("interrupted", report=False)


def task_notebook():
    """One task per notebook, each after the one before it."""
    for i, path in enumerate(FOUND):
        yield {"name": path.stem,
               "title": lambda task, i=i: f"[{i + 1}/{len(FOUND)}] {task.name.partition(':')[2]}",
               "actions": [(run, [path])],
               "uptodate": [lambda task, values, path=path: figures.up_to_date(path, SESSION)],
               "task_dep": [f"notebook:{FOUND[i - 1].stem}"] if i else []}
