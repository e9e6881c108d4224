"""Artifacts: atomic writing, and one clear sentence for everything that is not what it claims to be."""

import json
import os
import pickle
import re
import stat
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file

from cgi_helpers.pipeline import artifacts
from cgi_helpers.pipeline.artifacts import ArtifactError, Store

PACKAGE = Path(artifacts.__file__).parent
TREE = {"a": torch.arange(6.0).view(2, 3), "deep": {"b": {"c": torch.tensor([1, 2])}, "d": torch.zeros(0)}}
COMMAND = "rebuild it with `python -m cgi_helpers train --preset smoke --fresh`"


@pytest.fixture
def store(root):
    return Store("smoke")


def same(a, b):
    a, b = artifacts.flatten(a), artifacts.flatten(b)
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) and a[k].dtype == b[k].dtype for k in a)


def refused(store, name="net", stage="train", print_="p"):
    """The sentence of the refusal: one line, and it names the command that helps."""
    with pytest.raises(ArtifactError) as error:
        store.load(name, stage, print_)
    text = str(error.value)
    assert "\n" not in text and "`python -m cgi_helpers" in text and text.endswith(".")
    return text


# --- hashes and trees


def test_flatten_and_unflatten_are_inverse():
    flat = artifacts.flatten(TREE)
    assert set(flat) == {"a", "deep/b/c", "deep/d"} and same(artifacts.unflatten(flat), TREE)


def test_fingerprint_depends_on_values_not_on_order():
    one = artifacts.fingerprint(stage="x", fields={"a": 1, "b": (0, 0.1)})
    assert one == artifacts.fingerprint(fields={"b": [0, 0.1], "a": 1}, stage="x") and re.fullmatch("[0-9a-f]{16}", one)
    assert one not in [
        artifacts.fingerprint(stage="x", fields={"a": v, "b": w})
        for v, w in ((2, (0, 0.1)), (1, (0, 0.2)), ("1", (0, 0.1)))
    ]


def test_tensor_digest_sees_names_shapes_dtypes_and_every_byte():
    base = {"a": torch.arange(6.0), "b": torch.tensor([1])}
    digest = artifacts.tensor_digest(base)
    assert digest == artifacts.tensor_digest({"b": base["b"], "a": base["a"].clone()})
    strided = torch.arange(12.0)[::2] / 2
    assert artifacts.tensor_digest({**base, "a": strided}) == digest  # content, not layout
    near = base["a"].clone()
    near[5] = torch.nextafter(near[5], torch.tensor(9.0))
    others = [
        {**base, "a": near},
        {**base, "a": base["a"].view(2, 3)},
        {"c": base["a"], "b": base["b"]},
        {"a": base["a"]},
        {**base, "b": torch.tensor([1], dtype=torch.int32)},
        {**base, "a": base["a"].half()},
    ]
    assert len({digest, *map(artifacts.tensor_digest, others)}) == 7


# --- writing


def test_save_and_load_return_the_same_tensors_and_metadata(store):
    meta = store.save("net", TREE, "train", "p", seconds=1.5, versions={"torch": "x"})
    tree, read = store.load("net", "train", "p")
    assert same(tree, TREE) and read == meta
    assert (read["name"], read["stage"], read["fingerprint"], read["preset"], read["seed"], read["seconds"]) == (
        "net",
        "train",
        "p",
        "smoke",
        0,
        1.5,
    )
    assert stat.S_IMODE((store.own / "net.safetensors").stat().st_mode) == 0o644
    assert store.metadata("net") == meta and store.metadata("other") is None


def test_choices_are_readable_json(store):
    store.save("selection", {"stages": {"a": 0.5}, "n": 3}, "tune", "p")
    assert json.loads((store.own / "selection.json").read_text())["content"] == {"stages": {"a": 0.5}, "n": 3}
    tree, meta = store.load("selection", "tune", "p")
    assert tree == {"stages": {"a": 0.5}, "n": 3} and meta == store.metadata("selection")


