"""Small functions that several test files use."""

import base64
import re
import runpy
import sys
import zlib
from importlib import import_module
from unittest import mock

import numpy as np
import torch

from cachebench.desk.small import inputs as inputs
from cachebench.desk.small import random_state as random_state
from cachebench.desk.small import relative as relative
from cachebench.desk.small import sample as sample
from cachebench.engine import doors, trajectory
from cachebench.engine.schedule import Schedule
from cachebench.engine.spec import BRANCHES
from cachebench.files import atomic
from cachebench.metrics import extractors
from cachebench.plugin import loader
from cachebench.run import opening
from cachebench.run.folder import Folder
from cachebench.setup import config, matrix


def part_of(plugin, module=None):
    """The module of a plug-in, or one of a plug-in that is a folder."""
    loader.plugin(next(name for name in loader.ids(plugin)))
    return import_module(".".join([loader.PACKAGE, plugin, *([module] if module else [])]))


def unpacked(html):
    """A page's text once it has unpacked itself in a browser."""

    def text(found):
        kind, id, packed = found.groups()
        inside = zlib.decompress(base64.b64decode(packed)).decode()
        return inside if kind == "html" else f"<script{f' id={id}' if id else ''}>{inside}</script>"

    return re.sub('<script type="application/zlib" data-packed="(.*?)" id="(.*?)">(.*?)</script>', text, html)


def random_schedule(shape, seed, share=0.5):
    """A random compute mask whose evaluation 0 is computed in full."""
    mask = np.random.default_rng(seed).random(shape) >= share
    mask[0] = True
    return Schedule(mask)


class Spy(doors.Session):
    """Wraps a session and notes every branch that was really computed: [(evaluation, block, branch), ...]."""

    def __init__(self, session):
        self.session, self.computed, self.reset, self.computes = session, [], session.reset, session.computes

    def begin(self, evaluation, x=None, t=None, y=None):
        self.evaluation = evaluation
        self.session.begin(evaluation, x, t, y)

    def trunk(self, h, run):
        return self.session.trunk(h, run)

    def block(self, i, h, run):
        return self.session.block(i, h, run)

    def branch(self, i, name, h, run):
        return self.session.branch(i, name, h, Noted(run, lambda: self.computed.append((self.evaluation, i, name))))


class Noted:
    """What is behind a branch door; `note()` is called whenever its value is computed."""

    def __init__(self, run, note):
        self.run, self.note = run, note

    def __call__(self, h):
        self.note()
        return self.run(h)

    def values(self, *args, **told):
        self.note()
        return self.run.values(*args, **told)

    def __getattr__(self, name):
        return getattr(self.run, name)


class Outputs(doors.Counted):
    """Wraps a session and notes the guided output of every evaluation, and how many blocks each ran."""

    def __init__(self, session):
        super().__init__(session)
        self.outs, self.blocks = [], []

    def output(self, out):
        self.outs.append(super().output(out))
        self.blocks.append(sum(count for site, count in self.rows.items() if site.startswith("block-")) / len(self.x))
        self.rows.clear()
        return self.outs[-1]


def decides_by_sample(model, spec, settings, common):
    """The first of the `settings`, methods, at which some samples compute where others reuse: at some evaluation the blocks
    that ran are none of the `common` counts. In a batch, alone, in another order and twice over its samples are the same.
    AssertionError if at none of them samples decide for themselves, or if one depends on the others."""
    for made in settings:
        watched = Outputs(made.session(model, spec))
        together = sample(model, spec, watched, n=6)
        if not set(watched.blocks) <= {*common, spec.arch.blocks}:
            break
    else:
        raise AssertionError("in no setting did some samples compute where others reused")
    for chosen in ([0], [5], [4, 2, 0, 5, 3, 1] * 2):
        batch = (values[chosen] for values in inputs(spec, 6))
        assert relative(trajectory.run(model, spec, made.session(model, spec), *batch), together[chosen]) < 1e-4
    return made


class Notes(doors.Session):
    """What passes the doors of a full trajectory: `branches` {(evaluation, block, branch): (stream, value)}, and the stream
    `after` {(evaluation, block)}."""

    def __init__(self):
        self.branches, self.after = {}, {}

    def begin(self, evaluation, x=None, t=None, y=None):
        self.evaluation = evaluation

    def block(self, i, h, run):
        self.after[self.evaluation, i] = run(h)
        return self.after[self.evaluation, i]

    def branch(self, i, name, h, run):
        value = run(h)
        self.branches[self.evaluation, i, BRANCHES.index(name)] = (h, value)
        return value


def settle(path, folder):
    """Fits and matches every method on every run of the config at `path`, in this process, into a tree at `folder`."""
    cfg, tree = config.load(path), Folder(folder)
    for run in cfg["runs"]:
        for name in matrix.method_ids(cfg, run):
            given, states = {"config": path, "run": run, "method": name}, opening.state_files(cfg, folder, run, name)
            for state in states:
                made = {"state": state, "curve": state.with_suffix(".csv"), "report": state.with_suffix(".json")}
                script("fit", **given, fit=state.stem, **made)
            script("match", **given, states=states, out=tree.settings(run, name))


def script(name, **options):
    """Runs one of the workflow's scripts in this process; an option has one value or a list of them."""
    words = [f"{name}.py"]
    for option, values in options.items():
        words += [f"--{option}", *map(str, values if isinstance(values, list) else [values])]
    scripts = atomic.ROOT / "workflow/scripts"
    with mock.patch.object(sys, "argv", words), mock.patch.object(sys, "path", [str(scripts), *sys.path]):
        runpy.run_path(str(scripts / f"{name}.py"))


def register_extractor(entry):
    """Registers the extractor of a config's entry with torch-fidelity: `calculate_metrics(feature_extractor=entry["name"])`.

    torch-fidelity reads images as RGB; the embedded extractor takes the first channel."""
    from torch_fidelity import register_feature_extractor
    from torch_fidelity.feature_extractor_base import FeatureExtractorBase

    class Registered(FeatureExtractorBase):
        def __init__(self, name, features_list, **_):
            super().__init__(name, features_list)
            self.model = extractors.load(entry)

        @staticmethod
        def get_provided_features_list():
            return "features", "logits", "spatial"

        @staticmethod
        def get_default_feature_layer_for_metric(metric):
            return "logits" if metric == "isc" else "features"

        @staticmethod
        def can_be_compiled():
            return False

        @staticmethod
        def get_dummy_input_for_compile():
            return torch.zeros(1, 3, 28, 28, dtype=torch.uint8)

        def forward(self, images):
            values = extractors.extract(self.model, images[:, :1] if isinstance(self.model, extractors.EmbeddedCNN) else images)
            return tuple(values[name] for name in self.features_list)

    register_feature_extractor(entry["name"], Registered)
