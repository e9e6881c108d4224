"""Stages under torchrun with 1, 2 and 3 real processes:
the same bytes, work by every process, nothing lost with a killed one."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from cgi_helpers.pipeline import parallel

from test_session import PLAN, content, same

ROOT = Path(__file__).resolve().parents[1]
SHARED = ("encode report", "encode best", "shape report", "shape per_image", "evaluate")
DRIVER = """
import os, signal, sys
from pathlib import Path
from test_session import TINY
from cgi_helpers.method import shape
from cgi_helpers.pipeline import artifacts, parallel, stages
from cgi_helpers.pipeline.presets import get_preset
from cgi_helpers.pipeline.session import Session

tiny = get_preset(TINY, shapings={row: {"micro_batch": 4} for row in TINY.shapings})
rank = parallel.rank()  # 4 + 4 + 2 images of a batch
done, save, refine = [], artifacts.Store.save, shape.refine


def watched_save(store, name, *args, **options):
    if ".parts/" in name:
        if os.environ.get("KILL") == f"{rank}:{len(done)}":
            os.kill(os.getpid(), signal.SIGKILL)
        done.append(name)
    return save(store, name, *args, **options)


def watched_refine(*args, **options):
    if os.environ.get("CTRL_C") == f"{rank}:{len(done)}":
        signal.raise_signal(signal.SIGINT)
    done.append("refined slice")
    return refine(*args, **options)


if os.environ.get("OWN_DISK") == str(rank):
    os.environ["CGI_ROOT"] += "/elsewhere"
artifacts.Store.save, shape.refine = watched_save, watched_refine
with parallel.group():
    for stage in sys.argv[2:]:
        done.clear()
        try:
            stages.run(Session(tiny, progress=False, device=parallel.device("cpu")), stage)
        except artifacts.ArtifactError as error:
            if "OWN_DISK" not in os.environ:
                raise
            print(f"{rank} refused {stage}: {error}", flush=True)
            continue
        Path(sys.argv[1], f"{stage.replace(' ', '_')}-{rank}-of-{parallel.world()}").write_text(str(len(done)))
"""

pytestmark = pytest.mark.slow


def launch(n, *arguments):
    """The command that starts n processes of a script, or of a module after "-m"."""
    return [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(n), *arguments]


def torchrun(folder, n, *stages, **env):
    """Exit code of `stages` run by n processes on the results in `folder`;
    how many pieces each computed lies in `folder`."""
    script = folder / "driver.py"
    script.write_text(DRIVER)
    environment = {k: v for k, v in os.environ.items() if k not in ("OMP_NUM_THREADS", "RANK", "WORLD_SIZE")}
    environment.update(CGI_ROOT=str(folder), PYTHONPATH=f"{ROOT}{os.pathsep}{ROOT / 'tests'}", **env)
    command = launch(n, str(script), str(folder), *stages)
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)


def computed(folder, stage, n):
    return [int((folder / f"{stage.replace(' ', '_')}-{r}-of-{n}").read_text()) for r in range(n)]


def forget(folder, stages):
    for artifact in (a for stage in stages for a in PLAN[stage].writes):
        for path in (folder / "artifacts" / "tiny").glob(f"{artifact}.*s*"):
            path.unlink()


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The whole chain by one process under torchrun."""
    folder = tmp_path_factory.mktemp("alone")
    run = torchrun(folder, 1, *PLAN)
    assert run.returncode == 0, run.stderr[:4000]
    return folder


def results(folder, stages):
    place = folder / "artifacts" / "tiny"
    return {a: content(next(place.glob(f"{a}.*s*"))) for stage in stages for a in PLAN[stage].writes}


