"""One entry of the catalog is all that a metric needs: columns, a score with its interval, tables, comparisons and reasons."""

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch

from cachebench.files import atomic
from cachebench.judge import pairs, results
from cachebench.metrics import catalog, scores
from cachebench.metrics.catalog import Metric
from cachebench.report import diff, tables, typeset
from report.test_tables import row

CONFIG = {"groups": 10}
SCALES = {"full": 1.0, "fewer_steps": 1.4, "l2c": 1.2}  # of a method's features and errors


def norms(sample, reference, parts):
    lengths = sample["features"].norm(dim=1).numpy()
    return {"feature_norm": np.array([np.delete(lengths, part).mean() for part in (slice(0, 0), *parts)])}


def worst(sample, full, config):
    return {"worst_pixel": (sample["images"].double() - full["images"].double()).abs().flatten(1).amax(1).numpy()}


@pytest.fixture
def added(monkeypatch):
    """The catalog with three entries more: of the distribution, of single images, and one that is neither better nor worse."""
    new = [
        Metric("feature_norm", "Norm", "of {count} images", -1, norms),
        Metric("worst_pixel", "Worst", "", -1, worst, "image"),
        Metric("neutral", "Neutral", "", 0, lambda *given: {"neutral": norms(*given)["feature_norm"]}),
    ]
    monkeypatch.setattr(catalog, "METRICS", (*catalog.METRICS, *new))


def sample(scale):
    g = torch.Generator().manual_seed(0)
    latents, images = torch.zeros(100, 1, 2, 2), (50 * scale * torch.rand(100, 1, 2, 2, generator=g)).to(torch.uint8)
    return {"features": scale * torch.randn(100, 5, generator=g), "latents": latents, "images": images}


@pytest.fixture
def benchmark(added, tmp_path):
    """(frame read from results.csv and comparisons.csv, rows of the latter by method) of a full run, a control and a method."""
    reference, rows, scored = scores.Reference(sample(1.0)["features"], 50), [], {}
    for name, scale in SCALES.items():
        budget, kind = 1.0 if name == "full" else 0.5, "cache" if name == "l2c" else "control"
        values, replicates, errors = scores.score_setting(sample(scale), sample(1.0), reference, CONFIG)
        errors = {key: list(of) for key, of in errors.items()}
        scored["r_1", name] = {budget: values | {"replicates": replicates, "errors": errors}}
        kept = {key: value for key, value in values.items() if key in results.columns()}
        rows.append(row(name, budget, kind, nfe=10 if name == "fewer_steps" else 20) | kept)
    compared = pairs.comparisons(tables.tidy(pd.DataFrame(rows)), scored)
    pd.DataFrame(rows).reindex(columns=results.columns()).to_csv(tmp_path / "results.csv", index=False)
    atomic.write_csv(tmp_path / "comparisons.csv", compared, pairs.columns())
    frame = tables.read(tmp_path / "results.csv", tmp_path / "comparisons.csv")
    return frame, {line["method"]: line for line in compared}


def test_a_new_entry_is_a_column_a_score_and_a_cell(benchmark):
    frame = benchmark[0]
    assert {"feature_norm", "feature_norm_low", "worst_pixel_high"} <= set(results.columns())
    found = frame[frame.method == "l2c"].iloc[0]
    assert found.feature_norm == pytest.approx(float(sample(1.2)["features"].norm(dim=1).mean()))
    assert found.feature_norm_low < found.feature_norm < found.feature_norm_high
    assert found.worst_pixel_low < found.worst_pixel < found.worst_pixel_high
    table = tables.build(frame, "r_1")
    text, full = typeset.markdown(table), table.groups[0][1][0]
    assert "| Norm ↓ (of 100 images) |" in text and f"**{tables.number(found.feature_norm)} ± " in text
    texts = {column.key: cell.text for column, cell in zip(table.columns, full.cells, strict=True)}
    assert texts["worst_pixel"] == tables.DASH != texts["feature_norm"]  # the first is measured against the full run
    about = {"samples": "x", "fd_label": "FD", "reference_stats": "r", "reason": ""}
    assert "feature_norm" in typeset.plain(about | found[[c for c in found.index if c not in about]].to_dict())


def test_a_new_entry_is_compared(benchmark):
    frame, compared = benchmark
    assert "feature_norm_minus_control" in pairs.columns() and "worst_pixel_minus_control" not in pairs.columns()
    found, norm = compared["l2c"], sample(1.0)["features"].norm(dim=1).mean()
    assert found["feature_norm_minus_control"] == pytest.approx(-0.2 * float(norm), rel=1e-5)
    assert found["feature_norm_minus_control_low"] < found["feature_norm_minus_control"]
    assert {"feature_norm", "worst_pixel"} <= set(found["first_in"].split())
    assert found["neutral_minus_control"] == found["feature_norm_minus_control"] and "neutral" not in found["first_in"]
    assert not {"feature_norm", "worst_pixel"} & set(compared["fewer_steps"]["first_in"].split())
    moved = frame.assign(**{key: frame[key] + 9 for key in catalog.columns(["feature_norm"])})
    assert {line["beyond"] for line in diff.lined_up(frame, moved)} == {"feature_norm"}


def test_a_new_entry_says_why_it_is_missing(monkeypatch):
    lacking = Metric("clip", "CLIP", "", 1, norms, needs="text", without="the extractor gives no text")
    new = lacking, Metric("other", "Other", "", 1, norms, needs="text", optional=True)
    monkeypatch.setattr(catalog, "METRICS", (*catalog.METRICS, *new))
    found, _ = scores.score_images(sample(1.0), scores.Reference(sample(1.0)["features"], 50), CONFIG)
    assert "clip" not in found and "clip: the extractor gives no text" in found["reason"] and "other" not in found["reason"]


def test_the_catalog_has_no_torch_and_each_key_once():
    keys = catalog.result_keys()
    assert len(set(keys)) == len(keys) == len(catalog.METRICS)
    words = "import sys; import cachebench.metrics.catalog; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", words], cwd=atomic.ROOT / "workflow").returncode == 0
