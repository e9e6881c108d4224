"""Sessions, checkpoints and stages: the whole chain once with tiny networks, then interrupted, changed and damaged."""

import dataclasses
import json
import shutil
import signal
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from cgi_helpers.method import feedforward, refine, shape, train
from cgi_helpers.method.masks import composite
from cgi_helpers.method.runtime import draw_z
from cgi_helpers.method.search import whitening
from cgi_helpers.pipeline import card as card_module
from cgi_helpers.pipeline import evaluation, stages
from cgi_helpers.pipeline import session as session_module
from cgi_helpers.pipeline.artifacts import ArtifactError
from cgi_helpers.pipeline.plan import KINDS, plan
from cgi_helpers.pipeline.presets import get_preset
from cgi_helpers.pipeline.session import Checkpoint, Session, start
from cgi_helpers.study import judges, metrics

pytestmark = pytest.mark.usefixtures("one_thread")
TINY = get_preset(
    "smoke",
    name="tiny",
    size=16,
    networks=dict(z_dim=4, g_width=4, d_width=4, classifier_width=2, encoder_width=2, judge_width=2, features=4),
    training=dict(
        iterations=7,
        batch_size=50,
        sample_epochs=(0.1, 0.35),
        classifier_iterations=7,
        encoder_iterations=7,
        judge_iterations=7,
    ),
    searches={
        "report": dict(iterations=3, pool_iterations=1, batch=16, pool=40),
    }
    | dict.fromkeys(("best", "unet_inverted", "nearest_inverted"), dict(iterations=2, batch=16, pool=40)),
    shapings={
        row: dict(batch=10, epochs=(0, 0.5, 2), layer=1, steps=2)
        for row in ("sampling", "report", "best", "per_image", "unet_inverted", "nearest_inverted")
    }
    | dict.fromkeys(("unet", "context_encoder"), dict(batch=10, epochs=(0, 0.02, 0.08), layer=1, steps=2)),
    feedforward={row: dict(iterations=7, width=2) for row in ("unet", "context_encoder")},
    study=dict(
        validation_images=20,
        test_images=30,
        resamples=4,
        company=(4, 10),
        card_images=20,
        detector_iterations=2,
        rivals=("mean", "unet"),
        blended=("semantic",),
        families={
            "collaborative_field": dict(epochs=(0.5,), companions=10, steps=3, partner="per_image", weight=0.1),
            "collaborative_sampling": dict(epochs=(2,)),
        }
        | dict.fromkeys(
            ("collaborative_long", "collaborative_unet_inverted", "collaborative_nearest_inverted"),
            dict(epochs=(2,), companions=10, steps=3),
        )
        | dict.fromkeys(
            ("collaborative_unet", "collaborative_context_encoder"), dict(companions=10, epochs=(0, 0.02, 0.08))
        ),
    ),
)
PLAN = plan(TINY)
WRITER = {artifact: name for name, stage in PLAN.items() for artifact in stage.writes}


def opened(preset=TINY, **options):
    return Session(preset, progress=False, **options)


def upstream(stage):
    """All stages that `stage` depends on, itself included."""
    return {stage}.union(*(upstream(WRITER[i]) for i in PLAN[stage].reads))


def leaves(value, path=()):
    """The paths of all settings nested in a preset: ("training", "lr"), ..."""
    if isinstance(value, dict) and path != ("limit",) or dataclasses.is_dataclass(value):
        items = (
            value.items()
            if isinstance(value, dict)
            else ((f.name, getattr(value, f.name)) for f in dataclasses.fields(value))
        )
        return [leaf for key, inner in items for leaf in leaves(inner, (*path, key))]
    return [path]


def with_other(path):
    """TINY with another value at a path."""
    value = TINY
    for key in path:
        value = value[key] if isinstance(value, dict) else getattr(value, key)
    change = other(value)
    for key in reversed(path):
        change = {key: change}
    return get_preset(TINY, **change)


def other(value):
    """A different value of the same kind."""
    if value is None:
        return 3
    return {
        bool: lambda v: not v,
        int: lambda v: v + 1,
        float: lambda v: v * 2 + 0.5,
        str: lambda v: {"report": "best", "best": "report", "encoder": "noise", "noise": "encoder"}.get(v, v + "x"),
        tuple: lambda v: (*v, 9),
        dict: lambda v: {**v, "train": 7},
    }[type(value)](value)


