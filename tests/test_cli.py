"""`python -m cgi_helpers`: results, one sentence for every mistake, and Ctrl-C."""

import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from safetensors.torch import load_file

from cgi_helpers import data
from cgi_helpers.__main__ import main
from cgi_helpers.method import train
from cgi_helpers.pipeline.presets import PRESETS, get_preset

TINY = get_preset(
    "smoke",
    name="tiny",
    size=16,
    networks=dict(z_dim=4, g_width=2, d_width=2, encoder_width=2),
    training=dict(iterations=5, sample_epochs=(0.1,), encoder_iterations=3),
    shapings={"report": {"layer": 1}},
)


@pytest.fixture
def place(root, monkeypatch):
    """Where the results of preset `tiny` lie."""
    monkeypatch.setitem(PRESETS, "tiny", TINY)
    return root / "artifacts" / "tiny"


def run(capsys, *arguments):
    """(exit code, what was written to stderr by the program itself)."""
    code = main([*arguments, "--device", "cpu"] if "--device" not in arguments else list(arguments))
    lines = capsys.readouterr().err.replace("\r", "\n").splitlines()
    return code, [
        line for line in lines if line.strip() and "it/s" not in line and "?it" not in line and "%|" not in line
    ]


def refused(capsys, *arguments):
    """The one sentence of a refused call."""
    code, lines = run(capsys, *arguments)
    assert code == 1 and len(lines) == 1 and lines[0].startswith("Error: ") and lines[0].rstrip().endswith((".", "`"))
    return lines[0]


def tensors(place):
    return {name: load_file(place / f"{name}.safetensors") for name in ("generator", "discriminator", "history")}


def equal(a, b):
    return all(torch.equal(v, b[name][k]) for name, tree in a.items() for k, v in tree.items())


def steps_of(monkeypatch):
    """Which GAN iterations are computed from now on."""
    steps = []
    monkeypatch.setattr(
        train, "batch_index", lambda step, *a, real=train.batch_index: steps.append(step) or real(step, *a)
    )
    return steps


def test_a_stage_computes_once_and_again_when_fresh(place, capsys, monkeypatch):
    steps = steps_of(monkeypatch)
    for arguments, expected in (((), 5), ((), 5), (("--resume",), 5), (("--fresh",), 10)):
        assert run(capsys, "train", "--preset", "tiny", *arguments) == (0, [])
        assert len(steps) == expected
    assert {p.name for p in place.iterdir()} == {
        "generator.safetensors",
        "discriminator.safetensors",
        "history.safetensors",
    }


def test_a_seed_has_its_own_folder(place, capsys):
    for seed in ("0", "5"):
        assert run(capsys, "train", "--preset", "tiny", "--seed", seed)[0] == 0
    assert not equal(tensors(place), tensors(place.with_name("tiny-seed5")))


def test_the_preset_may_come_from_the_environment(place, capsys, monkeypatch):
    monkeypatch.setenv("CGI_PRESET", "tiny")
    assert run(capsys, "train") == (0, []) and (place / "generator.safetensors").exists()
    monkeypatch.setenv("CGI_PRESET", "nonsense")
    assert "Unknown preset 'nonsense': use one of smoke, laptop, " in refused(capsys, "train")


# --- one sentence for every mistake


@pytest.mark.parametrize(
    "arguments, message",
    [
        (
            ("paint", "--preset", "tiny"),
            "Unknown stage 'paint': preset 'tiny' has train, classifier, judge, encoder, fit unet",
        ),
        (("train", "--preset", "huge"), "Unknown preset 'huge': use one of smoke, laptop, "),
        (
            ("train", "--preset", "tiny", "--device", "tpu"),
            "Unknown device 'tpu': use 'auto', 'cpu', 'cuda' or 'cuda:N'",
        ),
        (
            ("encoder", "--preset", "tiny"),
            "Artifact 'generator' of preset 'tiny' does not exist yet: rebuild it with "
            "`python -m cgi_helpers train --preset tiny`",
        ),
        (("evaluate", "--preset", "tiny", "--seed", "3"), "`python -m cgi_helpers train --preset tiny --seed 3`"),
    ],
)
def test_mistakes_in_the_arguments(place, capsys, arguments, message):
    assert message in refused(capsys, *arguments)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ((), "required: STAGE"),
        (("train", "--seed", "x"), "invalid int value: 'x'"),
        (("train", "--resume", "--fresh"), "not allowed with"),
        (("train", "--epochs", "3"), "unrecognized arguments: --epochs 3"),
    ],
)
def test_mistakes_that_argparse_finds(capsys, arguments, message):
    with pytest.raises(SystemExit) as stop:
        main(list(arguments))
    text = capsys.readouterr().err
    assert stop.value.code == 2 and message in text and "Traceback" not in text


def test_damaged_and_foreign_weights(place, capsys):
    assert run(capsys, "train", "--preset", "tiny")[0] == 0
    path = place / "generator.safetensors"
    good = path.read_bytes()
    for content, message in (
        (good[:-1] + bytes([good[-1] ^ 1]), "is damaged (its content does not match its digest)"),
        (good[:-100], "is truncated or not one of our files"),
        (b"", "is truncated or not one of our files"),
        ((place / "discriminator.safetensors").read_bytes(), "(renamed or foreign file)"),
    ):
        path.write_bytes(content)
        sentence = refused(capsys, "encoder", "--preset", "tiny")
        assert message in sentence and "rebuild it with `python -m cgi_helpers train --preset tiny --fresh`" in sentence
    assert run(capsys, "train", "--preset", "tiny", "--fresh") == (0, []) and path.read_bytes()[-100:] == good[-100:]
    assert run(capsys, "encoder", "--preset", "tiny") == (0, [])


