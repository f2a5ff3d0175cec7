"""What the pipeline wrote, as figures and page read it: settings, what was computed, fits, curves, images. No torch here."""

import itertools
from functools import cache, cached_property, partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from cachebench.files import atomic
from cachebench.plugin import loader
from cachebench.run import match
from cachebench.run.folder import Folder
from cachebench.run.opening import read_states
from cachebench.run.shards import join_shards
from cachebench.setup import matrix

INDEX_COLUMNS = ("step", "iteration", "epoch", "evaluation", "block", "branch")  # of a fit's csv: where, not how well
IMAGES = 10  # in a row of the sample grid; with balanced labels the first ten are one of each class of ten


class Files:
    """What was written below `folder` (results/<name>) for one run, or for all where `run` is None. `frame` holds the results
    of all runs with their comparisons, as tables.read gives them; without it there are no names."""

    def __init__(self, cfg, run, folder, frame=None):
        self.cfg, self.run, self.tree, self.frame = cfg, run, Folder(folder), frame
        self.plugin, self.entries = cache(loader.plugin), cache(self.read_entries)  # a page asks for each again and again
        self.priced = cache(self.price)
        self.count_shards = cache(partial(matrix.shards, cfg))

    @cached_property
    def spec(self):
        """The run's Spec."""
        return matrix.spec(self.cfg, self.run)

    @cached_property
    def names(self):
        """{method id: printed name} of the run: controls first, as in the tables."""
        rows = self.frame[self.frame.run == self.run].sort_values("kind", ascending=False, kind="stable")
        return dict(zip(rows.method, rows.name, strict=True))

    def methods(self):
        return [name for name in self.names if name != "full"]

    def read_entries(self, name):
        """What the matcher chose for a method; nothing yet of a run that has not come so far."""
        path = Path(self.tree.settings(self.run, name))
        return atomic.read_json(path) if path.exists() else []

    def fits(self, name, suffix="safetensors"):
        """Files of the fits that the config asks for; older ones may lie beside them. None for a plug-in that does not load."""
        try:
            cls = self.plugin(name)
            labels = [cls.fit_label(params) for params in matrix.fits(self.cfg, cls, self.run)]
        except loader.FAILURES:  # its rows say why
            return []
        return [Path(self.tree.fit(self.run, name, label, suffix)) for label in labels]

    def fitted(self, name):
        """State files of the fits that are there and succeeded; that of a failed one holds nothing."""
        there = [path for path in self.fits(name) if path.exists() and path.with_suffix(".json").exists()]
        return [path for path in there if not atomic.read_json(path.with_suffix(".json")).get("reason")]

    def computed(self, name, entry):
        """Share of the images that computed each site, [evaluations, blocks, branches], as it was counted while they were
        sampled; or a few words why there is none."""
        paths = self.shards(name, entry.get("budget"))
        if entry.get("status") or not paths:
            return entry.get("status") or "not sampled"
        of_shards, metadata = join_shards(paths, ("computed", "macs"))
        return metadata.get("status") or of_shards["computed"].sum(0).numpy() / len(of_shards["macs"])

    def decided(self, name, entry):
        """What each of the first images computed, uint8 percent [images, evaluations, blocks, branches]; None where all
        computed the same, or it is not known."""
        paths = [] if entry.get("status") else self.shards(name, entry.get("budget"))
        parts = [atomic.read_tensors(path, "np", names=("computed_each",))[0].get("computed_each", ()) for path in paths]
        each = np.concatenate([part for part in parts if len(part)] or [np.empty((0, 1, 1, 1), np.uint8)])
        return each if (each != each[:1]).any() else None

    def times(self, name, entry):
        """The network's time at each evaluation of a setting's trajectory; None where two are the same."""
        spec = self.plugin(name)(**entry["params"]).sampler(self.spec)
        evaluation_times = [float(time) for time in spec.plan.timesteps]
        return evaluation_times if all(a > b for a, b in itertools.pairwise(evaluation_times)) else None

    def schedule(self, name, entry):
        """The Schedule of a setting that only reuses, so that a file of it repeats its samples; None of any other."""
        chosen = None if entry.get("status") else self.plugin(name)(**entry["params"])
        if chosen is None or not chosen.only_reuses(self.spec):
            return None
        states = read_states(self.fits(name)) if chosen.has_fit() else {}
        return chosen.schedule(self.spec, states.get(chosen.fit_label(entry["params"])))

    def price(self, name):
        """[(params, share of the full run's MACs)] of the settings that the matcher chose from; of a method that decides while
        running those that it tried."""
        cls = self.plugin(name)
        if not cls.decides_beforehand():
            curves = ((entry["params"], entry.get("knob", ())) for entry in self.entries(name) if "params" in entry)
            return [(params | {cls.knob: point["value"]}, point["achieved"]) for params, curve in curves for point in curve]
        grid, *_ = matrix.grids(self.cfg, cls, self.run)[0]
        states = read_states(self.fitted(name)) if cls.has_fit() else {}
        counted = match.candidates(cls, self.spec, states, grid)
        return [setting[:2] for setting in match.priced(cls, self.spec, counted)]

    @cached_property
    def traced(self):
        """The run's trace.csv; empty where it is not there yet."""
        path = Path(self.tree.trace(self.run))
        return pd.read_csv(path) if path.exists() else pd.DataFrame(columns=["method", "budget", "latent_mse", "stand_in"])

    def shards(self, name, budget):
        """The files of a setting's samples that are there."""
        paths = (Path(self.tree.shard(self.run, name, budget, shard)) for shard in range(self.count_shards(name)))
        return [path for path in paths if path.exists()]

    def images(self, name, budget):
        """uint8 [n, H, W, C], n <= IMAGES, from the first shards of a setting; n = 0 if it has none."""
        parts = []
        for path in self.shards(name, budget):
            tensors, _ = atomic.read_tensors(path, "np", names=("images",))
            if not len(tensors.get("images", [])) or sum(map(len, parts)) >= IMAGES:
                break
            parts.append(tensors["images"].transpose(0, 2, 3, 1))
        return np.concatenate(parts)[:IMAGES] if parts else np.empty((0, 1, 1, 1), np.uint8)