def depends_on(stage):
    """The paths of all settings that may change the results of `stage`."""

    def settings(preset):
        return {name: (s.settings, s.reads) for name, s in plan(preset).items()}

    found = set()
    for path in leaves(TINY):
        if path[:2] != ("study", "families") or path[-1] == "search":
            now = settings(with_other(path))
            if any(now.get(s) != settings(TINY)[s] for s in upstream(stage)):
                found.add(path)
    return found


def spied(value, seen, path=()):
    """A copy of a preset that adds the path of every setting that is read to the set `seen()`."""
    if isinstance(value, dict) and path != ("limit",):
        return {key: spied(inner, seen, (*path, key)) for key, inner in value.items()}
    if not dataclasses.is_dataclass(value):
        return value
    names = [f.name for f in dataclasses.fields(value)]

    class Spy(type(value)):
        def __getattribute__(self, name):
            inner = super().__getattribute__(name)
            if (
                name in names
                and not dataclasses.is_dataclass(inner)
                and (not isinstance(inner, dict) or name == "limit")
            ):
                seen().add((*path, name))
            return inner

    return Spy(**{name: spied(getattr(value, name), seen, (*path, name)) for name in names})


@pytest.fixture(scope="module")
def chain(tmp_path_factory, one_thread):
    """(root with the results of every stage, settings that each stage read, artifacts that each loaded)."""
    root, fields, loads, current = tmp_path_factory.mktemp("chain"), {}, {}, []

    class Watched(Session):
        def load(self, artifact):
            if current:
                loads[current[0]].add(artifact)
            keep = current[:]
            current.clear()  # what `load` itself reads is not the stage's doing
            try:
                return super().load(artifact)
            finally:
                current.extend(keep)

        def fingerprint(self, stage):
            keep = current[:]
            current.clear()
            try:
                return super().fingerprint(stage)
            finally:
                current.extend(keep)

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CGI_ROOT", str(root))
        # loads all declared inputs
        patch.setattr(stages, "done", lambda session, stage, fresh: session.store.check_writable())
        patch.setattr(card_module, "done", lambda session, stage, fresh: session.store.check_writable())
        patch.setattr(evaluation, "done", lambda session, stage, fresh: session.store.check_writable())
        for stage in PLAN:
            fields[stage], loads[stage] = set(), set()
            session = Watched(spied(TINY, lambda: fields[current[0]] if current else set()), progress=False)
            assert session.plan == PLAN
            current.append(stage)
            try:
                stages.run(session, stage)
            finally:
                current.clear()
    return root, fields, loads


@pytest.fixture
def place(chain, tmp_path, monkeypatch):
    """A copy of the finished chain for this test alone."""
    shutil.copytree(chain[0], tmp_path / "root")
    monkeypatch.setenv("CGI_ROOT", str(tmp_path / "root"))
    return tmp_path / "root" / "artifacts" / "tiny"


def paths(place, stage):
    return [next(place.glob(f"{a}.*s*")) for a in PLAN[stage].writes]


def timeless(tree):
    """A tree of plain values without the seconds that something took."""
    return {k: timeless(v) for k, v in tree.items() if k != "seconds"} if isinstance(tree, dict) else tree


def content(path):
    """Tensors, or the JSON text; without times."""
    if path.suffix == ".safetensors":
        return {k: v for k, v in load_file(path).items() if not k.endswith("/seconds")}
    return json.dumps(timeless(json.loads(path.read_text())["content"]))


def same(a, b):
    if isinstance(a, str):
        return a == b
    return a.keys() == b.keys() and all(a[k].dtype == b[k].dtype and torch.equal(a[k], b[k]) for k in a)


# --- what a stage depends on


def test_every_kind_of_stage_has_its_function():
    assert set(stages.FUNCTIONS) == set(KINDS) == {stage.kind for stage in PLAN.values()}


@pytest.mark.parametrize("stage", list(PLAN))
def test_a_stage_reads_only_what_its_fingerprint_knows(chain, stage):
    _, fields, loads = chain
    memory = {("searches", row, "batch") for row in TINY.searches}  # not results
    rest = fields[stage] - memory - {("name",)}
    assert {path for path in rest if path[:2] != ("study", "families")} <= depends_on(stage)
    assert loads[stage] <= set(PLAN[stage].reads)
    assert len(fields[stage]) > 4 and bool(loads[stage]) == bool(PLAN[stage].reads)  # the watch works


