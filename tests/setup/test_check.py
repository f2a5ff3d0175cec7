"""Every mistake of a config is one line that names its key, before any work; and what means the same is taken as the same."""

import itertools
import math
import os
import time
from copy import deepcopy
from datetime import date

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from snakemake.utils import update_config

from cachebench.engine import spec
from cachebench.engine.backbones import checkpoints
from cachebench.files import atomic
from cachebench.plugin import loader
from cachebench.plugin.values import meant
from cachebench.setup import check, config, matrix, sources

SMOKE = (atomic.ROOT / "config/smoke.yaml").read_text()


def smoke(**changes):
    return yaml.safe_load(SMOKE) | changes


def refused(values, check=check.check):
    """The one line that the check says."""
    with pytest.raises(config.ConfigError) as caught:
        check(values)
    assert "\n" not in str(caught.value)
    return str(caught.value).removeprefix("config: ")


def put(values, where, value):
    """Sets the key that `where` leads to, with dots between names and numbers of entries."""
    *path, last = where.split(".")
    for key in path:
        values = values[int(key) if isinstance(values, list) else key]
    values[int(last) if isinstance(values, list) else last] = value


def numbers(values, where=""):
    """{place: number} of every number in a config."""
    if isinstance(values, dict | list):
        entries = values.items() if isinstance(values, dict) else enumerate(values)
        return {k: v for key, value in entries for k, v in numbers(value, f"{where}.{key}".lstrip(".")).items()}
    return {where: values} if isinstance(values, int | float) and not isinstance(values, bool) else {}


FILLED = config.fill(smoke())
PLACES = numbers(FILLED)


@pytest.mark.parametrize("values", [(math.nan, "many", {}), (math.inf, "nan", True), (-math.inf, "inf", [1])])
def test_what_is_no_number_is_named_wherever_it_stands(values):
    for where, value in zip(PLACES, itertools.cycle(values), strict=False):
        if ".params." in f".{where}":  # for the methods to say
            continue
        put(cfg := deepcopy(FILLED), where, value)
        assert refused(cfg, config.fill).startswith(f"{where}: {value!r} is not ")


def test_numbers_written_otherwise_are_the_same():
    """As text with an exponent, which is what PyYAML makes of 1e-3; whole ones with a point."""
    for write in (lambda n: f"{n:.10e}", str, lambda n: float(n) if isinstance(n, int) else n):
        cfg = deepcopy(FILLED)
        for where, number in PLACES.items():
            put(cfg, where, write(number))
        found = numbers(check.check(cfg))
        assert found == PLACES and [*map(type, found.values())] == [*map(type, PLACES.values())]


def test_a_number_without_a_dot_reaches_the_method():
    values = yaml.safe_load(SMOKE.replace("lambda: [1.0e-3]", "lambda: [1e-3]"))
    assert values["params"]["l2c"]["lambda"] == ["1e-3"], "YAML 1.1 reads text"
    assert check.check(values)["params"]["l2c"]["lambda"] == [0.001]


@pytest.mark.parametrize("value", ["three", None, math.nan, True, 2.5, 0, [2]])
def test_a_parameter_is_named_where_it_stands(value):
    setting = [{"budget": 0.4, "fora": {"interval": value}}]
    for where, values in {
        "params.fora.interval": smoke(params={"fora": {"interval": [2, value]}}),
        "runs.r.params.fora.interval": smoke(runs={"r": run(params={"fora": {"interval": [value]}})}),
        "runs.r.settings.0.fora.interval": smoke(runs={"r": run(settings=setting)}),
    }.items():
        assert refused(values).startswith(f"{where}: {value!r} is ")


GIVEN = [(cls, name) for cls in map(loader.load, loader.available().values()) for name in cls.params]


@pytest.mark.parametrize(("cls", "name"), GIVEN, ids=lambda value: value if isinstance(value, str) else value.__name__)
def test_every_method_takes_its_own_values_and_no_others(cls, name):
    own, (lowest, highest) = cls.params[name], cls.ranges.get(name, (-math.inf, math.inf))
    found = [meant(cls, name, value) for value in own]
    assert found == own and [*map(type, found)] == [*map(type, own)]
    outside = [end for end in (lowest - 1, highest + 1) if math.isfinite(end)]
    for value in (3 if isinstance(own[0], str) else "three", None, math.nan, [own[0]], *outside):
        with pytest.raises(ValueError, match=f"^{name}: .* is "):
            meant(cls, name, value)