def curve(path):
    """A fit's csv as a frame; empty for a fit that failed, has no curve, or is not there yet."""
    try:
        return pd.read_csv(path)
    except (pd.errors.EmptyDataError, FileNotFoundError):
        return pd.DataFrame()


def curve_columns(frame):
    """The columns of `curve` that say how the fit went."""
    if as_map := curve_map(frame):
        return list(as_map.values)
    return [c for c in frame.select_dtypes("number").columns[1:] if c not in INDEX_COLUMNS]


class Map(NamedTuple):
    """What was found for each of `columns` and `rows`, {name: `values` [rows, columns]}; `across` and `down` say what these
    are."""

    across: str
    columns: list
    down: str
    rows: list
    values: dict


def curve_map(frame):
    """The Map of a curve of which two or more columns of whole numbers or words, such as evaluation and block, are in front,
    and together name every row; None of any other. Joined to a line its values would be a saw."""
    front = list(itertools.takewhile(lambda name: not pd.api.types.is_float_dtype(frame[name]), frame))
    keys = [name for name in front if frame[name].duplicated().any()]  # one without only numbers the rows
    if len(keys) < 2 or frame.duplicated(keys).any():
        return None
    across = "evaluation" if "evaluation" in keys else keys[-1]
    names = [name for name in keys if name != across]
    rows = frame[names].astype(str).agg(" ".join, axis=1)
    columns, order, values = sorted(frame[across].unique().tolist()), list(dict.fromkeys(rows)), {}
    for name in frame.columns[len(front) :]:
        values[name] = frame.pivot_table(name, rows, across, dropna=False).reindex(order)[columns].to_numpy(float)
    return Map(across, columns, names[0], order, values)


def mosaic(rows):
    """One image [H, W] or [H, W, 3] of rows of uint8 images [n, h, w, c], white between them."""
    _, h, w, c = rows[0].shape
    gap = max(1, h // 14)
    canvas = np.full((len(rows) * (h + gap) - gap, IMAGES * (w + gap) - gap, c), 255, np.uint8)
    for i, row in enumerate(rows):
        for j, image in enumerate(row):
            canvas[i * (h + gap) :, j * (w + gap) :][:h, :w] = image
    return canvas[..., 0] if c == 1 else canvas[..., :3]