def test_the_chain_is_up_to_date(place):
    assert [s for s in PLAN if not opened().up_to_date(s)] == []
    assert sorted(p.stem for p in place.iterdir()) == sorted(WRITER)  # and left no checkpoint


APART = {"classifier", "judge", "fit unet", "fit context_encoder"}
GAN = set(PLAN) - APART
JUDGED = {"tune", "evaluate", "card", "company"}
BEST = {"shape best", "shape per_image", "field collaborative_field", "field collaborative_long"} | JUDGED
OTHERS = {net: {f"shape {net}", f"field collaborative_{net}"} for net in ("unet", "context_encoder")}
INVERTED = {
    guess: {f"{kind} {guess}_inverted" for kind in ("encode", "shape")} | {f"field collaborative_{guess}_inverted"}
    for guess in ("unet", "nearest")
}
STALE = {
    "training.lr": GAN,
    "networks.z_dim": GAN,
    "size": set(PLAN),
    "dataset": set(PLAN),
    "networks.classifier_width": {"classifier"} | JUDGED,
    "training.encoder_iterations": {"encoder", "encode best"} | BEST | INVERTED["unet"] | INVERTED["nearest"],
    "shapings.unet.search": OTHERS["unet"] | JUDGED - {"company"},
    "searches.report.lr": {"encode report", "shape sampling", "shape report"} | JUDGED - {"company"},
    "searches.best.batch": set(),
    "searches.best.iterations": {"encode best"} | BEST,
    "shapings.sampling.lr": {"shape sampling"} | JUDGED - {"company"},
    "shapings.report.lr": {"shape report"} | JUDGED - {"company"},
    "study.resamples": {"evaluate", "card", "company"},
    "study.card_images": {"card"},
    "networks.judge_width": {"judge", "card"},
    "feedforward.unet.iterations": {"fit unet"} | OTHERS["unet"] | INVERTED["unet"] | JUDGED - {"company"},
    "searches.nearest_inverted.guess_weight": INVERTED["nearest"] | JUDGED - {"company"},
    "feedforward.context_encoder.iterations": {"fit context_encoder"}
    | OTHERS["context_encoder"]
    | JUDGED - {"company"},
    "study.micro_batch": JUDGED,
    "mask": GAN - {"train", "encoder"},
    "lam": GAN - {"train", "encoder"} - OTHERS["unet"] - OTHERS["context_encoder"],
}


@pytest.mark.parametrize("field", STALE)
def test_a_changed_setting_makes_stale_what_depends_on_it_and_nothing_else(place, field):
    changed = opened(with_other(tuple(field.split("."))))
    assert {stage for stage in PLAN if not changed.up_to_date(stage)} == STALE[field]


@pytest.mark.parametrize("artifact", list(WRITER))
def test_loading_with_other_settings_names_the_command(place, artifact):
    stage = WRITER[artifact]
    session = opened(get_preset(TINY, channels=3))
    with pytest.raises(
        ArtifactError, match="made with other settings, seed or inputs than preset 'tiny' has now"
    ) as error:
        session.load(artifact)
    first = next(s for s in PLAN if s in upstream(stage))
    assert f"`python -m cgi_helpers {first} --preset tiny --fresh`" in str(error.value) and "\n" not in str(error.value)


def test_another_seed_has_its_own_folder_and_never_takes_these(place):
    session = opened(seed=1)
    assert [session.fingerprint(s) == opened().fingerprint(s) for s in PLAN] == [False] * len(PLAN)
    with pytest.raises(
        ArtifactError, match="does not exist yet: rebuild it with `python -m cgi_helpers train --preset tiny --seed 1`"
    ):
        session.load("generator")
    shutil.copytree(place, place.with_name("tiny-seed1"))
    assert not any(session.up_to_date(s) for s in PLAN)
    with pytest.raises(ArtifactError, match="other settings, seed.*--fresh --seed 1`"):
        session.load("generator")


