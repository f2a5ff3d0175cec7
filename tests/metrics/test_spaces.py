"""Further extractors: each adds a Frechet distance that is a metric like the others, and a finding may turn in its features."""

import re

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from cachebench.files import atomic
from cachebench.judge import agreement, answers, pairs, results
from cachebench.metrics import catalog, frechet, intervals, scores, spaces
from cachebench.report import agreement as told
from cachebench.report import answers as words
from cachebench.report import diff, tables, typeset
from cachebench.report.figures import spaces as figure
from cachebench.report.files_of_run import Files
from cachebench.setup import check, config, provenance, sources, stamps
from report.test_tables import row

METRICS = {"groups": 10}
SMOKE = atomic.ROOT / "config/smoke.yaml"
AGAIN = yaml.safe_load(SMOKE.read_text())["extractors"][0]
DRAWN = {"name": "drawn", "weights": "random:1"}
# Of a method the deviations of its features in the two spaces, whose references have 1: in the second the order is turned.
SCALES = {
    "full": (1.0, 1.0),
    "fewer_steps": (1.5, 1.5),
    "fora": (1.2, 2.0),
    "l2c": (1.3, 1.8),
    "toca": (1.4, 1.7),
    "pab": (1.6, 1.6),
}


def features(scale, d, seed):
    return scale * torch.randn(200, d, generator=torch.Generator().manual_seed(seed))


def sample(scales=(1.0, 1.0)):
    return {"features": features(scales[0], 5, 0), "features(x.y)": features(scales[1], 8, 1)}


def reference():
    return scores.Reference(features(1.0, 5, 2), 50, further={"x.y": frechet.Gaussian.of(features(1.0, 8, 3))})


@pytest.fixture
def benchmark(tmp_path):
    """The frame of results.csv and comparisons.csv of a run whose methods are ordered otherwise in the second space."""
    rows, scored = [], {}
    for name, scales in SCALES.items():
        budget, kind = 1.0 if name == "full" else 0.5, "control" if name in ("full", "fewer_steps") else "cache"
        values, replicates = scores.score_images(sample(scales), reference(), METRICS)
        scored["r_1", name] = {budget: values | {"replicates": replicates, "errors": {}}}
        kept = {key: value for key, value in values.items() if key in results.columns(["x.y"])}
        about = {"fd_label": "FD (a)", "fd_label(x.y)": "FD-DINOv2-200", "extractor_digest(x.y)": "0123456789012345"}
        rows.append(row(name, budget, kind, nfe=10 if name == "fewer_steps" else 20) | kept | about)
    frame = tables.tidy(pd.DataFrame(rows))
    frame[list(results.columns(["x.y"]))].to_csv(tmp_path / "results.csv", index=False)
    compared = pairs.comparisons(frame, scored)
    atomic.write_csv(tmp_path / "comparisons.csv", compared, pairs.columns(["x.y"]))
    return tables.read(tmp_path / "results.csv", tmp_path / "comparisons.csv")


def test_the_same_features_again_give_the_same_distance():
    x = sample()["features"]
    both = scores.Reference(features(1.0, 5, 2), 50, further={"x.y": frechet.Gaussian.of(features(1.0, 5, 2))})
    found, replicates = scores.score_images({"features": x, "features(x.y)": x}, both, METRICS)
    assert [found[f"fd(x.y){end}"] for end in catalog.ENDS] == [found[f"fd{end}"] for end in catalog.ENDS]
    assert all(one["fd(x.y)"] == one["fd"] for one in replicates) and found["dimensions(x.y)"] == 5


def test_of_too_few_images_for_its_dimensions_no_difference_is_claimed():
    many = {"x.y": frechet.Gaussian.of(features(1.0, 150, 3))}
    wide = sample() | {"features(x.y)": features(1.0, 150, 1)}
    found, replicates = scores.score_images(wide, scores.Reference(features(1.0, 5, 2), 50, further=many), METRICS)
    assert "fd(x.y): 200 images for 150 dimensions, so that most of it is bias" in found["reason"].split("; ")
    assert intervals.comparable(found) and not intervals.comparable(found, "x.y")
    of_budget = {name: found | {"replicates": replicates, "errors": {}} for name in ("fewer_steps", "fora")}
    assert "fd(x.y)_verdict" not in pairs.by_metric(of_budget, "fewer_steps")["fora"]


def test_a_finding_that_turns_in_another_space_is_seen(benchmark):
    frame = benchmark.set_index("method")
    assert frame.loc["fora", "verdict"] == "better" and frame.loc["fora", "fd(x.y)_verdict"] == "worse"
    assert frame.loc["pab", "verdict"] == frame.loc["pab", "fd(x.y)_verdict"] == "worse"
    assert 0 < frame.loc["fora", "fd(x.y)_minus_control_low"] < frame.loc["fora", "fd(x.y)_minus_control"]
    of_budget = benchmark[benchmark.budget == 0.5]
    assert [answers.answer(of_budget, by).row["method"] for by in ("fd", "fd(x.y)")] == ["fora", "pab"]
    (said,) = told.held(benchmark)
    assert "By FD (x.y), 1 of 4 verdicts against fewer steps are the same; others: FORA at 0.5 (worse, by FD better)" in said
    found = agreement.agreement(benchmark, draws=10)
    assert found["space", "fd(x.y)"]["tau"] == -1
    assert any("for FD (x.y) (1 pair)" in sentence for sentence in told.sentences(found))