def test_tensors_of_any_layout_and_device_flags_are_saved(store):
    tree = {
        "last": torch.rand(2, 3, 4, 4).contiguous(memory_format=torch.channels_last),
        "graph": torch.rand(3).requires_grad_() * 2,
        "view": torch.rand(10)[::2],
        "half": torch.rand(3).half(),
    }
    store.save("net", tree, "train", "p")
    assert same(store.load("net", "train", "p")[0], {k: v.detach() for k, v in tree.items()})


def test_a_failing_write_leaves_the_old_file_and_no_debris(tmp_path):
    path = tmp_path / "x.json"
    artifacts.write_json(path, {"old": 1})

    def half(error):
        def write(p):
            p.write_text('{"new')
            raise error

        return write

    with pytest.raises(
        ArtifactError,
        match="Cannot write .*x.json .No space left on device.: make the folder writable or free disk space",
    ):
        artifacts.atomic_write(path, half(OSError(28, "No space left on device")))
    for error in (KeyboardInterrupt(), RuntimeError("bug")):
        with pytest.raises(type(error)):
            artifacts.atomic_write(path, half(error))
    assert json.loads(path.read_text()) == {"old": 1} and [p.name for p in tmp_path.iterdir()] == ["x.json"]


def test_a_failing_save_of_tensors_is_one_sentence_and_keeps_the_old_file(store, monkeypatch):
    """safetensors reports I/O errors as errors of its own kind."""
    store.save("net", TREE, "train", "p")
    monkeypatch.setattr(artifacts.uuid, "uuid4", lambda: SimpleNamespace(hex="0" * 32))
    (store.own / f".net.safetensors.{'0' * 12}.partial").mkdir()  # writing to it fails as on a full disk
    with pytest.raises(ArtifactError, match="Cannot write .*net.safetensors"):
        store.save("net", {"a": torch.ones(1)}, "train", "q")
    assert same(store.load("net", "train", "p")[0], TREE)


def test_a_failing_replace_keeps_the_old_file(store, monkeypatch):
    store.save("net", TREE, "train", "p")

    def refuse(*paths):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(ArtifactError, match="Cannot write .*net.safetensors .Permission denied."):
        store.save("net", {"a": torch.ones(1)}, "train", "q")
    monkeypatch.undo()
    assert same(store.load("net", "train", "p")[0], TREE) and len(list(store.own.iterdir())) == 1


@pytest.mark.parametrize("place", ["artifacts", "artifacts/smoke"])
def test_a_file_where_the_folder_should_be_is_one_sentence(root, place):
    (root / place).parent.mkdir(exist_ok=True)
    (root / place).write_text("not a folder")
    for call in (Store("smoke").check_writable, lambda: Store("smoke").save("net", TREE, "train", "p")):
        with pytest.raises(ArtifactError, match="Cannot write .*: make the folder writable") as error:
            call()
        assert "\n" not in str(error.value)


def test_check_writable_leaves_nothing(store):
    store.check_writable()
    assert list(store.own.iterdir()) == []


# --- where things lie


def test_folders_of_presets_and_seeds(root):
    assert (
        Store("smoke").own == root / "artifacts" / "smoke"
        and Store("smoke", 3).own == root / "artifacts" / "smoke-seed3"
    )
    assert (
        Store("smoke").figures == root / "figures" / "smoke"
        and Store("smoke", root=root / "x").own == root / "x/artifacts/smoke"
    )


def test_own_results_come_before_shipped_ones(store):
    store.save("net", TREE, "train", "p")
    store.shipped.mkdir(parents=True)
    os.rename(store.own / "net.safetensors", store.shipped / "net.safetensors")
    assert same(store.load("net", "train", "p")[0], TREE)
    store.save("net", {"a": torch.ones(1)}, "train", "q")
    assert store.load("net", "train", "q")[0]["a"].shape == (1,)
    assert (store.shipped / "net.safetensors").exists()


# --- reading what is not right


def test_missing(store):
    assert refused(store) == (
        "Artifact 'net' of preset 'smoke' does not exist yet: "
        "rebuild it with `python -m cgi_helpers train --preset smoke`."
    )
    assert refused(Store("smoke", 3)).endswith("`python -m cgi_helpers train --preset smoke --seed 3`.")


