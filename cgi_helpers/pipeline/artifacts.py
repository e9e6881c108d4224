"""Where results lie on disk, how they are written atomically, and whether they still fit what made them."""

import hashlib
import json
import os
import uuid
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from ..data.places import ROOT, lost


class ArtifactError(RuntimeError):
    """A needed artifact is missing, damaged or does not fit; the message names the command that rebuilds it."""


def fingerprint(**what):
    """Short stable hash of JSON-able facts (stage, fields, seed, digests of inputs)."""
    return hashlib.sha256(json.dumps(what, sort_keys=True, default=list).encode()).hexdigest()[:16]


def tensor_digest(tensors):
    """Hash of names, shapes, dtypes and bytes; times and versions in the metadata do not enter."""
    h = hashlib.sha256()
    for name in sorted(tensors):
        t = tensors[name].detach().cpu().contiguous()
        h.update(f"{name} {tuple(t.shape)} {t.dtype}".encode())
        h.update(t.flatten().view(dtype=torch.uint8).numpy().tobytes() if t.numel() else b"")
    return h.hexdigest()[:16]


def flatten(tree, prefix=""):
    """Nested dicts of tensors -> one flat dict with '/'-joined names."""
    flat = {}
    for key, value in tree.items():
        name = f"{prefix}{key}"
        flat.update(flatten(value, name + "/") if isinstance(value, dict) else {name: value})
    return flat


def unflatten(flat):
    """Inverse of `flatten` (keys become strings)."""
    tree = {}
    for name, value in flat.items():
        *path, leaf = name.split("/")
        node = tree
        for part in path:
            node = node.setdefault(part, {})
        node[leaf] = value
    return tree


def atomic_write(path, write):
    """Call `write(temporary_path)`, then move the result over `path`; a failure to write becomes one sentence."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.partial")  # several machines may write at once
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(temporary)
        temporary.chmod(0o644)  # safetensors writes 600
        os.replace(temporary, path)
    except (OSError, SafetensorError) as error:  # safetensors wraps a full disk in an error of its own
        why = getattr(error, "strerror", None) or error
        raise ArtifactError(f"Cannot write {path} ({why}): make the folder writable or free disk space.") from error
    finally:
        try:
            temporary.unlink(missing_ok=True)
        except OSError:
            pass


def write_json(path, content):
    """Write JSON atomically, with a final newline."""
    text = json.dumps(content, indent=1, sort_keys=False) + "\n"
    atomic_write(path, lambda p: p.write_text(text))


class Store:
    """Artifacts of one preset and seed:
    own results in `artifacts/<preset>`, shipped ones in `data/pretrained/<preset>`."""

    def __init__(self, preset_name, seed=0, root=None):
        root = Path(root or os.environ.get("CGI_ROOT") or ROOT)
        folder = preset_name if seed == 0 else f"{preset_name}-seed{seed}"
        self.own, self.shipped = root / "artifacts" / folder, root / "data" / "pretrained" / folder
        self.figures = root / "figures" / folder
        self.preset_name, self.seed = preset_name, seed

    def find(self, name):
        """Path of an artifact, own before shipped, tensors (.safetensors) or choices (.json), or None."""
        candidates = (
            folder / f"{name}{suffix}" for folder in (self.own, self.shipped) for suffix in (".safetensors", ".json")
        )
        return next((path for path in candidates if path.exists()), None)

    def check_writable(self):
        """Raise ArtifactError now rather than after hours of work."""
        probe = self.own / ".writable"
        try:
            atomic_write(probe, lambda p: p.write_text(""))
        except ArtifactError as error:
            why = getattr(error.__cause__, "strerror", None) or error.__cause__
            raise ArtifactError(
                f"Cannot write into {self.own} ({why}): make the folder writable, free disk space, or name another "
                "folder by the environment variable CGI_ROOT."
            ) from error
        probe.unlink(missing_ok=True)  # another process may have looked at the same time

    def save(self, name, tree, stage, print_, **metadata):
        """Write a tree of tensors (.safetensors) or of plain values (.json) and its metadata atomically.

        `print_` is the stage's fingerprint.
        """
        flat = flatten(tree)
        tensors = all(torch.is_tensor(v) for v in flat.values())
        if tensors:
            flat = {k: v.detach().cpu().contiguous() for k, v in flat.items()}
        meta = {
            "name": name,
            "stage": stage,
            "fingerprint": print_,
            "preset": self.preset_name,
            "seed": self.seed,
            "digest": tensor_digest(flat) if tensors else fingerprint(content=tree),
            **metadata,
        }
        if tensors:
            atomic_write(self.own / f"{name}.safetensors", lambda p: save_file(flat, p, {"cgi": json.dumps(meta)}))
        else:
            write_json(self.own / f"{name}.json", {"metadata": meta, "content": tree})
        return meta

    def metadata(self, name):
        """Metadata of an artifact, or None if there is no readable one."""
        try:
            return _read(self.find(name), content=False)[1]
        except (TypeError, AttributeError, OSError, KeyError, ValueError, SafetensorError):
            return None

    def load(self, name, stage, print_=None):
        """Return (tree, metadata) or raise ArtifactError: missing, damaged, foreign, or of another fingerprint."""
        rebuild = f"rebuild it with `python -m cgi_helpers {stage} --preset {self.preset_name} --fresh`"
        if self.seed:
            rebuild = rebuild[:-1] + f" --seed {self.seed}`"
        path = self.find(name)
        if path is None:
            raise ArtifactError(
                f"Artifact {name!r} of preset {self.preset_name!r} does not exist yet{lost()}: "
                f"{rebuild.replace(' --fresh', '')}."
            )
        try:
            tree, meta = _read(path)
        except (SafetensorError, OSError, ValueError, KeyError) as error:
            raise ArtifactError(f"{path} is truncated or not one of our files ({error}): {rebuild}.") from error
        if meta.get("name") != name or meta.get("stage") != stage:
            raise ArtifactError(
                f"{path} was not written as {name!r} by stage {stage!r} (renamed or foreign file): {rebuild}."
            )
        if meta.get("digest") != (
            fingerprint(content=tree) if path.suffix == ".json" else tensor_digest(flatten(tree))
        ):
            raise ArtifactError(f"{path} is damaged (its content does not match its digest): {rebuild}.")
        if print_ is not None and meta.get("fingerprint") != print_:
            raise ArtifactError(
                f"{path} was made with other settings, seed or inputs than preset {self.preset_name!r} "
                f"has now (fingerprint {meta.get('fingerprint')} instead of {print_}): {rebuild}."
            )
        return tree, meta


def _read(path, content=True):
    """(tree or None, metadata) of a file that `Store.save` wrote."""
    if path.suffix == ".json":
        stored = json.loads(path.read_text())
        tree, meta = (stored["content"], stored["metadata"]) if isinstance(stored, dict) else (None, None)
    else:
        with safe_open(path, "pt") as f:
            meta = json.loads((f.metadata() or {}).get("cgi", "{}"))
            tree = unflatten({k: f.get_tensor(k) for k in f.keys()}) if content else None
    if not isinstance(meta, dict):
        raise ValueError("it holds no metadata")
    return tree, meta