@pytest.mark.parametrize("artifact", ["generator", "discriminator", "encodings_best", "selection"])
def test_other_content_of_an_input_makes_all_that_depends_on_it_stale(place, artifact):
    session = opened()
    tree, meta = session.store.load(artifact, WRITER[artifact])
    if artifact == "selection":
        tree["equal_time_iterations"] += 1
    else:
        next(iter(tree.values())).view(-1)[0] += 1
    # as if made again, with the same settings
    session.store.save(artifact, tree, WRITER[artifact], meta["fingerprint"])
    depending = {s for s in PLAN if any(artifact in PLAN[u].reads for u in upstream(s))}
    assert depending and {s for s in PLAN if not session.up_to_date(s)} == depending
    direct = next(s for s in PLAN if artifact in PLAN[s].reads)
    with pytest.raises(ArtifactError, match=f"`python -m cgi_helpers {direct} --preset tiny --fresh`"):
        session.load(PLAN[direct].writes[0])


def test_a_missing_input_is_named_before_long_work(place):
    (place / "generator.safetensors").unlink()
    for stage in ("encoder", "encode report", "shape report", "tune", "evaluate"):
        with pytest.raises(
            ArtifactError, match="'generator' of preset 'tiny' does not exist yet: .*cgi_helpers train --preset tiny`"
        ):
            stages.run(opened(), stage)
        assert not opened().up_to_date(stage)


def test_a_finished_stage_is_not_computed_again_unless_fresh(place, monkeypatch):
    calls = []
    monkeypatch.setattr(train, "batch_index", lambda *a, real=train.batch_index: calls.append(a) or real(*a))
    old = content(place / "generator.safetensors")
    stages.train_gan(opened())
    assert not calls
    stages.train_gan(opened(), fresh=True)
    assert len(calls) == 7 and same(old, content(place / "generator.safetensors"))  # the same seed, the same bytes


def test_a_session_sees_what_was_made_again(place, monkeypatch):
    session = opened()
    first = session.load("generator")
    assert session.load("generator") is first
    stages.train_gan(session, fresh=True)
    assert session.load("generator") is not first


def test_the_whitening_is_measured_once_per_generator(place):
    session = opened()
    first = session.whitening
    expected = whitening(
        session.net("generator"), session.mask, window=TINY.window, prior=TINY.networks.prior, key=(0,)
    )
    assert session.whitening is first and torch.equal(first, expected)
    tree, meta = session.store.load("generator", "train")
    tree["project.weight"][0] *= 3
    session.store.save("generator", tree, "train", meta["fingerprint"])
    del session.cache["generator", meta["fingerprint"]]  # as `session.save` does for a stage of this session
    assert not torch.allclose(session.whitening, first)


# --- what a session gives


def test_networks_are_loaded_frozen(place):
    session = opened()
    for kind in ("generator", "discriminator", "classifier", "encoder"):
        net, stored = session.net(kind), load_file(place / f"{kind}.safetensors")
        assert all(torch.equal(v, stored[k]) for k, v in net.state_dict().items())
        assert not any(m.training for m in net.modules()) and not any(p.requires_grad for p in net.parameters())
    conv = session.net("discriminator").features[2]
    assert conv.weight.is_contiguous(memory_format=torch.channels_last) and not conv.weight.is_contiguous()


def test_shaped_discriminators_are_the_snapshots(place):
    session = opened()
    original, stored = session.net("discriminator").state_dict(), load_file(place / "shaped_report.safetensors")
    assert all(torch.equal(v, original[k]) for k, v in session.shaped("report", 0).state_dict().items())
    seen = []
    for epochs in (0.5, 2):
        D = session.shaped("report", epochs).state_dict()
        assert all(
            torch.equal(v.half() if v.is_floating_point() else v, stored[f"snapshots/{epochs}/{k}"])
            for k, v in D.items()
        )
        seen.append(D["head.weight"])
    assert not torch.equal(*seen) and not torch.equal(seen[0].half(), original["head.weight"].half())
    with pytest.raises(ValueError, match="no discriminator after 0.3 epochs of shaping: use one of .0, 0.5, 2."):
        session.shaped("report", 0.3)


def test_history_has_every_loss_and_the_grids_of_fixed_latents(place):
    session = opened()
    history, meta = session.load("history")
    assert meta["sample_steps"] == stages.sample_steps(TINY, 1000) == [2, 7]
    for key in ("d_loss", "g_loss", "real", "fake"):
        assert history[key].shape == (7,) and (history[key] > 0).all()
    with torch.no_grad():
        final = session.net("generator")(draw_z(64, 4, TINY.networks.prior, 0, "fixed z"))
    assert torch.equal(history["grids"][1], ((final + 1) * 127.5).round().byte()) and not torch.equal(*history["grids"])
    assert meta["versions"]["torch"] == torch.__version__ and meta["seed"] == 0 and meta["seconds"] >= 0