def test_it_is_a_column_a_way_to_be_best_and_a_figure(benchmark):
    table = tables.build(benchmark, "r_1")
    text = typeset.markdown(table)
    assert "FD-DINOv2-200 ↓ (x.y, n = 200)" in text and "FD ↓ (tiny_cnn, n = 200)" in text
    cfg = config.fill(yaml.safe_load(SMOKE.read_text()))
    assert words.meanings(cfg) == ["fd", "fd(again)", "closeness"]
    assert words.worded(words.MEANINGS, "fd(x.y)", benchmark) == "lowest FD (x.y)"
    assert figure.wanted(cfg) and not figure.wanted({})
    axis = figure.draw(Files({}, "r_1", "nowhere", benchmark)).axes[0]
    assert {one.get_text() for one in axis.texts} == {"", "FORA, 0.5", "L2C, 0.5", "TOCA, 0.5"}
    assert axis.get_ylabel().startswith("FD (x.y) −")


def test_two_files_are_compared_where_both_have_the_extractor(benchmark):
    moved = benchmark.assign(**{key: benchmark[key] + 9 for key in catalog.columns(["fd(x.y)"])})
    assert {line["beyond"] for line in diff.lined_up(benchmark, moved)} == {"fd(x.y)"}
    other = moved.assign(**{"extractor_digest(x.y)": "other"})
    assert {line["outcome"] for line in diff.lined_up(benchmark, other)} == {"incomparable"}
    without = benchmark.drop(columns=[key for key in benchmark if "(x.y)" in key])
    assert {line["outcome"] for line in diff.lined_up(benchmark, without)} == {"same"}


def test_without_further_extractors_nothing_has_another_name_or_digest(monkeypatch):
    assert spaces.further(results.columns()) == spaces.further(pairs.columns()) == [] and catalog.metrics() == catalog.METRICS
    given = yaml.safe_load(SMOKE.read_text())
    alone = config.fill({key: value for key, value in given.items() if key != "extractors"})
    two, moved = config.fill(given), config.fill(given | {"extractors": [AGAIN | {"reference": alone["calibration"]}]})
    (run, *_), said = alone["runs"], {}
    for name, cfg in {"alone": alone, "two": two, "moved": moved}.items():
        said[name] = stamps.samples(cfg, run), stamps.scores(cfg, run), provenance.config_digest(cfg, run, "fora")
    assert not {"extractors", "references"} & {*said["alone"][0], *said["alone"][1]}
    assert {key: said["two"][1][key] for key in said["alone"][1]} == said["alone"][1]
    assert said["alone"][0] != said["two"][0] == said["moved"][0]  # another reference samples nothing again
    assert len({of[1]["references"]["again"] for name, of in said.items() if name != "alone"}) == 2
    assert len({of[2] for of in said.values()}) == 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"extractors": []}, "extractors: \\[\\] should be non-empty"),
        ({"extractors": [AGAIN, AGAIN]}, "extractors: two are called 'again'"),
        ({"extractors": [AGAIN | {"name": "fmnist-cnn"}]}, "extractors: two are called 'fmnist-cnn'"),
        ({"extractors": [AGAIN | {"kind": "none"}]}, "extractors.0.kind: 'none' is not one of"),
        ({"extractors": [AGAIN | {"train": {}}]}, "unknown key 'extractors.0.train'"),
        ({"extractors": [AGAIN | {"weights": "none.pt"}]}, "extractors.0.weights: none.pt: no such file"),
        ({"extractors": [AGAIN | {"reference": "none"}]}, "extractors.0.reference: unknown 'none'"),
        ({"extractors": [DRAWN]}, "extractors.0.reference: 'fashion-mnist-test' holds features of"),
        ({"extractors": [AGAIN, AGAIN | DRAWN]}, "extractors.1.reference: .* other extractor weights"),
    ],
)
def test_what_is_wrong_with_a_further_extractor_is_one_line(changes, message):
    with pytest.raises(config.ConfigError) as error:
        check.check(yaml.safe_load(SMOKE.read_text()) | changes)
    assert "\n" not in str(error.value)
    assert re.search(message, str(error.value))


def test_each_has_a_reference_of_its_own_and_a_margin_may_be_in_it(tmp_path):
    np.savez(tmp_path / "real.npz", arr_0=np.zeros((4, 28, 28), np.uint8))
    drawn = DRAWN | {"reference": str(tmp_path / "real.npz")}
    cfg = check.check(
        yaml.safe_load(SMOKE.read_text()) | {"extractors": [AGAIN, drawn], "quality": {"metric": "fd(drawn)", "margin": 1}}
    )
    files = {space: sources.reference_file(view) for space, view in sources.spaces(cfg).items()}
    assert files[""] == files["again"] == "reference_stats/fashion-mnist-test.safetensors"
    assert files["drawn"].startswith("results/references/real-")
