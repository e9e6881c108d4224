"""The pipeline for doit: for every preset and seed its notebooks in order; a failure stops the notebooks behind it.

`python run.py figures` calls it. By hand: `doit preset=smoke`, with `seed=N`, `device=cpu`, `fresh=1` (every stage
again first) and `notebooks=FOLDER` as further variables. Several presets or seeds are separated by commas; they are
jobs of their own, which `doit run -n 4 seed=0,1,2,3` runs side by side, with device=auto each on the next GPU. Whether
a notebook is up to date is decided in cgi_helpers/figures.py, not by doit.
"""

import itertools
import sys

import torch
from doit import get_var
from doit.exceptions import TaskFailed

from cgi_helpers.pipeline import figures
from cgi_helpers.pipeline.artifacts import ArtifactError
from cgi_helpers.pipeline.session import start

from run import call


def listed(name, default):
    """The values of a variable, separated by commas."""
    return [value.strip() for value in str(get_var(name, default)).split(",")]


def device_of(job):
    """The device of the job of this number: the jobs take the GPUs in turn."""
    device = get_var("device", "auto")
    return f"cuda:{job % torch.cuda.device_count()}" if device == "auto" and torch.cuda.device_count() > 1 else device


def setup():
    """(sessions, notebooks), or one sentence and exit code 1 before any work."""
    try:
        jobs = list(itertools.product(listed("preset", ""), listed("seed", "0")))
        for _, seed in jobs:
            if not seed.isdecimal():
                raise ValueError(
                    f"A seed must be a whole number >= 0 but is {seed!r}: several are written as seed=0,1,2."
                )
        sessions = [
            start(preset or None, int(seed), device_of(i), progress=False) for i, (preset, seed) in enumerate(jobs)
        ]
        folders = [session.store.own.name for session in sessions]
        if len(set(folders)) < len(folders):
            raise ValueError(
                f"Each preset and seed can be asked for once, not {', '.join(folders)}: remove the repeated ones."
            )
        found = figures.notebooks(get_var("notebooks", figures.NOTEBOOKS))
        if not found:
            raise ValueError(f"There is no numbered notebook in {get_var('notebooks', figures.NOTEBOOKS)}.")
        for path in found:
            for session in sessions:
                figures.described(path, session.preset)
        for session in sessions:
            session.store.check_writable()
        return sessions, found
    except (ArtifactError, ValueError) as error:
        sys.exit(f"Error: {error}")


SESSIONS, FOUND = setup()
DOIT_CONFIG = {"dep_file": str(SESSIONS[0].store.own / ".doit.db"), "backend": "json", "verbosity": 2}


def prefix(session):
    """What tells the lines of several jobs apart."""
    return f"{session.store.own.name} " if len(SESSIONS) > 1 else ""


def compute(stage, session):
    """Run one stage anew in a process of its own; it tells its own errors."""
    code = call(
        sys.executable,
        "-m",
        "cgi_helpers",
        stage,
        "--preset",
        session.preset.name,
        "--seed",
        session.seed,
        "--device",
        session.device,
        "--fresh",
    )
    return None if code == 0 else TaskFailed(f"stage {stage} ended with {code}", report=False)


def run(path, session):
    """Run one notebook and tell its seconds; the error of a failing one goes to stderr in a few lines."""
    try:
        print(f"   {prefix(session)}{path.stem}: {figures.execute(path, session):.0f} s", flush=True)
    except (figures.NotebookError, ArtifactError, ValueError, OSError) as error:
        print(f"Error: {prefix(session)}{error}", file=sys.stderr, flush=True)
        return TaskFailed(str(error), report=False)
    except KeyboardInterrupt:
        return TaskFailed("interrupted", report=False)


def chain(session):
    """(name, title, action, arguments, up to date?) of one preset and seed, in order."""
    if get_var("fresh"):
        for stage in session.plan:
            yield stage, f"stage {stage}", compute, stage, lambda task, values: False
    for i, path in enumerate(FOUND, 1):
        yield (
            path.stem,
            f"[{i}/{len(FOUND)}] {path.stem}",
            run,
            path,
            lambda task, values, path=path: figures.up_to_date(path, session),
        )


def task_notebook():
    """One task per notebook of a preset and seed (fresh: per stage, too), each after the one before it."""
    for session in SESSIONS:
        before = []
        for name, title, action, argument, done in chain(session):
            name = f"{session.store.own.name}:{name}"
            yield {
                "name": name,
                "title": lambda task, text=prefix(session) + title: text,
                "actions": [(action, [argument, session])],
                "uptodate": [done],
                "task_dep": before,
            }
            before = [f"notebook:{name}"]