def test_encodings_have_a_row_per_image(place):
    session = opened()
    for split, how, n in (
        ("test", "report", 30),
        ("test", "best", 30),
        ("validation", "report", 20),
        ("pool", "best", 40),
    ):
        z = session.encodings(split, how)
        assert z.shape == (n, 4) and z.dtype == torch.float32
    assert session.load("encodings_best")[0]["pool"].dtype == torch.float16
    with pytest.raises(ValueError, match="no 'best' encodings of 'train': use one of"):
        session.encodings("train", "best")


def test_refinement_starts_from_a_search_or_from_a_network(place):
    session = opened()
    G, z = session.start_of("best", "test", 5)
    assert G.z_dim == 4 and torch.equal(z, session.encodings("test", "best")[:5])
    G, images = session.start_of("unet", "test", 5)
    y = session.data["test"].batch(slice(0, 5))
    assert torch.equal(images[:5], y) and len(images) == 5 and len(session.start_of("unet", "pool")[1]) == 1_000
    with torch.no_grad():
        assert torch.equal(G(y), session.fitted("unet")(y, session.mask))
    with pytest.raises(ValueError, match="makes no 'encodings_nowhere'"):
        session.start_of("nowhere", "test")


def test_a_recorded_field_is_the_one_that_guides(place):
    session, family = opened(), TINY.study.families["collaborative_field"]
    stored, _ = session.load("field_collaborative_field")
    assert list(stored) == ["0.5"] and stored["0.5"]["mean"].shape[0] == family.steps + 1
    again = evaluation.record(session, family, 0.5)
    assert stored["0.5"].keys() == again.keys() and all(torch.equal(v, again[k]) for k, v in stored["0.5"].items())
    judge, path = evaluation.guide(session, family, 0.5)
    assert [t.mode for t in judge.terms] == ["field", "independent"] and path == {
        "layer": 1,
        "steps": 3,
        "step_size": 0.1,
    }
    assert all(torch.equal(v, stored["0.5"][k]) for k, v in judge.terms[0].field.items())
    own = dataclasses.replace(family, companions=12)  # no row of the study: recorded now, once
    judge, _ = evaluation.guide(session, own, 0.5)
    assert not torch.equal(judge.terms[0].field["mean"], stored["0.5"]["mean"])
    assert evaluation.guide(session, own, 0.5)[0].terms[0].field is judge.terms[0].field


def test_the_company_is_measured_in_every_size_and_order(place):
    session = opened()
    table, _ = session.load("company")
    assert {name: list(rows) for name, rows in table["together"].items()} == dict.fromkeys(
        ("random", "one class"), ["4", "10"]
    )
    family, mask = TINY.study.families["collaborative_field"], session.mask
    (G, z), y = session.start_of("best", "validation", 20), session.data["validation"].batch(slice(0, 20))
    base, field = (composite(y, G(z), mask), evaluation.collaborate(session, G, family, 0.5, z, y))
    gain = (metrics.psnr(field, y) - metrics.psnr(base, y)).mean()
    assert table["field"]["psnr_gain"]["mean"] == pytest.approx(float(gain), abs=1e-4)
    assert set(table["answers"]["right"]) == {"pure", "mixed", "running"}


def test_a_network_is_a_row_of_the_evaluation_and_its_collaboration_another(place):
    session = opened()
    table, scores = session.load("metrics")[0], session.load("evaluation")[0]["rows"]
    chosen = session.load("selection")[0]["stages"]["collaborative_unet"]
    y, mask = session.data["test"].batch(slice(0, 30)), session.mask
    alone = metrics.psnr(composite(y, feedforward.paint(session.fitted("unet"), y, mask), mask), y)
    torch.testing.assert_close(scores["unet"]["psnr"], alone.float())
    gain = table["paired_gain_unet"]["psnr"]["mean"]
    assert gain == pytest.approx(float((scores[f"collaborative_unet_{chosen}"]["psnr"] - alone).mean()), abs=1e-4)
    assert {"unet", "collaborative_unet_0", "semantic", "semantic_equal_time"} <= set(table["methods"])


