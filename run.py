#!/usr/bin/env python3
"""python3 run.py COMMAND: makes .venv, installs what is needed (once), and does the job.

  figures [--preset laptop|mnist|avatars|...] [--fresh] [--device D] [--seed N] [--jobs J]
                runs the notebooks that are not up to date and writes figures/<preset>/; --fresh trains again first;
                --seed 0,1,2 (or --preset P,Q) are independent jobs, of which J run at a time
  test [...]    pytest over tests/ (arguments are passed on), then every notebook at preset smoke; needs no network
  lab [...]     JupyterLab, opened on the live lab (arguments are passed on)
  bench [...]   the measured speeds of benchmarks/run.py (arguments are passed on)

`run.py --cpu COMMAND` installs a build of torch without CUDA: a sixth of the download.
UV_TORCH_BACKEND=cpu|auto|cu128|... says the same to uv.
"""

import argparse
import collections
import hashlib
import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
STAMP = VENV / "installed-by-run.txt"  # written last: a .venv without it is never used
LOCK = ROOT / "requirements.lock"
WHAT = ["-c", str(LOCK), "-e", ".[lab,test]"]
LARGE = """On Linux torch brings NVIDIA's CUDA libraries along: 3 GB to download, 6 GB on disk.
They serve an NVIDIA GPU only; without one stop here (Ctrl-C) and write --cpu before the command:
0.5 GB to download, 2 GB on disk."""
CELL_SECONDS = 300  # a notebook cell at preset smoke may take this long under `test`
THREADS = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}  # several processes share the cores under `test`
PROGRESS = ("Resolved", "Collecting", "Downloading", "Prepared", "Installing", "Installed", "Successfully")
CAUSES = (  # what an installer says -> what it means
    (
        r"No space left|os error 28|Errno 28|[Qq]uota exceeded|not enough space",
        "The disk is full: .venv and the downloads need about 10 GB, with --cpu before the command about 3 GB.",
    ),
    (
        r"Permission denied|Read-only file system|os error (13|30)|Errno (13|30)",
        f"{ROOT} or the installer's cache cannot be written: make them writable.",
    ),
    (
        r"unexpected argument '--torch-backend'",
        "This uv is too old to choose a build of torch: update it, then run the command again.",
    ),
    (
        r"dns error|name resolution|getaddrinfo|Name or service not known|Failed to establish|Failed to fetch"
        r"|Connection ?(refused|reset|Error)|[Tt]imed out|error sending request|unreachable|tcp connect"
        r"|[Cc]ould not connect|from versions: none|network was disabled",
        "The package registry cannot be reached: connect to the network or set the proxy, then run the command again.",
    ),
)


class Trouble(Exception):
    """Something that the user can mend; printed as one sentence."""


def version_problem(version=sys.version_info):
    """A sentence if this Python is too old, else None."""
    if tuple(version[:2]) >= (3, 11):
        return None
    return "Python 3.11 or newer is needed, this is {}.{}: run it as `python3.11 run.py ...`.".format(*version[:2])


def base_python():
    """The interpreter to build on: this one, or the one behind the environment that it runs in."""
    return getattr(sys, "_base_executable", None) or sys.executable


def venv_python():
    """Path of the interpreter in .venv."""
    return VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def works(*command):
    """True if the command starts and exits with 0."""
    try:
        return subprocess.run([str(c) for c in command], capture_output=True).returncode == 0
    except OSError:
        return False


def digest():
    """What an installation depends on: the two files and the place (an editable install points at it)."""
    parts = (ROOT / "pyproject.toml").read_bytes(), LOCK.read_bytes(), str(ROOT).encode()
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


def installed():
    """The digest that the last finished installation left, or None."""
    return STAMP.read_text() if STAMP.is_file() and venv_python().exists() else None


def explain(lines, command):
    """One sentence for an installer that failed."""
    full = shutil.disk_usage(ROOT).free < 50e6  # bytes; `python -m venv` does not say why it failed
    text = "\n".join(lines + ["No space left"] * full)
    for pattern, sentence in CAUSES:
        if re.search(pattern, text):
            return sentence
    errors = [line for line in lines if re.match(r"(?i)\s*(error|×|fatal)", line)] or lines or ["it said nothing"]
    return f"Installing failed ({errors[-1].strip()}); to see everything, run `{shlex.join(command)}`."