@pytest.mark.parametrize("keep", [0, 1, 7, 100, -1, -9])
def test_truncated(store, keep):
    store.save("net", TREE, "train", "p")
    path = store.own / "net.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    assert "is truncated or not one of our files" in refused(store) and COMMAND in refused(store)
    assert store.metadata("net") is None


def test_every_flipped_bit_is_refused_or_harmless(store):
    """In the tensors always; in the header only what carries nothing (a time, a blank) may change."""
    store.save("net", TREE, "train", "p")
    path = store.own / "net.safetensors"
    good = path.read_bytes()
    header = 8 + int.from_bytes(good[:8], "little")
    assert len(good) - header == 6 * 4 + 2 * 8
    for i in [*range(0, header, 5), *range(header, len(good))]:
        path.write_bytes(good[:i] + bytes([good[i] ^ 0x04]) + good[i + 1 :])
        try:
            assert same(store.load("net", "train", "p")[0], TREE) and i < header
        except ArtifactError as error:
            assert "\n" not in str(error) and COMMAND in str(error)
    path.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    assert "is damaged (its content does not match its digest)" in refused(store)


def test_renamed(store):
    store.save("net", TREE, "train", "p")
    store.save("other", TREE, "train", "p")
    os.replace(store.own / "other.safetensors", store.own / "net.safetensors")
    assert "was not written as 'net' by stage 'train' (renamed or foreign file)" in refused(
        store
    ) and COMMAND in refused(store)


def test_of_another_stage(store):
    store.save("net", TREE, "encoder", "p")
    assert "was not written as 'net' by stage 'train'" in refused(store)


@pytest.mark.parametrize(
    "header",
    [
        None,
        {"format": "pt"},
        {"cgi": "[]"},
        {"cgi": "{}"},
        {"cgi": "nonsense"},
        {"cgi": "3"},
        {"cgi": json.dumps({"name": "net", "stage": "train"})},
    ],
)
def test_foreign(store, header):
    store.own.mkdir(parents=True)
    save_file({"a": torch.ones(1)}, store.own / "net.safetensors", header)
    text = refused(store)
    assert COMMAND in text and any(
        why in text for why in ("foreign file", "not one of our files", "does not match its digest")
    )


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "3",
        "null",
        "{}",
        '{"content": {}}',
        '{"content": {}, "metadata": []}',
        '{"content": {}, "metadata": {}}',
        '{"content": {}, "metadata": {"name": "net", "stage": "train"}}',
        "\xff",
    ],
)
def test_foreign_json(store, text):
    store.own.mkdir(parents=True)
    (store.own / "net.json").write_bytes(text.encode("latin-1"))
    assert COMMAND in refused(store)
    store.metadata("net")  # must not raise


def test_json_edited_by_hand(store):
    store.save("net", {"stage": 0.5}, "train", "p")
    path = store.own / "net.json"
    path.write_text(path.read_text().replace("0.5", "1.5"))
    assert "is damaged" in refused(store)


def test_other_settings_seed_or_inputs(store):
    store.save("net", TREE, "train", "old")
    text = refused(store, print_="new")
    assert (
        "made with other settings, seed or inputs than preset 'smoke' has now (fingerprint old instead of new)" in text
        and COMMAND in text
    )
    assert same(store.load("net", "train")[0], TREE)  # without a fingerprint: any


def test_a_pickle_is_refused_and_never_executed(store, tmp_path):
    class Bomb:
        def __reduce__(self):
            return Path.touch, (tmp_path / "executed",)

    store.own.mkdir(parents=True)
    for write in (lambda p: p.write_bytes(pickle.dumps(Bomb())), lambda p: torch.save({"a": Bomb()}, p)):
        write(store.own / "net.safetensors")
        assert "not one of our files" in refused(store)
    assert not (tmp_path / "executed").exists()
    pickle.loads(pickle.dumps(Bomb()))
    assert (tmp_path / "executed").exists()  # the bomb does work where a pickle is read


def test_nothing_in_the_package_reads_pickles():
    for path in PACKAGE.rglob("*.py"):
        assert not re.search(
            r"torch\.load\(|\bpickle\b(?!\s+is)|allow_pickle=True|joblib",
            path.read_text().replace("allow_pickle=False", ""),
        ), path
