"""run.py against a fake installer in a copy of the repository's root: what it does, each sentence that it can say."""

import ast
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FAKE_UV = """import os, pathlib, sys
args = sys.argv[1:]
with open({log!r}, "a") as log:
    log.write(" ".join(args[:2]) + "\\n")
if args[0] == "venv":
    folder = pathlib.Path(args[-1], "bin")
    folder.mkdir(parents=True)
    (folder / "python").symlink_to(args[args.index("--python") + 1])
if args[0] == "pip" and os.environ.get("FAKE_SAYS"):
    print(os.environ["FAKE_SAYS"], file=sys.stderr)
    sys.exit(2)
"""
posix = pytest.mark.skipif(os.name == "nt", reason="the fake installer is a script with a #! line")


@pytest.fixture
def clone(tmp_path):
    """A folder with run.py, what it reads, two empty notebooks, and benchmarks/run.py as the job to do."""
    for name in (
        "run.py",
        "pyproject.toml",
        "requirements.lock",
        "cgi_helpers/__init__.py",
        "cgi_helpers/pipeline/presets.py",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    for name in ("benchmarks/run.py", "notebooks/02_b.ipynb", "notebooks/01_a.ipynb", "notebooks/draft.ipynb"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("print('benched')")
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "uv.py").write_text(FAKE_UV.format(log=str(tmp_path / "log")))
    # a #! line takes no path with spaces
    (tools / "uv").write_text(f"#!/bin/sh\nexec '{sys.executable}' '{tools / 'uv.py'}' \"$@\"\n")
    (tools / "uv").chmod(0o755)
    return tmp_path


def run(clone, *arguments, says="", **more):
    """Run the copy with only the fake uv on PATH."""
    return subprocess.run(
        [sys.executable, clone / "run.py", *arguments],
        capture_output=True,
        text=True,
        timeout=600,
        env={**os.environ, "PATH": str(clone / "tools"), "FAKE_SAYS": says, **more},
    )


def log(clone):
    """What the fake installer was asked since the last look, without version questions."""
    path = clone / "log"
    lines = [line for line in path.read_text().splitlines() if line != "--version"] if path.exists() else []
    path.unlink(missing_ok=True)
    return [line.split()[0] for line in lines]


@pytest.fixture
def module(clone, monkeypatch):
    """run.py of the copy, imported; it may put its own folder first on sys.path."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    spec = importlib.util.spec_from_file_location("run_copy", clone / "run.py")
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


def one_sentence(result):
    """The only line on stderr of a refused command."""
    assert result.returncode == 1
    (line,) = result.stderr.splitlines()
    assert line.startswith("Error: ") and line.endswith((".", "`.", ").")) and "Traceback" not in result.stdout
    return line


@posix
def test_installs_once_and_again_only_when_pyproject_or_lock_change(clone):
    first = run(clone, "bench")
    assert (first.returncode, first.stdout.splitlines()[-1], log(clone)) == (0, "benched", ["venv", "pip"])
    assert run(clone, "bench").returncode == 0 and log(clone) == []
    for name in ("pyproject.toml", "requirements.lock"):
        with open(clone / name, "a") as f:
            f.write("\n# changed\n")
        assert run(clone, "bench").returncode == 0 and log(clone) == ["pip"]
    assert log(clone) == []


@posix
def test_half_an_installation_is_never_reused(clone):
    one_sentence(run(clone, "bench", says="error: killed"))
    junk = clone / ".venv" / "half-written"
    junk.write_text("")
    log(clone)
    assert run(clone, "bench").returncode == 0 and log(clone) == ["venv", "pip"] and not junk.exists()
    with open(clone / "pyproject.toml", "a") as f:
        f.write("\n")
    one_sentence(run(clone, "bench", says="error: killed"))  # fails while completing a good one
    log(clone)
    assert run(clone, "bench").returncode == 0 and log(clone) == ["venv", "pip"]


@posix
def test_a_venv_whose_python_is_gone_or_that_moved_is_not_used(clone, tmp_path_factory):
    run(clone, "bench")
    (clone / ".venv" / "bin" / "python").unlink()
    log(clone)
    assert run(clone, "bench").returncode == 0 and log(clone) == ["venv", "pip"]
    moved = tmp_path_factory.mktemp("elsewhere") / "clone"
    shutil.copytree(clone, moved, symlinks=True)
    assert run(moved, "bench").returncode == 0 and log(clone) == ["pip"]  # the fake writes into the first folder


def test_a_full_disk_is_told_even_if_the_installer_does_not(module, monkeypatch):
    usage = module.shutil.disk_usage(ROOT)
    monkeypatch.setattr(module.shutil, "disk_usage", lambda path: usage._replace(free=1000))
    said = ["Error: ensurepip returned non-zero exit status 1."], ["python", "-m", "venv"]
    assert "disk is full" in module.explain(*said)
    monkeypatch.setattr(module.shutil, "disk_usage", lambda path: usage._replace(free=10**12))
    assert "ensurepip returned" in module.explain(*said)


@posix
@pytest.mark.parametrize(
    "says, sentence",
    [
        ("error: failed to write: No space left on device (os error 28)", "disk is full"),
        ("ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device", "disk is full"),
        ("error: Request failed after 3 retries\n  Caused by: Failed to fetch: `somewhere`", "cannot be reached"),
        ("error: Could not connect\n  Caused by: dns error", "cannot be reached"),
        (
            "WARNING: Retrying: NewConnectionError: [Errno -3] Temporary failure in name resolution\n"
            "ERROR: No matching distribution found for torch",
            "cannot be reached",
        ),
        ("error: no solution\nhint: the network was disabled", "cannot be reached"),
        ("error: unexpected argument '--torch-backend' found", "This uv is too old"),
        ("error: failed to create directory `x`: Read-only file system (os error 30)", "cannot be written"),
        ("Resolved 3 packages\nerror: torch has no wheel for this platform\nhint: another", "torch has no wheel"),
    ],
)
def test_a_failing_installer_is_one_sentence(clone, says, sentence):
    assert sentence in one_sentence(run(clone, "bench", says=says))
    assert not (clone / ".venv" / "installed-by-run.txt").exists()


def test_an_old_python_is_one_sentence(module, capsys, monkeypatch):
    ast.parse((ROOT / "run.py").read_text(), feature_version=(3, 6))  # or an old Python would show a SyntaxError
    assert module.version_problem((3, 11, 0)) is None and module.version_problem((3, 14, 0)) is None
    sentence = module.version_problem((3, 10, 13))
    assert "3.11 or newer" in sentence and "this is 3.10" in sentence
    monkeypatch.setattr(module, "version_problem", lambda: sentence)
    assert module.main(["test"]) == 1 and capsys.readouterr().err == f"Error: {sentence}\n"


@pytest.mark.parametrize("missing", ["venv", "ensurepip"])
def test_missing_venv_or_ensurepip_is_one_sentence(module, capsys, monkeypatch, missing):
    monkeypatch.setattr(module.shutil, "which", lambda name: None)
    monkeypatch.setitem(sys.modules, missing, None)
    assert module.main(["bench"]) == 1
    assert "lacks venv or ensurepip" in capsys.readouterr().err and not module.VENV.exists()


def test_without_uv_the_module_venv_and_pip_are_used(module, monkeypatch):
    commands = []
    monkeypatch.setattr(module.shutil, "which", lambda name: None)
    monkeypatch.delenv("UV_TORCH_BACKEND", raising=False)

    def step(command):
        commands.append([str(c) for c in command])
        module.VENV.mkdir(exist_ok=True)

    monkeypatch.setattr(module, "install_step", step)
    module.ensure_venv()
    base, python, what = module.base_python(), str(module.venv_python()), ["-c", str(module.LOCK), "-e", ".[lab,test]"]
    assert commands == [[base, "-m", "venv", str(module.VENV)], [python, "-m", "pip", "install", *what]]
    # a chosen build of torch: by a uv that pip installs
    monkeypatch.setenv("UV_TORCH_BACKEND", "auto")
    module.STAMP.unlink()
    commands.clear()
    module.ensure_venv()
    uv = str(module.venv_python().with_name("uv"))
    assert commands == [
        [base, "-m", "venv", str(module.VENV)],
        [python, "-m", "pip", "install", "uv"],
        [uv, "pip", "install", "--python", python, "--torch-backend", "auto", *what],
    ]


@posix
@pytest.mark.parametrize(
    "options, more, chosen",
    [
        ([], {}, None),
        (["--cpu"], {}, "cpu"),
        ([], {"UV_TORCH_BACKEND": "auto"}, "auto"),
        (["--cpu"], {"UV_TORCH_BACKEND": "cu128"}, "cpu"),
    ],
)
def test_the_small_installation_is_offered_before_the_large_one(clone, monkeypatch, options, more, chosen):
    monkeypatch.delenv("UV_TORCH_BACKEND", raising=False)
    fake = clone / "tools" / "uv.py"
    fake.write_text(fake.read_text().replace("args[:2]", "args"))
    result = run(clone, *options, "bench", **more)
    assert result.returncode == 0 and result.stdout.splitlines()[-1] == "benched"
    asked = (clone / "log").read_text()
    assert (f"--torch-backend {chosen} " in asked) if chosen else "--torch-backend" not in asked
    said = "--cpu before the command" in result.stdout and "GB to download" in result.stdout
    assert said == (chosen is None and sys.platform == "linux")


@posix
def test_a_uv_that_does_not_start_is_not_used(module, clone, monkeypatch):
    (clone / "tools" / "uv").write_text("#!/no/such/interpreter\n")
    monkeypatch.setenv("PATH", str(clone / "tools"))
    tools = []
    monkeypatch.setattr(module, "make_venv", tools.append)
    monkeypatch.setattr(module, "install_step", lambda c: module.VENV.mkdir(exist_ok=True))
    module.ensure_venv()
    assert tools == [None]


@pytest.mark.parametrize(
    "arguments, sentence",
    [
        (["figures", "--preset", "lptop"], "Unknown preset 'lptop': use one of smoke, laptop, "),
        (["figures", "--preset", "folder:/nowhere"], "nowhere is no folder: name one with PNG, JPEG or WebP files."),
        (["figures", "--preset", "smoke,lptop"], "Unknown preset 'lptop': use one of smoke, laptop, "),
        (["figures", "--jobs", "0"], "The number of jobs must be at least 1 but is 0."),
        (["figure"], "run.py figures | test | lab | bench"),
        ([], "run.py figures | test | lab | bench"),
    ],
)
def test_bad_commands_are_refused_before_any_work(clone, arguments, sentence):
    assert sentence in one_sentence(run(clone, *arguments))
    assert not (clone / ".venv").exists() and log(clone) == []


def test_no_notebooks_is_a_failure(clone, module, monkeypatch, capsys):
    shutil.rmtree(clone / "notebooks")
    monkeypatch.setattr(module, "ensure_venv", lambda: "python")
    monkeypatch.setattr(module, "call", lambda *c, **e: 0)
    for command in ("test", "figures", "lab"):
        assert module.main([command]) == 1 and "no numbered notebook" in capsys.readouterr().err


@pytest.fixture
def calls(module, monkeypatch):
    """Record what would be run; `calls.codes` are the exit codes to come."""

    class Calls(list):
        codes = []

    record = Calls()
    monkeypatch.setattr(module, "ensure_venv", lambda: "python")

    def call(*command, **env):
        record.append(([str(c) for c in command], env))
        return record.codes.pop(0) if record.codes else 0

    monkeypatch.setattr(module, "call", call)
    return record


@pytest.mark.parametrize("codes, result", [([0, 0], 0), ([1, 0], 1), ([0, 1], 1)])
def test_test_runs_all_notebooks_in_order_beside_pytest_and_elsewhere(module, monkeypatch, capsys, codes, result):
    begun, ended = [], []

    def start(*command, out=None, **env):
        begun.append(([str(c) for c in command], env, out))
        if out:
            out.write("all cells passed")
        return len(begun) - 1

    def finish(child):
        ended.append(child)
        return codes[1 - child]

    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(module, "ensure_venv", lambda: "python")
    monkeypatch.setattr(module, "cores", lambda: 3)
    monkeypatch.setattr(module, "start", start)
    monkeypatch.setattr(module, "finish", finish)
    assert module.main(["test", "-k", "masks"]) == result
    (cells, env_cells, out), (package, env, terminal) = begun
    assert package == ["python", "-m", "pytest", "-n", "3", "--dist", "loadscope", "-k", "masks"]
    assert {"--nbval-lax", "--nbval-current-env"} <= set(cells) and any("cell-timeout" in c for c in cells)
    assert [Path(c).name for c in cells if c.endswith(".ipynb")] == ["01_a.ipynb", "02_b.ipynb"]
    assert env["CGI_PRESET"] == env_cells["CGI_PRESET"] == "smoke" and env["CGI_ROOT"] != env_cells["CGI_ROOT"]
    assert env["OMP_NUM_THREADS"] == env_cells["OMP_NUM_THREADS"] == "1" and (
        env["CGI_SYNC"],
        env_cells["CGI_SYNC"],
    ) == ("0", "1")
    assert not Path(env["CGI_ROOT"]).is_relative_to(module.ROOT) and not Path(env["CGI_ROOT"]).exists()
    assert ended == [1, 0] and out and terminal is None and "all cells passed" in capsys.readouterr().out
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    begun.clear()
    module.main(["test"])
    assert all(env["OMP_NUM_THREADS"] == "4" for _, env, _ in begun)


def test_figures_hands_everything_to_doit(module, calls, monkeypatch):
    monkeypatch.delenv("CGI_PRESET", raising=False)
    assert module.main(["figures", "--seed", "3", "--device", "cpu"]) == 0
    ((command, _),) = calls
    assert command[:4] == ["python", "-m", "doit", "run"] and command[-3:] == ["preset=laptop", "seed=3", "device=cpu"]
    assert "--always-execute" not in command


def test_fresh_asks_for_every_stage_and_every_notebook(module, calls):
    assert module.main(["figures", "--preset", "smoke", "--fresh"]) == 0
    ((command, _),) = calls
    assert "--always-execute" in command and command[-1] == "fresh=1" and not {"-n", "--continue"} & set(command)


def test_several_seeds_and_presets_are_jobs_side_by_side(module, calls, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(module.os, "cpu_count", lambda: 8)
    assert module.main(["figures", "--preset", "smoke,laptop", "--seed", "0,1", "--jobs", "4"]) == 0
    ((command, env),) = calls
    assert command[command.index("-n") + 1] == "4" and "--continue" in command
    assert {"preset=smoke,laptop", "seed=0,1"} <= set(command) and env["OMP_NUM_THREADS"] == "2"
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert module.main(["figures", "--jobs", "2"]) == 0 and "OMP_NUM_THREADS" not in calls[-1][1]


def test_lab_opens_the_first_notebook(module, calls):
    assert module.main(["lab", "--no-browser"]) == 0
    ((command, _),) = calls
    assert command == ["python", "-m", "jupyterlab", str(module.ROOT / "notebooks" / "01_a.ipynb"), "--no-browser"]


@posix
def test_ctrl_c_waits_until_the_job_has_saved(clone):
    (clone / "benchmarks" / "run.py").write_text(
        "import pathlib, time\ntry:\n    pathlib.Path('started').touch()\n    time.sleep(20)\n"
        "except KeyboardInterrupt:\n    time.sleep(0.6)\n    pathlib.Path('saved').touch()\n"
    )
    run(clone, "lab", says="")  # makes .venv; JupyterLab is not in it
    with open(clone / "errors", "w") as errors:
        child = subprocess.Popen(
            [sys.executable, clone / "run.py", "bench"],
            stderr=errors,
            start_new_session=True,
            # a shell's background job ignores Ctrl-C, and children would inherit that
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
    for _ in range(2000):
        if (clone / "started").exists():
            break
        time.sleep(0.05)
    os.killpg(child.pid, signal.SIGINT)
    assert child.wait(timeout=600) == 130 and (clone / "saved").exists()
    assert "Interrupted" in (clone / "errors").read_text()


@posix
@pytest.mark.parametrize(
    "installed, expected", [(True, []), (False, ["update", "install -y --no-install-recommends chromium"])]
)
def test_ci_installs_a_browser_at_most_and_runs_the_tests(tmp_path, installed, expected):
    ci = tmp_path / "with a space" / ".ci"
    ci.mkdir(parents=True)
    shutil.copy(ROOT / ".ci" / "run", ci / "run")
    note = f"echo \"$@\" >> '{tmp_path}/log'"
    tools = tmp_path / "tools"
    tools.mkdir()
    commands = {"apt-get": note, "python3": note, "chromium" if installed else "other": ""}
    for path, body in {
        **{tools / name: body for name, body in commands.items()},
        ci / "lowest": "echo lowest >> " + f"'{tmp_path}/log'",
    }.items():
        path.write_text(f"#!/bin/sh\n{body}\n")
        path.chmod(0o755)
    for name in ("bash", "sh", "dirname", "env"):
        (tools / name).symlink_to(shutil.which(name))
    subprocess.run(
        [ci / "run"], check=True, stdin=subprocess.DEVNULL, timeout=600, env={**os.environ, "PATH": str(tools)}
    )
    assert (tmp_path / "log").read_text().splitlines() == [*expected, "run.py test", "lowest"]
