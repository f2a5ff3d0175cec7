"""What the panel of a row has: its neighbours, images, lines to copy, and the command that makes it again."""

import re

import numpy as np
import pandas as pd
import pytest
import yaml

from cachebench.files import atomic
from cachebench.plugin import loader
from cachebench.report.files_of_run import Files
from cachebench.report.page import copied, panel
from cachebench.setup import check, config, matrix
from report.pages import configuration, parameters

OUTCOMES = {"ok": {}, "unreachable": {"status": "unreachable"}}


def test_the_nearest_settings_stand_beside_a_row_with_their_costs(tmp_path):
    """Of a row that was reached those on either side; of an unreachable one those around its budget; of a method that decides
    while running those that the matcher tried."""
    files, knob = Files(configuration(["dit-20"]), "dit-20", tmp_path), ((0.1, 0.8), (0.2, 0.52), (0.4, 0.3))
    params = parameters(loader.plugin("easycache"), files.cfg, "dit-20", 0.5) | {"threshold": 0.2}
    tried = [{"value": value, "achieved": achieved} for value, achieved in knob]
    entries = [{"budget": 0.5, "params": params, "achieved": 0.52, "knob": tried}]
    atomic.write_json(tmp_path / "dit-20/easycache/settings.json", entries)
    decides = pd.Series({"method": "easycache", "budget": 0.5})
    assert panel.nearest(files, decides, entries[0]) == [["threshold=0.4", "30.0"], ["threshold=0.1", "80.0"]]
    cost, fora = dict((p["interval"], share) for p, share in files.priced("fora")), pd.Series({"method": "fora", "budget": 0.9})
    entry = {"budget": 0.9, "params": {"interval": 2, "anchor": "descending"}, "achieved": cost[2]}
    told = {status: [text for text, _ in panel.nearest(files, fora, entry | more)] for status, more in OUTCOMES.items()}
    assert told == {"ok": ["interval=3", "interval=1"], "unreachable": ["interval=2", "interval=1"]}


def test_an_unreachable_row_gives_lines_that_the_config_takes(synthetic):
    cfg = config.load(synthetic[0].parent / "config.yaml")
    entry = {"achieved": 0.50123, "params": {"interval": 3, "anchor": "descending"}}
    lines = yaml.safe_load(copied.lines_for(pd.Series({"run": "dit-20", "method": "fora"}), entry))
    (setting,) = lines["runs"]["dit-20"]["settings"]
    assert setting == {"budget": 0.501, "fora": entry["params"]}
    cfg["runs"]["dit-20"]["settings"] = [setting]
    assert matrix.budgets(config.fill(cfg), "dit-20", "fora")[-1] == 0.501


ARXIV = "@misc{{arxiv{0}, eprint = {{{0}}}, archivePrefix = {{arXiv}}, url = {{https://arxiv.org/abs/{0}}}}}"
SOURCES = {
    "arXiv:2407.01425": [ARXIV.format("2407.01425")],
    "arXiv:2511.00090, arXiv:2602.22654": [ARXIV.format("2511.00090"), ARXIV.format("2602.22654")],
    "ComfyUI; arXiv:2507.02860": ["@misc{comfyui, title = {ComfyUI}}", ARXIV.format("2507.02860")],
    "diffusers, cache-dit (DBCache, F8B0)": [
        "@misc{diffusers, title = {diffusers}}",
        "@misc{cache-dit-dbcache-f8b0, title = {cache-dit (DBCache, F8B0)}}",
    ],
    "A Name: Some words (2025) https://example.org/a": [
        "@misc{a-name-some-words-2025, title = {A Name: Some words (2025)}, year = {2025}, url = {https://example.org/a}}"
    ],
    "": [],
}


@pytest.mark.parametrize("reference", SOURCES)
def test_every_source_has_an_entry_of_its_own(reference):
    assert copied.cite(reference).splitlines() == SOURCES[reference]


def test_every_method_with_a_reference_has_an_entry():
    for cls in (loader.plugin(loader.ids(name)[0]) for name in loader.available()):
        assert bool(re.match(r"@misc\{[\w.-]+, ", copied.cite(cls.reference))) == bool(cls.reference), cls.id()


def test_shares_and_images_are_those_of_the_files(synthetic):
    folder, data = synthetic[0].parent, synthetic[1]
    files = Files(config.load(folder / "config.yaml"), "dit-20", folder)
    setting = next(one for one in data["settings"] if one["id"] == "dit-20/l2c/0.5")
    assert setting["computed"] == [[25, 25]] * 16
    assert not any("counted" in one for one in data["settings"] if one["method"] != "l2c")  # known beforehand
    own, full = files.images("l2c", 0.5).astype(int), files.images("full", 1.0).astype(int)
    assert setting["images"]["difference"] == panel.strip((255 - np.minimum(4 * abs(own - full), 255)).astype(np.uint8))


def test_large_images_are_shrunk():
    images = np.random.default_rng(0).integers(0, 256, (10, 256, 256, 3), dtype=np.uint8)
    assert len(panel.strip(images)) < 150_000


@pytest.mark.parametrize("name", ["smoke", "start", "ablation"])
def test_the_config_that_the_command_names_is_one_that_can_be_given(name):
    """results/<name>/config.yaml, which is the filled one; with settings of some runs, and of none."""
    filled = check.check(yaml.safe_load((atomic.ROOT / f"config/{name}.yaml").read_text("utf-8")))
    assert check.check(yaml.safe_load(yaml.safe_dump(filled))) == filled


def test_the_command_names_the_files_of_the_setting(synthetic):
    """Of a row that ran its own samples, of one that could not run its settings, of one that is yet to come nothing."""
    commands, here = {one["id"]: one["command"] for one in synthetic[1]["settings"]}, "results/synthetic/dit-50"
    end = "--cores all --configfile results/synthetic/config.yaml"
    shards = f"{here}/fewer_steps/shard-0.json {here}/fewer_steps/shard-1.json"
    assert commands["dit-50/fewer_steps/0.5"] == (
        f"mv {here}/fewer_steps/0.5 {here}/fewer_steps/0.5-$(date +%s); "
        f"snakemake {here}/fewer_steps/scores.json --forcerun {shards} {end}"
    )
    assert commands["dit-50/fora/0.9"] == f"snakemake {here}/fora/scores.json --forcerun {here}/fora/settings.json {end}"
    files = Files(config.load(synthetic[0].parent / "config.yaml"), "dit-50", "nowhere")
    lost = copied.command(files, pd.Series({"run": "dit-50", "method": "fora", "budget": 0.5}), {"status": "missing"})
    assert lost == f"snakemake {here}/fora/scores.json {end}"
