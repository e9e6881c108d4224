"""The table of presets."""

from dataclasses import FrozenInstanceError, fields

import pytest

from cgi_helpers.method.masks import MASKS
from cgi_helpers.method.models import Generator
from cgi_helpers.pipeline.presets import PRESETS, Preset, get_preset, subset
from cgi_helpers.pipeline.session import STAGES


def test_the_table_has_the_three_names():
    assert list(PRESETS) == ["smoke", "laptop", "paper"] and all(p.name == n for n, p in PRESETS.items())


def test_default_is_the_environment_then_laptop(monkeypatch):
    monkeypatch.delenv("CGI_PRESET", raising=False)
    assert get_preset() == PRESETS["laptop"]
    monkeypatch.setenv("CGI_PRESET", "smoke")
    assert get_preset().name == "smoke" and get_preset("paper").name == "paper"
    monkeypatch.setenv("CGI_PRESET", "")
    assert get_preset().name == "laptop"
    monkeypatch.setenv("CGI_PRESET", "nonsense")
    with pytest.raises(ValueError, match="Unknown preset 'nonsense': use one of smoke, laptop, paper"):
        get_preset()


@pytest.mark.parametrize("name", ["Laptop", "big", " laptop"])
def test_unknown_preset_lists_the_known_ones(name):
    with pytest.raises(ValueError, match=f"Unknown preset '{name}': use one of smoke, laptop, paper"):
        get_preset(name)


def test_unknown_field_lists_the_known_ones():
    with pytest.raises(ValueError, match="Unknown preset field 'lambda_': known fields are name, dataset, .*lam"):
        get_preset("smoke", lambda_=1)


def test_overrides_make_a_new_preset_and_leave_the_table():
    changed = get_preset("smoke", lam=0.5, layer=1)
    assert (changed.lam, changed.layer, changed.name) == (0.5, 1, "smoke") and PRESETS["smoke"].lam == 1e-4
    assert get_preset(changed, lam=0.7).layer == 1 and get_preset(changed) == changed
    with pytest.raises(FrozenInstanceError):
        changed.lam = 1


def test_every_preset_is_consistent():
    for p in PRESETS.values():
        Generator(2, 1, p.channels, p.size).check_layer(p.layer)
        assert p.mask in MASKS and p.prior in ("normal", "uniform") and p.window % 2 == 1
        assert list(p.shape_stages) == sorted(set(p.shape_stages)) and p.shape_stages[0] == 0 and p.pool >= p.shape_batch
        numbers = {k: v for k, v in vars(p).items() if isinstance(v, (int, float))}
        may_be_zero = {k for k in numbers if k.endswith("_min") or "_r1" in k or k == "amp"}
        assert all(v > 0 or (v == 0 and k in may_be_zero) for k, v in numbers.items())


def test_paper_has_the_numbers_of_the_report():
    p = get_preset("paper")
    assert (p.iterations, p.batch_size, p.lr, p.beta1, p.z_dim, p.size) == (24_000, 64, 2e-4, 0.5, 100, 64)
    assert (p.report_iterations, p.report_lr, p.lam, p.window, p.mask) == (1_000, 0.01, 1e-4, 7, "center")
    assert (p.layer, p.refine_steps, p.step_size, p.shape_batch, p.shape_lr) == (2, 50, 0.1, 60, 2e-4)
    assert p.shape_stages == (0, 0.1, 0.5, 1, 1.5, 2) and p.test_images == 2_000 and p.sample_epochs == (1, 5, 15, 25)


def test_subset_names_fields_that_exist():
    assert subset(get_preset("smoke"), ("lam", "layer")) == {"lam": 1e-4, "layer": 2}
    known = {f.name for f in fields(Preset)}
    for names, _, _ in STAGES.values():
        assert set(names) <= known and len(names) == len(set(names))
    with pytest.raises(KeyError):
        subset(get_preset("smoke"), ("lamda",))


@pytest.mark.parametrize("name, images", [("smoke", 1_000), ("laptop", 55_000), ("paper", 55_000)])
def test_training_lasts_until_the_last_sample_grid(name, images):
    from cgi_helpers.pipeline.stages import sample_steps
    assert max(sample_steps(get_preset(name), images)) <= get_preset(name).iterations