def install_step(command):
    """Run an installer, show its progress lines; Trouble with one sentence if it fails."""
    command = [str(c) for c in command]
    child = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    )
    lines = collections.deque(maxlen=200)
    with child:
        for line in child.stdout:
            lines.append(line.rstrip())
            if line.startswith(PROGRESS):
                print(f"  {line.rstrip()[:110]}", flush=True)
    if child.returncode:
        raise Trouble(explain(list(lines), command))


def make_venv(uv):
    """A new, empty .venv in the place of whatever is there."""
    if uv is None and not (importlib.util.find_spec("venv") and importlib.util.find_spec("ensurepip")):
        raise Trouble(
            f"{base_python()} lacks venv or ensurepip: install them (Debian: `apt-get install python3-venv`)"
            " or install uv."
        )
    if VENV.is_symlink() or VENV.is_file():
        VENV.unlink()
    elif VENV.exists():
        print("  .venv is not a finished installation of run.py: making it anew", flush=True)
        shutil.rmtree(VENV)
    install_step([uv, "venv", "--python", base_python(), VENV] if uv else [base_python(), "-m", "venv", VENV])


def ensure_venv():
    """The interpreter of a .venv that fits pyproject.toml and the lock; made or completed only when it does not."""
    wanted, python, started = digest(), venv_python(), time.time()
    if installed() == wanted:
        return python
    uv, backend = shutil.which("uv"), os.environ.get("UV_TORCH_BACKEND")
    uv = uv if uv and works(uv, "--version") else None
    print(f"Installing into .venv with {'uv' if uv else 'pip'}: once, some minutes.", flush=True)
    if backend is None and sys.platform == "linux":
        print(LARGE, flush=True)
    try:
        if installed() is None or not (uv or works(python, "-m", "pip", "--version")):
            make_venv(uv)
        STAMP.unlink(missing_ok=True)
        if backend and uv is None:  # pip cannot choose a build of torch without an address; uv knows where they are
            install_step([python, "-m", "pip", "install", "uv"])
            uv = python.with_name("uv.exe" if os.name == "nt" else "uv")
        install = [uv, "pip", "install", "--python", python] if uv else [python, "-m", "pip", "install"]
        install_step(install + ["--torch-backend", backend] * bool(backend) + WHAT)
        STAMP.write_text(wanted)
    except OSError as error:
        raise Trouble(explain([str(error)], [])) from error
    print(f"Installed in {time.time() - started:.0f} s.", flush=True)
    return python


def start(*command, out=None, **env):
    """A child with further environment variables that shares this terminal, or writes into the open file `out`."""
    return subprocess.Popen(
        [str(c) for c in command],
        cwd=ROOT,
        env={**os.environ, **env},
        stdout=out,
        stderr=subprocess.STDOUT if out else None,
    )


def finish(child):
    """Exit code of a child. Ctrl-C reaches it too: it saves its state, so wait for it."""
    interrupted = False
    while True:
        try:
            code = child.wait()
            break
        except KeyboardInterrupt:
            interrupted = True
    if interrupted:
        raise KeyboardInterrupt
    return code


def call(*command, **env):
    """Exit code of a command that shares this terminal."""
    return finish(start(*command, **env))


def notebooks():
    """The numbered notebooks, in order."""
    found = sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))
    if not found:
        raise Trouble(f"There is no numbered notebook in {ROOT / 'notebooks'}.")
    return found


def preset_name(name):
    """The preset's name, `$CGI_PRESET` or laptop if None; Trouble that lists the known ones."""
    sys.path.insert(0, str(ROOT))
    from cgi_helpers.pipeline.presets import get_preset

    name = name or os.environ.get("CGI_PRESET", "")
    try:
        found = get_preset(name or None).name
        return name if name.startswith("folder:") else found  # which no table knows by its name
    except ValueError as error:
        raise Trouble(str(error)) from error