def run(**changes):
    return smoke()["runs"]["tiny-ddim20"] | changes


NAMES = [20, 8, 1.5, True, None, date(2024, 1, 1), ".", "..", "...", ".hidden", "-n", "a\n", "a,b", "a b", "a/b", "", "ä"]


@pytest.mark.parametrize("name", NAMES)
def test_a_name_that_is_no_folder_is_one_line(name):
    for values in (smoke(runs={name: run()}), smoke(backbones=smoke()["backbones"] | {name: smoke()["backbones"]["dit-tiny"]})):
        assert str(name).strip() in refused(values, config.fill)
    assert refused(smoke(extractor=smoke()["extractor"] | {"name": name}), config.fill).startswith(
        ("extractor.name", "key missing")
    )


@pytest.mark.parametrize("place", ["runs.tiny-ddim20.params", "params", "backbones.dit-tiny.arch", "data"])
def test_a_name_that_is_no_text_is_named_at_any_depth(place):
    values = deepcopy(FILLED)
    put(values, place, {10: {"a": [1]}})
    assert refused(values) == f"{place}: YAML reads a name as 10, which is not text; write it in quotes"


def test_every_further_row_of_a_method_at_one_budget_has_a_number():
    """Of fixed settings, or one beside the row that is matched to the budget."""
    two = [{"budget": 0.5, "fora": {"interval": 2}}, {"budget": 0.50, "fora": {"interval": 3}, "random_skip": {}}]
    cfg = check.check(smoke(runs={"r": run(settings=two)}))
    assert matrix.fixed(cfg, "r", "fora") == {0.5: {"interval": 2}}
    assert matrix.fixed(cfg, "r", "fora#2") == {0.5: {"interval": 3}}
    assert {"fora", "fora#2", "random_skip"} <= set(matrix.method_ids(cfg, "r"))
    assert check.check(deepcopy(cfg)) == cfg
    cfg = check.check(smoke(runs={"r": run(settings=two, budgets=[0.5])}))
    assert matrix.budgets(cfg, "r", "fora#2") == [0.5] == matrix.budgets(cfg, "r", "fora#3")
    assert [grid["interval"] for grid, *_ in matrix.grids(cfg, loader.plugin("fora#3"), "r")] == [[3]]
    apart = [two[0], {"budget": 0.5, "random_skip": {"reused": 0.5}}, {"budget": 0.6, "fora": {"interval": 3}}]
    cfg = check.check(smoke(runs={"r": run(settings=apart)}))
    assert matrix.budgets(cfg, "r", "fora") == [0.65, 0.5, 0.6]


def test_the_network_of_lpips_is_a_file_that_is_there_or_can_be_fetched(tmp_path):
    entry = {"net": "alex", "weights": str(tmp_path / "alexnet.pth")}
    values = smoke(metrics={"lpips": entry})
    assert refused(deepcopy(values)) == f"metrics.lpips.weights: {entry['weights']}: no such file"
    values["metrics"]["lpips"] |= {"url": "https://example.org/alexnet.pth"}
    assert sources.fetchable(check.check(values))[entry["weights"]] == {"url": "https://example.org/alexnet.pth"}
    assert "metrics.lpips.net: 'resnet' is not one of" in refused(smoke(metrics={"lpips": entry | {"net": "resnet"}}))
    assert refused(smoke(metrics={"infinity": True})).startswith("unknown key 'metrics.infinity'; ")


@pytest.mark.parametrize("seed", ["", "x", "-1", "1.5", "1e3", "0x1", " 1", "1\n", "9" * 30])
def test_random_weights_need_a_whole_number(seed):
    coder = {"autoencoder": {"weights": f"random:{seed}"}}
    places = ("backbones.dit-tiny.weights", "extractor.weights", "backbones.dit-tiny.autoencoder.weights")
    for where, values in zip(places, (smoke(), smoke(), smoke()), strict=True):
        values["backbones"]["dit-tiny"] |= coder if "coder" in where else {}
        put(values, where, f"random:{seed}")
        assert f"{where}: 'random:{seed}'".encode("unicode_escape").decode() in refused(values, config.fill)