def test_random_masks_follow_the_seed():
    def drawn(seed):
        return Session(get_preset(TINY, mask="scattered"), seed).mask

    assert torch.equal(drawn(0), drawn(0)) and not torch.equal(drawn(0), drawn(1)) and drawn(0).shape == (1, 1, 16, 16)
    with pytest.raises(ValueError, match="Unknown mask 'hexagon'"):
        Session(get_preset(TINY, mask="hexagon")).mask


def test_start_refuses_unknown_names(monkeypatch):
    for arguments, message in ((("huge",), "Unknown preset 'huge'"), (("smoke", 0, "tpu"), "Unknown device 'tpu'")):
        with pytest.raises(ValueError, match=message):
            start(*arguments)
    text = start("smoke", 3, "cpu").describe()
    assert all(part in text for part in ("smoke", "seed 3", "cpu", f"torch {torch.__version__}"))


def test_numbers_are_recorded_beside_the_figures(place):
    opened().record("nb01", {"accuracy": 0.5})
    assert (place.parents[1] / "figures" / "tiny" / "nb01.json").read_text() == '{\n "accuracy": 0.5\n}\n'


# --- interrupted and resumed

# stage -> (module, function that every step calls in its middle, at which call Ctrl-C comes, steps done by then)
MIDDLE = {
    "train": (train, "generator_loss", 4, 4),
    "classifier": (train, "batch_index", 3, 3),
    "encoder": (train, "context_loss", 5, 5),
    "judge": (train, "batch_index", 3, 3),
    "fit unet": (feedforward, "training_masks", 3, 3),
    "fit context_encoder": (feedforward, "generator_loss", 5, 5),
    "card": (judges, "score_card", 3, 3),
    "encode report": (evaluation, "find_latent", 2, 2),
    **{s: (evaluation, "find_latent", 4, 4) for s in PLAN if s.startswith("encode ") and s != "encode report"},
    "evaluate": (evaluation, "score", 3, 3),
    **{s: (shape, "discriminator_loss", 3, 3) for s in PLAN if s.startswith("shape")},
}


def test_every_stage_with_a_checkpoint_is_interrupted_below():
    assert set(MIDDLE) == {name for name, stage in PLAN.items() if stage.kind not in ("tune", "field", "company")}


def forget(place, stage):
    """Remove the stage's results; returns their content."""
    old = [content(p) for p in paths(place, stage)]
    for p in paths(place, stage):
        p.unlink()
    return old


def partial(place, stage):
    return place / f"{stage.replace(' ', '_')}.partial.safetensors"


def saved_steps(place, stage):
    """Steps of an unfinished stage that are on disk: in its checkpoint, or as pieces (0: none)."""
    stage = stage.replace(" ", "_")
    return (opened().store.metadata(f"{stage}.partial") or {}).get("step", 0) + len(
        list((place / f"{stage}.parts").glob("*.safetensors"))
    )


def press_ctrl_c(monkeypatch, module, name, at, action=lambda: signal.raise_signal(signal.SIGINT)):
    """Run `action` inside the `at`-th call of module.name; returns the list of calls."""
    calls, real = [], getattr(module, name)

    def watched(*args, **options):
        calls.append(1)
        if len(calls) == at:
            action()
        return real(*args, **options)

    monkeypatch.setattr(module, name, watched)
    return calls


@pytest.mark.parametrize("stage", list(MIDDLE))
def test_ctrl_c_in_the_middle_of_a_step_saves_and_resumed_equals_uninterrupted(place, monkeypatch, stage):
    module, name, at, steps = MIDDLE[stage]
    old = forget(place, stage)
    handler = signal.getsignal(signal.SIGINT)
    with monkeypatch.context() as patch:
        calls = press_ctrl_c(patch, module, name, at)
        with pytest.raises(KeyboardInterrupt):
            stages.run(opened(), stage)
        assert len(calls) == at  # the step was ended, no other one begun
    assert signal.getsignal(signal.SIGINT) is handler
    assert saved_steps(place, stage) == steps and not any(place.glob(f"{PLAN[stage].writes[0]}.s*"))
    torch.manual_seed(99)
    with monkeypatch.context() as patch:
        calls = press_ctrl_c(patch, module, name, 0)
        stages.run(opened(), stage)
        total = {"train": 7, "classifier": 7, "judge": 7, "encoder": 7, "fit unet": 7, "fit context_encoder": 7}.get(
            stage, 8 if stage.startswith("shape") else None
        )
        assert total is None or len(calls) == total - steps  # the rest only
    assert all(same(a, content(p)) for a, p in zip(old, paths(place, stage), strict=True))
    assert opened().up_to_date(stage) and saved_steps(place, stage) == 0


