"""The table of presets."""

from dataclasses import FrozenInstanceError, asdict

import pytest

from cgi_helpers.data import DATASETS
from cgi_helpers.method.masks import MASKS
from cgi_helpers.method.models import Generator
from cgi_helpers.pipeline.plan import plan
from cgi_helpers.pipeline.presets import PRESETS, Search, get_preset


def test_the_table_goes_by_the_names_of_its_presets():
    assert {"smoke", "laptop", "paper"} < set(PRESETS) and all(p.name == n for n, p in PRESETS.items())


@pytest.mark.parametrize("name", DATASETS)
def test_the_name_of_a_data_set_stands_for_its_first_preset_beside_smoke(name):
    found = [p for p in PRESETS.values() if p.dataset == name and p.name != "smoke"]
    if found:
        assert get_preset(name) == PRESETS.get(name, found[0])
    else:
        with pytest.raises(ValueError, match=f"Unknown preset '{name}'"):
            get_preset(name)


def test_default_is_the_environment_then_laptop(monkeypatch):
    monkeypatch.delenv("CGI_PRESET", raising=False)
    assert get_preset() == PRESETS["laptop"]
    monkeypatch.setenv("CGI_PRESET", "smoke")
    assert get_preset().name == "smoke" and get_preset("paper").name == "paper"
    monkeypatch.setenv("CGI_PRESET", "")
    assert get_preset().name == "laptop"
    monkeypatch.setenv("CGI_PRESET", "nonsense")
    with pytest.raises(ValueError, match="Unknown preset 'nonsense': use one of smoke, laptop, .*paper"):
        get_preset()


@pytest.mark.parametrize("name", ["Laptop", "big", " laptop"])
def test_unknown_preset_lists_the_known_ones(name):
    with pytest.raises(ValueError, match=f"Unknown preset '{name}': use one of smoke, laptop, .*paper"):
        get_preset(name)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"lambda_": 1}, "Unknown preset field 'lambda_': known fields are name, dataset, .*lam"),
        ({"training": {"iters": 3}}, "Unknown training field 'iters': known fields are iterations, batch_size"),
        ({"searches": {"best": {"rate": 3}}}, "Unknown best field 'rate': known fields are start, optimiser"),
        ({"searches": {"bset": {"lr": 3}}}, "Unknown searches field 'bset': known fields are report, best"),
    ],
)
def test_unknown_field_lists_the_known_ones(changes, message):
    with pytest.raises(ValueError, match=message):
        get_preset("smoke", **changes)


def test_changes_make_a_new_preset_and_leave_the_table():
    known = [*PRESETS["smoke"].searches]
    changed = get_preset("smoke", lam=0.5, searches={"best": {"lr": 1.0}, "third": Search(lr=2.0)})
    assert (changed.lam, changed.name, changed.searches["best"].lr, changed.searches["best"].iterations) == (
        0.5,
        "smoke",
        1.0,
        10,
    )
    assert [*changed.searches] == [*known, "third"] and changed.searches["third"].lr == 2.0
    assert (
        PRESETS["smoke"].lam == 1e-4
        and [*PRESETS["smoke"].searches] == known
        and PRESETS["smoke"].searches["best"].lr == 0.005
    )
    assert [*get_preset(changed, searches={"best": None}).searches] == [
        *(row for row in known if row != "best"),
        "third",
    ]
    assert get_preset(changed, lam=0.7).searches == changed.searches and get_preset(changed) == changed
    with pytest.raises(FrozenInstanceError):
        changed.lam = 1


def numbers(values, path=""):
    """(dotted name, number) of everything nested in a dict."""
    for key, value in values.items():
        if isinstance(value, dict):
            yield from numbers(value, f"{path}{key}.")
        elif isinstance(value, (int, float)):
            yield path + key, value


def test_every_preset_is_consistent():
    for p in PRESETS.values():
        assert p.mask in MASKS and p.networks.prior in ("normal", "uniform") and p.window % 2 == 1
        for shaping in p.shapings.values():
            Generator(2, 1, p.channels, p.size).check_layer(shaping.layer)
            epochs = shaping.epochs
            assert (
                list(epochs) == sorted(set(epochs))
                and epochs[0] == 0
                and (shaping.search in p.feedforward or p.searches[shaping.search].pool >= shaping.batch)
            )
        for family in p.study.families.values():
            assert (family.search in p.searches) != (family.search in p.feedforward) and family.shaping in p.shapings
        for name, value in numbers(asdict(p)):
            assert (
                value > 0 or value == 0 and name.endswith(("_min", ".r1", ".amp", ".whiten", ".overlay", ".weight"))
            ), name


def test_paper_has_the_numbers_of_the_report():
    p, t = get_preset("paper"), get_preset("paper").training
    assert (t.iterations, t.batch_size, t.lr, t.beta1, t.sample_epochs) == (24_000, 64, 2e-4, 0.5, (1, 5, 15, 25))
    assert (p.networks.z_dim, p.size, p.lam, p.window, p.mask, p.study.test_images) == (
        100,
        64,
        1e-4,
        7,
        "center",
        2_000,
    )
    search, shaping = p.searches["report"], p.shapings["report"]
    assert (search.iterations, search.lr, search.clip, search.optimiser) == (1_000, 0.01, 1.0, "nesterov")
    assert (shaping.layer, shaping.steps, shaping.step_size, shaping.batch, shaping.lr) == (2, 50, 0.1, 60, 2e-4)
    assert shaping.epochs == (0, 0.1, 0.5, 1, 1.5, 2) and shaping.mode == "batch" and shaping.overlay


@pytest.mark.parametrize("name", PRESETS)
def test_the_plan_lists_every_row_once_inputs_first(name):
    p, made = get_preset(name), []
    for stage in plan(p).values():
        assert set(stage.reads) <= set(made) and not set(stage.writes) & set(made)
        made += stage.writes
    assert {f"encode {row}" for row in p.searches} | {f"shape {row}" for row in p.shapings} <= set(plan(p))
    more = get_preset(p, searches={"own": Search()})
    assert set(plan(more)) - set(plan(p)) == {"encode own"}


@pytest.mark.parametrize(
    "name, images",
    [
        ("smoke", 1_000),
        ("laptop", 55_000),
        ("desktop", 55_000),
        ("mnist", 20_000),
        ("avatars", 4_000),
        ("cifar10", 20_000),
        ("paper", 55_000),
    ],
)
def test_training_lasts_until_the_last_sample_grid(name, images):
    from cgi_helpers.pipeline.stages import sample_steps

    assert max(sample_steps(get_preset(name), images)) <= get_preset(name).training.iterations