def test_weights_of_other_settings(place, capsys, monkeypatch):
    assert run(capsys, "train", "--preset", "tiny")[0] == 0
    monkeypatch.setitem(PRESETS, "tiny", get_preset(TINY, training={"lr": 0.01}))
    assert "made with other settings, seed or inputs" in refused(capsys, "encoder", "--preset", "tiny")
    assert run(capsys, "train", "--preset", "tiny") == (0, [])  # the stage itself makes them again, without --fresh
    assert run(capsys, "encoder", "--preset", "tiny") == (0, [])


def test_an_unwritable_folder(place, capsys, monkeypatch):
    steps = steps_of(monkeypatch)
    place.parent.write_text("a file where the folder should be")
    assert "Cannot write" in refused(capsys, "train", "--preset", "tiny")
    assert not steps
    place.parent.unlink()

    def refuse(*paths):
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", refuse)
        said = refused(capsys, "train", "--preset", "tiny")
    assert (
        "(Permission denied): make the folder writable, free disk space, "
        "or name another folder by the environment variable CGI_ROOT." in said
    )
    assert not steps and list(place.iterdir()) == []


def test_missing_and_damaged_data(place, capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("FASHION_MNIST_DIR", str(tmp_path / "nowhere"))
    assert "FASHION_MNIST_DIR points to" in refused(capsys, "train", "--preset", "tiny")
    copy = tmp_path / "copy"
    copy.mkdir()
    monkeypatch.setenv("FASHION_MNIST_DIR", str(copy))
    assert "train-images-idx3-ubyte is missing" in refused(capsys, "train", "--preset", "tiny")
    (copy / "train-images-idx3-ubyte").write_bytes(b"half")
    assert "is truncated or not an idx file" in refused(capsys, "train", "--preset", "tiny")
    (copy / "train-images-idx3-ubyte").unlink()
    (copy / "train-images-idx3-ubyte").mkdir()  # any other trouble with a file
    assert "Is a directory" in refused_any(capsys, "train", "--preset", "tiny")


def refused_any(capsys, *arguments):
    """As `refused`, for sentences of the operating system, which end without a full stop."""
    code, lines = run(capsys, *arguments)
    assert code == 1 and len(lines) == 1 and lines[0].startswith("Error: ")
    return lines[0]


@pytest.mark.parametrize(
    "change, stage, message",
    [
        (dict(mask="hexagon"), "encode report", "Unknown mask 'hexagon'"),
        (dict(networks=dict(prior="gauss")), "train", "Unknown latent prior 'gauss'"),
        (dict(size=28), "train", "Image size must be 8, 16, 32"),
        (dict(dataset="mnists"), "train", "Unknown data set 'mnists'"),
        (dict(window=6), "encode report", "window must be an odd number"),
    ],
)
def test_bad_fields_of_a_preset(place, capsys, monkeypatch, change, stage, message):
    if stage != "train":
        assert run(capsys, "train", "--preset", "tiny")[0] == 0
    monkeypatch.setitem(PRESETS, "tiny", get_preset(TINY, **change))
    assert message in refused(capsys, *stage.split(), "--preset", "tiny")


# --- Ctrl-C


def test_ctrl_c_saves_and_the_same_command_goes_on(place, capsys, monkeypatch):
    assert run(capsys, "train", "--preset", "tiny", "--seed", "0")[0] == 0
    whole = tensors(place)
    for path in place.iterdir():
        path.unlink()
    with monkeypatch.context() as patch:
        calls = []

        def loss(*args, real=train.generator_loss):
            calls.append(1)
            if len(calls) == 3:
                signal.raise_signal(signal.SIGINT)
            return real(*args)

        patch.setattr(train, "generator_loss", loss)
        code, lines = run(capsys, "train", "--preset", "tiny")
    assert code == 130 and lines == ["Interrupted: run the same command again to go on from the last checkpoint."]
    assert [p.name for p in place.iterdir()] == ["train.partial.safetensors"]
    steps = steps_of(monkeypatch)
    assert run(capsys, "train", "--preset", "tiny", "--resume") == (0, []) and steps == [3, 4]
    assert equal(whole, tensors(place)) and len(list(place.iterdir())) == 3


@pytest.mark.skipif(os.name != "posix", reason="sends a signal as a terminal does")
def test_ctrl_c_in_a_real_process(tmp_path):
    """Sent twice, as a terminal and a parent process may do; no traceback, a checkpoint, and the right exit code."""
    child = subprocess.Popen(
        [sys.executable, "-m", "cgi_helpers", "train", "--preset", "smoke", "--device", "cpu"],
        cwd=data.ROOT,
        env={**os.environ, "CGI_ROOT": str(tmp_path), "OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
    )
    heard, deadline = b"", time.time() + 600
    while b"/64 [" not in heard.replace(b" 0/64 [", b"") and time.time() < deadline:
        byte = child.stderr.read(1)
        assert byte, heard.decode()  # the child ended before it trained
        heard += byte
    child.send_signal(signal.SIGINT)
    child.send_signal(signal.SIGINT)
    heard += child.communicate(timeout=600)[1]
    assert child.returncode == 130 and b"Traceback" not in heard
    assert (
        heard.decode().rstrip().endswith("Interrupted: run the same command again to go on from the last checkpoint.")
    )
    assert [p.name for p in (tmp_path / "artifacts" / "smoke").iterdir()] == ["train.partial.safetensors"]