def test_three_processes_give_the_same_bytes(alone, tmp_path):
    n = 3
    shutil.copytree(alone, tmp_path, dirs_exist_ok=True)
    forget(tmp_path, SHARED)
    run = torchrun(tmp_path, n, *SHARED)
    assert run.returncode == 0, run.stderr[:4000]
    old, new = results(alone, SHARED), results(tmp_path, SHARED)
    assert [a for a in old if not same(old[a], new[a])] == []
    for stage in SHARED:
        shares, total = computed(tmp_path, stage, n), computed(alone, stage, 1)[0]
        assert sum(shares) == total and max(shares) - min(shares) <= (1 if "shape" not in stage else total // 3), stage
        assert min(shares) > 0, stage  # every process had a part
    assert not list((tmp_path / "artifacts" / "tiny").glob("*.parts")) and not list(
        (tmp_path / "artifacts" / "tiny").glob("*.partial*")
    )


def test_a_killed_process_loses_its_unsaved_piece_only(alone, tmp_path):
    """What is left two processes compute, and every other kind of stage: the same bytes."""
    again = ("encode best", "shape report", "evaluate")
    shutil.copytree(alone, tmp_path, dirs_exist_ok=True)
    forget(tmp_path, again)
    place, total = tmp_path / "artifacts" / "tiny", computed(alone, "encode best", 1)[0]
    assert torchrun(tmp_path, 2, "encode best", KILL="1:1").returncode != 0
    left = sorted(p.name for p in (place / "encode_best.parts").glob("*.safetensors"))
    assert "00001.safetensors" in left and "00003.safetensors" not in left and not list(place.glob("encodings_best.*"))
    run = torchrun(tmp_path, 2, *again)
    assert run.returncode == 0, run.stderr[:4000]
    assert sum(computed(tmp_path, "encode best", 2)) == total - len(left)  # the missing ones only
    assert all(min(computed(tmp_path, stage, 2)) > 0 for stage in again[1:])
    old, new = results(alone, again), results(tmp_path, again)
    assert [a for a in old if not same(old[a], new[a])] == []


def test_ctrl_c_saves_the_shaping_and_another_number_of_processes_goes_on(alone, tmp_path):
    shutil.copytree(alone, tmp_path, dirs_exist_ok=True)
    forget(tmp_path, ["shape report"])
    partial = tmp_path / "artifacts" / "tiny" / "shape_report.partial.safetensors"
    # rank 0 has slices 0, 2 of 3: in its third iteration
    assert torchrun(tmp_path, 2, "shape report", CTRL_C="0:5").returncode != 0
    with safe_open(partial, "pt") as file:
        assert json.loads(file.metadata()["cgi"])["step"] == 3
    run = torchrun(tmp_path, 3, "shape report", CTRL_C="1:2")  # a signal for another process only stops nothing
    assert run.returncode == 0, run.stderr[:4000]
    old, new = results(alone, ["shape report"]), results(tmp_path, ["shape report"])
    assert all(same(old[a], new[a]) for a in old) and not partial.exists()
    assert sum(computed(tmp_path, "shape report", 3)) == computed(alone, "shape report", 1)[0] - 9


def test_processes_that_do_not_share_a_folder_are_told_before_any_work(alone, tmp_path):
    both = ("encode best", "shape report")
    for folder in (tmp_path, tmp_path / "elsewhere"):
        shutil.copytree(alone / "artifacts", folder / "artifacts")
        forget(folder, both)
    run = torchrun(tmp_path, 2, *both, OWN_DISK="1")
    said = [f"{rank} refused {stage}: " for rank in (0, 1) for stage in both]
    assert all(text in run.stdout for text in said), run.stderr[:4000]
    assert run.stdout.count("is not the same folder for all processes: put the project") == len(said)
    assert not list(tmp_path.rglob("*.parts/*")) and not list(tmp_path.rglob("*.partial*"))


def test_an_error_of_every_process_ends_all_with_its_sentence(alone, tmp_path):
    command = launch(2, "-m", "cgi_helpers", "encode", "report", "--preset", "smoke", "--device", "cpu")
    run = subprocess.run(
        command,
        env={**os.environ, "CGI_ROOT": str(tmp_path), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert run.returncode != 0
    assert "Error: Artifact 'generator' of preset 'smoke' does not exist yet" in run.stderr


def test_alone_everything_is_the_plain_loop(monkeypatch):
    assert (parallel.rank(), parallel.world()) == (0, 1)
    with parallel.group():
        parallel.barrier()
    assert parallel.share(lambda i: i * i, [3, 1, 2]) == [9, 1, 4]
    net = torch.nn.Linear(2, 2)
    before = net.weight.clone()
    parallel.agree(net)
    assert torch.equal(net.weight, before) and parallel.device("cpu") == torch.device("cpu")


def test_every_process_gets_the_gpu_of_its_number(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    for name, value in (("RANK", "6"), ("WORLD_SIZE", "8"), ("LOCAL_RANK", "2")):
        monkeypatch.setenv(name, value)
    assert (parallel.rank(), parallel.world()) == (6, 8)
    assert parallel.device("auto") == torch.device("cuda", 2) and parallel.device("cuda:1") == torch.device("cuda", 1)