def figures(arguments):
    """The notebooks, with --fresh every stage before them, through doit."""
    parser = argparse.ArgumentParser(prog="run.py figures")
    parser.add_argument("--preset", help="laptop (default), desktop, mnist, ... or folder:PATH; several with commas")
    parser.add_argument("--fresh", action="store_true", help="train and compute every stage again, run every notebook")
    parser.add_argument("--device", default="auto", help="auto (default), cpu, cuda or cuda:N")
    parser.add_argument("--seed", default="0", help="a whole number >= 0; several with commas")
    parser.add_argument("--jobs", type=int, default=1, help="how many presets and seeds are worked on at a time")
    args = parser.parse_args(arguments)
    preset = ",".join(preset_name(name) for name in (args.preset or "").split(","))
    if args.jobs < 1:
        raise Trouble(f"The number of jobs must be at least 1 but is {args.jobs}.")
    several, threads = "," in preset + args.seed, {}
    if args.jobs > 1 and "OMP_NUM_THREADS" not in os.environ:
        threads["OMP_NUM_THREADS"] = str(max(1, (os.cpu_count() or 1) // args.jobs))
    notebooks()
    python = ensure_venv()
    return call(
        python,
        "-m",
        "doit",
        "run",
        "-f",
        ROOT / "dodo.py",
        *["--always-execute"] * args.fresh,
        *["--continue"] * several,
        *["-n", args.jobs] * (args.jobs > 1),
        f"preset={preset}",
        f"seed={args.seed}",
        f"device={args.device}",
        *["fresh=1"] * args.fresh,
        CGI_SYNC="1",
        **threads,
    )


def cores():
    """Number of CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def test(arguments):
    """pytest over tests/ on every core, beside it nbval over all notebooks in order;
    nothing is written into artifacts/ or figures/."""
    paths, python = notebooks(), ensure_venv()
    with tempfile.TemporaryDirectory(prefix="cgi-test-", ignore_cleanup_errors=True) as root:

        def pytest(folder, *more, out=None):
            threads = {name: os.environ.get(name, value) for name, value in THREADS.items()}
            return start(
                python,
                "-m",
                "pytest",
                *more,
                out=out,
                CGI_PRESET="smoke",
                CGI_ROOT=str(Path(root, folder)),
                CGI_SYNC=str(int(folder == "notebooks")),
                **threads,
            )

        said = Path(root, "notebooks.txt")
        with open(said, "w") as out:
            cells = pytest(
                "notebooks",
                "--nbval-lax",
                "--nbval-current-env",
                f"--nbval-cell-timeout={CELL_SECONDS}",
                *paths,
                out=out,
            )
        try:
            package = finish(pytest("tests", "-n", cores(), "--dist", "loadscope", *arguments))
        finally:
            cells = finish(cells)
        print(f"\nThe notebooks at preset smoke, run meanwhile:\n{said.read_text(errors='replace')}", flush=True)
    return package or cells


def lab(arguments):
    """JupyterLab on the first notebook."""
    first = notebooks()[0]
    return call(ensure_venv(), "-m", "jupyterlab", first, *arguments)


def bench(arguments):
    """The benchmarks."""
    script = ROOT / "benchmarks" / "run.py"
    if not script.exists():
        raise Trouble(f"There is no {script}.")
    return call(ensure_venv(), script, *arguments)


COMMANDS = {"figures": figures, "test": test, "lab": lab, "bench": bench}


def main(arguments=None):
    """Exit code of one command; errors that the user can mend become one sentence on stderr."""
    arguments = sys.argv[1:] if arguments is None else arguments
    problem = version_problem()
    try:
        if problem:
            raise Trouble(problem)
        if arguments[:1] == ["--cpu"]:
            os.environ["UV_TORCH_BACKEND"], arguments = "cpu", arguments[1:]
        if arguments[:1] in (["-h"], ["--help"]):
            print(__doc__)
            return 0
        if not arguments or arguments[0] not in COMMANDS:
            raise Trouble(f"Say what to do: run.py {' | '.join(COMMANDS)} (run.py --help explains).")
        return COMMANDS[arguments[0]](arguments[1:])
    except Trouble as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Interrupted: run the same command again to go on.", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
