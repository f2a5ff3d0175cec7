"""`cachebench settle`: looks with more and more images, until nothing waits; it goes on where it was stopped."""

import pytest
import yaml

from cachebench.__main__ import main
from cachebench.desk import settling
from cachebench.files import atomic
from cachebench.judge import pairs, results
from cachebench.setup import config
from judge.test_pairs import example

SMOKE = atomic.ROOT / "config/smoke.yaml"


@pytest.fixture
def looked(tmp_path, monkeypatch):
    """(path of a config, counts of the looks so far): Snakemake is replaced by one that settles `good` at its third look."""
    monkeypatch.chdir(tmp_path)
    cfg = yaml.safe_load(SMOKE.read_text())
    cfg["samples"] = {"count": 2100, "until": "settled", "batch_size": 50}
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(cfg))
    counts, dies = [], []

    def run(files, words):
        assert files[0] == "c.yaml" and words == ["--cores", "all"]
        samples = config.read(files[1])["samples"]
        counts.append(samples["count"])
        assert samples["most"] == 2100
        if samples["count"] in dies:
            dies.remove(samples["count"])
            return 1
        frame, scored = example(good=5.7)
        rows = pairs.comparisons(frame, scored)
        rows = [row | {"settled_at": 1500 if samples["count"] >= 1500 and "verdict" in row else None} for row in rows]
        frame[list(results.columns())].to_csv("results/smoke/results.csv", index=False)
        atomic.write_csv("results/smoke/comparisons.csv", rows, pairs.columns())
        return 0

    monkeypatch.setattr(settling, "run", run)
    return counts, dies


def test_it_looks_until_nothing_waits(looked, capsys):
    assert main(["settle", "--configfile", "c.yaml"]) == 0
    assert looked[0] == [500, 1000, 1500]
    out = capsys.readouterr().out.splitlines()
    assert out[0] == "500 images of at most 2100: not yet settled: good at 0.5 of r_1."
    assert out[2] == "1500 images of at most 2100: every verdict is settled."


def test_it_goes_on_at_the_look_at_which_it_was_stopped(looked):
    counts, dies = looked
    dies.append(1000)
    assert main(["settle", "--configfile", "c.yaml"]) == 1 and counts == [500, 1000]
    assert main(["settle", "--configfile", "c.yaml"]) == 0 and counts[2:] == [1000, 1500]
    assert main(["settle", "--configfile", "c.yaml"]) == 0 and counts[4:] == [1500]


@pytest.mark.parametrize(
    ("samples", "words", "told"),
    [
        ({"count": 2000}, [], "c.yaml: samples.until: key missing"),
        ({"count": 2000, "until": "settled"}, ["--", "--config", "a=1"], "--config: put it into a file"),
        ({"count": 2000, "until": "late"}, [], "samples.until: 'late' is not one of"),
        ({"count": 2000, "most": 1000, "until": "settled"}, [], "samples.most: 1000: it is set by `cachebench settle`"),
        ({"count": 2000, "most": 3000}, [], "samples.most: 3000: it is set by `cachebench settle` beside samples.until"),
    ],
)
def test_what_is_wrong_is_one_line(samples, words, told, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    cfg = yaml.safe_load(SMOKE.read_text()) | {"samples": samples}
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(cfg))
    assert main(["settle", "--configfile", "c.yaml", *words]) == 1
    assert told in capsys.readouterr().err