def test_pieces_of_another_cut_are_not_merged(place, monkeypatch):
    """Someone who ran out of memory goes on with a smaller `batch` of the search,
    which is no part of the fingerprint."""
    forget(place, "encode report")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        press_ctrl_c(patch, *MIDDLE["encode report"][:3])
        stages.run(opened(), "encode report")
    assert saved_steps(place, "encode report")
    session = opened(get_preset(TINY, searches={"report": {"batch": 8}}))
    stages.run(session, "encode report")
    assert session.encodings("validation", "report").shape == (20, 4) and session.encodings("test", "report").shape == (
        30,
        4,
    )


def test_a_prior_that_counts_is_not_left_out_of_the_search_in_silence(place):
    for stage in ("encode report", "encode best"):
        with pytest.raises(
            ValueError, match="The stages search without D, which needs lam <= 0.0005, but lam is 0.5: lower it"
        ):
            stages.run(opened(get_preset(TINY, lam=0.5)), stage)


@pytest.mark.parametrize("at", [1, 7])
def test_the_first_and_the_last_step(place, monkeypatch, at):
    old = forget(place, "train")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        press_ctrl_c(patch, train, "generator_loss", at)
        stages.train_gan(opened())
    stages.train_gan(opened())
    assert all(same(a, content(p)) for a, p in zip(old, paths(place, "train"), strict=True))


@pytest.mark.parametrize("stage", ["train", "shape report"])
def test_killed_in_the_middle_of_a_step_goes_on_from_the_last_minute(place, monkeypatch, stage):
    """The second Ctrl-C, a crash: nothing half done is saved, and the step is repeated from the last checkpoint."""

    def die():
        raise KeyboardInterrupt

    module, name, at, steps = MIDDLE[stage]
    old = forget(place, stage)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(session_module, "CHECKPOINT_SECONDS", -1)  # after every step
        press_ctrl_c(patch, module, name, at, die)
        stages.run(opened(), stage)
    assert opened().store.metadata(partial(place, stage).stem)["step"] == steps - 1
    stages.run(opened(), stage)
    assert all(same(a, content(p)) for a, p in zip(old, paths(place, stage), strict=True))


def test_twice_updated_generators_resume_too(tmp_path, monkeypatch):
    """Two G updates, the average of G's weights, in full precision."""
    preset = get_preset(TINY, training={"g_updates": 2, "average": 0.9}, networks={"amp": False, "prior": "uniform"})
    monkeypatch.setenv("CGI_ROOT", str(tmp_path / "whole"))
    stages.train_gan(opened(preset))
    monkeypatch.setenv("CGI_ROOT", str(tmp_path / "parts"))
    for at in (3, 4, 100):  # calls of one run: in the second step, then between the two updates of the fourth
        with monkeypatch.context() as patch:
            press_ctrl_c(patch, train, "generator_loss", at)
            try:
                stages.train_gan(opened(preset))
                assert at == 100
            except KeyboardInterrupt:
                assert at < 100
    for name in PLAN["train"].writes:
        assert same(
            *(load_file(tmp_path / part / "artifacts" / "tiny" / f"{name}.safetensors") for part in ("whole", "parts"))
        ), name


def interrupted(monkeypatch, preset=TINY):
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        press_ctrl_c(patch, train, "generator_loss", 4)
        stages.train_gan(opened(preset))


def test_other_settings_do_not_resume(tmp_path, monkeypatch):
    monkeypatch.setenv("CGI_ROOT", str(tmp_path))
    interrupted(monkeypatch)
    stages.train_gan(opened(get_preset(TINY, training={"lr": 0.01})))
    steps = []
    monkeypatch.setattr(
        train, "batch_index", lambda step, *a, real=train.batch_index: steps.append(step) or real(step, *a)
    )
    interrupted(monkeypatch)
    assert steps[0] == 0
    steps.clear()
    stages.train_gan(opened(), fresh=True)
    assert steps == list(range(7))
    assert opened().up_to_date("train") and not list(tmp_path.rglob("*.partial.*"))