@pytest.mark.parametrize("kind", spec.kinds())
def test_a_width_that_passes_is_one_that_the_network_can_have(kind):
    import torch

    built = set()
    for width in range(4, 21):
        arch = {
            "kind": kind,
            "input_size": 4,
            "patch_size": 2,
            "channels": 1,
            "num_classes": 2,
            "depth": 2,
            "heads": 1,
            "width": width,
        }
        values = smoke(backbones=smoke()["backbones"] | {"b": {"arch": arch, "weights": "random:0"}})
        try:
            check.check(values)
        except config.ConfigError as error:
            assert f"backbones.b.arch.width: {width} is " in str(error)
            continue
        network = checkpoints.load({"arch": arch, "weights": "random:0"})
        network.plain(torch.zeros(1, 1, 4, 4), torch.zeros(1), torch.zeros(1, dtype=torch.long))
        built.add(width)
    assert built >= set(range(4, 21, 4))


def test_keys_for_anchors_are_no_part_of_a_config():
    text = SMOKE.replace("name: smoke", "name: smoke\nx-tiny: &tiny {1: 2, lr: [0.1]}\nx-: 3")
    assert check.check(yaml.safe_load(text)) == check.check(smoke())
    assert refused(smoke(xtiny=1), config.fill).startswith("unknown key 'xtiny'")


@pytest.mark.parametrize("nothing", [None, "null"], ids=["file", "command line"])
def test_null_takes_away_what_another_file_gave(nothing):
    """A run, a network, parameters and keys with a default; and what is needed is missing then. Of `--config` Snakemake makes
    a text of it."""
    values = deepcopy(FILLED)
    update_config(values, {"runs": {"tiny-dpm20": nothing, "tiny-2m8": nothing}, "backbones": {"uvit-tiny": nothing}})
    update_config(values, {"params": {"l2c": nothing}, "tolerance": nothing, "samples": {"paired": nothing}})
    cfg = check.check(values)
    assert [*cfg["runs"]] == ["tiny-ddim20"] and [*cfg["backbones"]] == ["dit-tiny"] and cfg["params"] == {}
    assert cfg["tolerance"] == 0.02 and cfg["samples"]["paired"] == 500
    assert "unknown 'dit-tiny'" in refused(smoke(backbones=smoke()["backbones"] | {"dit-tiny": None}))
    assert refused(smoke(runs={"r": None}), config.fill).startswith("runs: ")
    assert refused(smoke(reference=None), config.fill) == "key missing: 'reference' is a required property"
    assert refused(smoke(runs={"r": run(sampler=None)}), config.fill).startswith("key missing under 'runs.r'")


@pytest.mark.parametrize("kind", ["inception-2015", "embedded"])
def test_statistics_in_the_place_of_images_are_named(tmp_path, kind):
    np.savez(path := tmp_path / "stats.npz", mu=np.zeros(4), sigma=np.eye(4))
    extractor = {"name": "i", "kind": kind, "weights": "random:0"}
    told = refused(smoke(extractor=extractor, reference=str(path)))
    assert told.startswith(f"reference: {path}") and ("holds no arr_0 and no pictures but mu" in told or kind == "embedded")
    told = f"calibration: {path}: holds mu, sigma; labels and images or latents are needed"
    assert refused(smoke(calibration=str(path))) == refused(smoke(calibration=str(tmp_path))) == told
    np.savez(path, labels=np.zeros(4))
    assert "holds no arr_0 and no pictures but labels.npy; " in refused(smoke(extractor=extractor, reference=str(path)))


