"""Plug-ins that take their process with them, or return what no file can hold, beside a healthy one: they lose their rows."""

import re

import pytest
import yaml

from checkouts import ROOT, copy_checkout, results, shrink, smoke

HEAD = """
import ctypes, os, signal, sys, time
import numpy as np
import torch
from cachebench.engine import cost
from cachebench.engine.schedule import Schedule
from cachebench.plugin.method import Method

class Wrong(Method):
    name = "Wrong"
    reference = "an example"
    params = {"refreshes": [12]}
    knob = "refreshes"
    def schedule(self, spec, state=None):
        return Schedule.refresh(spec, range(self.refreshes))
"""
# With its cost known beforehand, so that it runs for the first time where it samples.
SESSION = """
    def rows(self, spec, state=None):
        return cost.mask_rows(self.schedule(spec).compute)
    def session(self, model, spec, state=None):
        {}
        return super().session(model, spec, state)
"""
FIT = "    def fit(self, problem):\n        {}\n        return state, [{{'step': 1}}]\n"
SEGFAULT, KILL = "ctypes.string_at(0)", "os.kill(os.getpid(), signal.SIGKILL)"
# What follows HEAD, and what the row's reason says; None for one that runs.
PLUGINS = {
    "segfault": (SESSION.format(SEGFAULT), r"the job died \(signal 11\); its log: logs/.*/segfault/sample-0.log"),
    "killed": (SESSION.format(KILL), r"the job died \(signal 9; out of memory\?\); its log: "),
    "quits": (SESSION.format("os._exit(0)"), r"the job died \(exit code 0\)"),
    "leaves": (SESSION.format("sys.exit(0)"), r"SystemExit: 0"),
    "endless": (SESSION.format("time.sleep(1000)"), r"the job ran longer than limits.minutes allows, which is 1"),
    "killed_fit": (FIT.format(KILL), r"fit failed: .*the job died \(signal 9"),
    "killed_match": ("    def rows(self, spec, state=None):\n        " + KILL, r"the job died \(signal 9"),
    "texts": (FIT.format("state = {'name': 'text'}"), r"fit: name is a str; tensors, arrays and numbers can be kept"),
    "a_set": ("    params = {'refreshes': {12}}\n", r"refreshes: its values are a set; a list is needed"),
    "no_variants": ("    variants = 'nothing'\n", r"variants: 'nothing' is no parameter; allowed: refreshes"),
    "arrays": (FIT.format("state = {'a': np.ones(2), 'b': 1.0}"), None),
    "shared": (FIT.format("t = torch.ones(4); state = {'a': t, 'b': t[1:]}"), None),
    "numpy_grid": ("    params = {'refreshes': np.arange(12, 13), 'share': list(np.linspace(0, 1, 2))}\n", None),
}


pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    folder = copy_checkout(tmp_path_factory.mktemp("deaths"))
    for name, (text, _) in PLUGINS.items():
        (folder / f"methods/{name}.py").write_text(HEAD + text)
    (folder / "methods/at_import.py").write_text("raise SystemExit('at import')")
    runs = yaml.safe_load((ROOT / "config/smoke.yaml").read_text())["runs"]
    samples = {"count": 8, "shard_size": 8, "batch_size": 4, "paired": 8}
    methods = ["random_skip", *PLUGINS, "at_import"]
    shrink(folder, methods=methods, runs={"tiny-ddim20": runs["tiny-ddim20"]}, samples=samples, limits={"minutes": 1})
    run = smoke(folder)
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-3000:]
    return results(folder)


def test_a_healthy_method_has_all_its_rows(table):
    healthy = table.loc[[("full", 1.0), ("random_skip", 0.65)]]
    assert (healthy.status == "ok").all() and healthy[["fd", "latency_ms_median"]].notna().all(axis=None)


@pytest.mark.parametrize("name", PLUGINS)
def test_what_dies_or_cannot_be_kept_loses_its_own_rows(table, name):
    row, reason = table.loc[(name, 0.65)], PLUGINS[name][1]
    assert row.status == ("failed" if reason else "ok"), row.reason
    assert reason is None or re.search(reason, row.reason)


def test_a_file_that_ends_the_process_when_it_is_read_loses_its_rows(table):
    assert "SystemExit: at import" in table.loc[("at_import", 0.65), "reason"]