@pytest.mark.parametrize(
    "damage",
    [lambda c: c[:-5], lambda c: c[:-1] + bytes([c[-1] ^ 1]), lambda c: b""],
    ids=["truncated", "flipped", "empty"],
)
def test_a_damaged_checkpoint_is_refused_not_forgotten(tmp_path, monkeypatch, damage):
    monkeypatch.setenv("CGI_ROOT", str(tmp_path))
    interrupted(monkeypatch)
    path = partial(tmp_path / "artifacts" / "tiny", "train")
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(
        ArtifactError, match="train.partial.safetensors is .*`python -m cgi_helpers train --preset tiny --fresh`"
    ):
        stages.train_gan(opened())
    stages.train_gan(opened(), fresh=True)  # what the sentence tells to do
    assert opened().up_to_date("train")


def test_an_unwritable_folder_is_told_before_training(tmp_path, monkeypatch):
    monkeypatch.setenv("CGI_ROOT", str(tmp_path))
    (tmp_path / "artifacts").write_text("a file where the folder should be")
    calls = press_ctrl_c(monkeypatch, train, "batch_index", 0)
    with pytest.raises(ArtifactError, match="Cannot write .*: make the folder writable"):
        stages.train_gan(opened())
    assert not calls


def test_a_full_disk_in_the_middle_keeps_the_last_checkpoint(tmp_path, monkeypatch):
    monkeypatch.setenv("CGI_ROOT", str(tmp_path))
    interrupted(monkeypatch)
    path = partial(tmp_path / "artifacts" / "tiny", "train")
    before = path.read_bytes()

    def full(tensors, target, metadata):
        Path(target).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(session_module, "CHECKPOINT_SECONDS", -1)
        patch.setattr("cgi_helpers.pipeline.artifacts.save_file", full)
        with pytest.raises(ArtifactError, match="No space left on device.*free disk space"):
            stages.train_gan(opened())
    assert path.read_bytes() == before and len(list(path.parent.iterdir())) == 1


def test_checkpoint_restores_the_memory_layout_of_the_moments(tmp_path, monkeypatch):
    """Fused Adam walks raw memory: a moment in another layout than its parameter silently trains another network."""
    monkeypatch.setenv("CGI_ROOT", str(tmp_path))
    interrupted(monkeypatch)
    session = opened()
    G, D = session.build("generator"), session.build("discriminator")
    checkpoint = Checkpoint(session, "train", {"generator": G, "discriminator": D}, False)
    for net, opt in zip((G, D), checkpoint.restore(train.adam(G, 1e-3), train.adam(D, 1e-3))):
        for p in net.parameters():
            assert opt.state[p]["exp_avg"].stride() == p.stride() and opt.state[p]["exp_avg_sq"].stride() == p.stride()
            assert opt.state[p]["step"] == 4
    assert checkpoint.step == 4 and checkpoint.seconds > 0


def test_a_discriminator_shaped_without_overlay_refines_the_whole_image_before_it_is_laid_under(place):
    session, y = opened(), opened().data["test"].batch(slice(0, 6))
    family = TINY.study.families["collaborative_sampling"]
    G, z = session.start_of("report", "test", 6)
    D, options = evaluation.guide(session, family, 2)
    whole, _ = refine.refine_all(G, D, z, batch_size=TINY.study.micro_batch, key=(session.seed, "refine"), **options)
    found = evaluation.collaborate(session, G, family, 2, z, y)
    torch.testing.assert_close(found, composite(y, whole, session.mask), rtol=0, atol=0)


def test_the_card_counts_the_search_that_a_row_starts_from(place, monkeypatch):
    session, asked = opened(), []
    monkeypatch.setattr(card_module, "find_all", lambda session, start, y: asked.append(start))
    for row in ("semantic", "semantic_best", "collaborative_0", "collaborative_field", "collaborative_unet"):
        card_module.search_seconds(session, row)
    assert asked == ["report", "best"]  # each once; a feed-forward net searches nothing
    session.cache.clear()
    card_module.search_seconds(session, "semantic_best")
    assert asked[2:] == ["best"]