def test_a_file_from_the_future_is_named(tmp_path, monkeypatch):
    """Whatever a job reads: weights, an extractor, a reference, a calibration set, a method's file, and what one names."""
    (folder := tmp_path / "images").mkdir()
    Image.new("L", (4, 4)).save(folder / "a.png")
    weights, calibration, schedule, plugin = (tmp_path / name for name in ("w.bin", "c.npz", "s.json", "methods/later.py"))
    np.savez(calibration, labels=np.zeros(1), images=np.zeros(1))
    plugin.parent.mkdir()
    plugin.write_text((atomic.ROOT / "methods/fora.py").read_text())
    monkeypatch.chdir(tmp_path)
    extractor, backbones = {"name": "x", "weights": "random:0"}, smoke()["backbones"]
    given = {
        weights: {"backbones": backbones | {"dit-tiny": backbones["dit-tiny"] | {"weights": str(weights)}}},
        calibration: {"calibration": str(calibration)},
        folder: {"extractor": extractor, "reference": str(folder)},
        schedule: {"methods": ["schedule_file"], "params": {"schedule_file": {"path": [str(schedule)]}}},
        plugin: {"methods": ["later"]},
    }
    for path, changes in given.items():
        path.touch()
        check.check(smoke(**deepcopy(changes)))
        os.utime(path, (later := time.time() + 3600, later))
        assert f"{path}: its time, 20" in refused(smoke(**deepcopy(changes)))
        os.utime(path)


@pytest.mark.parametrize("told", ["scaled_linear", None])
def test_weights_that_name_another_noise_are_refused(tmp_path, told):
    """Weights that say nothing are believed."""
    path = str(tmp_path / "weights.safetensors")
    atomic.write_tensors(path, {"a": torch.zeros(1)}, {"noise": told} if told else {})
    arch = smoke()["backbones"]["uvit-tiny"]["arch"]

    def asked(**noise):
        return smoke(backbones={"b": {"arch": arch, "weights": path} | noise}, runs={"r": run(backbone="b")})

    check.check(asked())  # a U-ViT's released noise
    if told:
        line = f"backbones.b.noise: {path} was trained under 'scaled_linear', the config says 'linear'"
        assert refused(asked(noise="linear")) == line
    else:
        check.check(asked(noise="linear"))


def test_what_a_network_predicts_is_checked(tmp_path):
    """Against its sampler, against what the config says of it, and against what its file says."""
    arch, path = smoke()["backbones"]["dit-tiny"]["arch"], str(tmp_path / "weights.safetensors")

    def asked(kind, sampler, of_run=(), **told):
        runs = {"r": run(backbone="b", sampler=sampler) | dict(of_run)}
        return smoke(backbones={"b": {"arch": arch | {"kind": kind}, "weights": "random:0"} | told}, runs=runs)

    check.check(asked("sit", "euler", noise="gvp", prediction="velocity"))
    check.check(asked("sit", "heun", {"timestep_shift": 3.0}))
    assert "runs.r.sampler: ddim takes a predicted noise, sit predicts velocity" in refused(asked("sit", "ddim"))
    assert "runs.r.sampler: euler takes a predicted velocity, dit predicts noise" in refused(asked("dit", "euler"))
    assert "backbones.b.prediction: 'velocity' is not what a network of kind dit" in refused(
        asked("dit", "ddim", prediction="velocity")
    )
    assert "backbones.b.noise: 'scaled_linear'; sit has linear, gvp" in refused(asked("sit", "euler", noise="scaled_linear"))
    assert "runs.r.timestep_shift: moves the times of a flow" in refused(asked("dit", "ddim", {"timestep_shift": 3.0}))
    atomic.write_tensors(path, {"a": torch.zeros(1)}, {"prediction": "velocity", "noise": "linear"})
    line = f"backbones.b.prediction: {path} was trained under 'velocity', the config says 'noise'"
    assert line in refused(asked("dit", "ddim", weights=path))


@pytest.mark.parametrize("name", ["fora@", "fora@4+taylor2", "fora@-1"])
def test_a_name_that_is_made_otherwise_is_one_line(name):
    for values in (smoke(methods=[name]), smoke(params={name: {"interval": [2]}})):
        assert f"method {name!r}: a name is a file's, then .variant, +forecaster, @steps and #number" in refused(values)


def test_methods_may_be_none_or_be_said_by_every_run_alone():
    none = check.check(smoke(methods=[], runs={"r": run()}))
    assert matrix.method_ids(none, "r") == ["full"] and matrix.budgets(none, "r") == []
    values = smoke(runs={"r": run(methods=["fora"]), "s": run(methods=[])})
    del values["methods"]
    cfg = check.check(values)
    assert matrix.method_ids(cfg, "r") == ["full", "fora"] and matrix.method_ids(cfg, "s") == ["full"]
    assert refused(smoke(runs={"r": run()}) | {"methods": None}) == "methods: key missing; runs.r has none of its own"
