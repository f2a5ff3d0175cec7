"""Many images on whatever memory there is: shards, batches that do not fit, and what a shard keeps."""

import gc
from pathlib import Path

import pytest
import torch

from cachebench.engine import cost, pixels
from cachebench.files import atomic
from cachebench.metrics import extractors
from cachebench.plugin.loader import plugin
from cachebench.run import opening, sample, shards
from cachebench.setup import config, matrix

SMOKE = Path(__file__).resolve().parents[2] / "config/smoke.yaml"
COUNT = 16


@pytest.fixture(scope="module")
def cfg():
    return config.load(SMOKE)


@pytest.fixture(scope="module")
def fora(cfg):
    """FORA on the smoke configuration's DiT."""
    model, spec = opening.run_model(cfg, "tiny-ddim20", "cpu"), matrix.spec(cfg, "tiny-ddim20")
    return opening.Setting({}, plugin("fora")(interval=2), None, spec, model)


@pytest.fixture(scope="module")
def extractor(cfg):
    return extractors.load(cfg["extractor"])


def samples(**changes):
    return {
        "count": COUNT,
        "blocks": 1,
        "full_blocks": 1,
        "first_seed": 0,
        "labels": "random",
        "batch_size": 2,
        "shard_size": COUNT,
        "paired": 3,
    } | changes


def identity(x):
    return x


def test_eight_shards_and_one_give_the_same_features(fora, extractor, tmp_path):
    """Also what the score reads of them: all features, the first `paired` images, in order of the samples."""
    joined = {}
    for count in (1, 8):
        chosen, paths = samples(shard_size=COUNT // count), []
        for shard in range(count):
            paths.append(tmp_path / f"{count}/shard-{shard}.safetensors")
            atomic.write_tensors(paths[-1], *sample.sample_shard(chosen, fora, identity, extractor, shard))
        joined[count], _ = shards.join_shards(reversed(paths))
        shares = joined[count].pop("computed").sum(0) / COUNT
        assert torch.equal(shares, torch.tensor(fora.method.schedule(fora.spec).compute).double())
    assert set(joined[1]["macs"].tolist()) == {cost.image_macs(fora.spec, fora.method.rows(fora.spec, None))}
    lengths = {name: len(values) for name, values in joined[1].items()}
    assert lengths == dict(features=16, logits=16, macs=16, syncs=16, latents=3, images=3, computed_each=3)
    assert not joined[1]["syncs"].any()  # it is known beforehand
    assert shards.join_shards(paths, ("latents", "images"))[0].keys() == {"latents", "images"}
    assert joined[1].keys() == joined[8].keys()
    assert all(torch.equal(joined[1][name], joined[8][name]) for name in joined[1])


def test_one_bad_batch_among_good_ones_fails_the_shard(fora, extractor, monkeypatch):
    start = sample.start

    def poisoned(samples, arch, part):
        noise, labels, draw = start(samples, arch, part)
        return noise * (torch.nan if part[0] == 2 else 1), labels, draw

    monkeypatch.setattr(sample, "start", poisoned)
    with pytest.raises(ValueError, match="among the samples 0 to 15 are NaN or infinity"):
        sample.sample_shard(samples(), fora, identity, extractor, 0)


@pytest.fixture
def tight(monkeypatch):
    """tight(n): the extractor has memory for n images at once."""
    extract = extractors.extract

    def limit(n):
        def limited(model, images):
            if len(images) > n:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return extract(model, images)

        monkeypatch.setattr(extractors, "extract", limited)

    return limit


def test_a_batch_that_does_not_fit_is_halved_and_the_shard_says_so(fora, extractor, tight):
    expected, plain = sample.sample_shard(samples(batch_size=4), fora, identity, extractor, 0)
    tight(5)
    found, facts = sample.sample_shard(samples(batch_size=COUNT), fora, identity, extractor, 0)
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert facts == plain == {"batch_size_used": 4}
    tight(0)
    with pytest.raises(torch.OutOfMemoryError):
        sample.sample_shard(samples(), fora, identity, extractor, 0)


def test_a_method_that_depends_on_the_batch_says_when_it_was_halved(fora, extractor, tight, monkeypatch, tmp_path):
    monkeypatch.setattr(type(fora.method), "batch_dependent", True)
    paths = [tmp_path / f"shard-{shard}.safetensors" for shard in range(2)]
    for path, memory in zip(paths, (8, 4), strict=True):
        tight(memory)
        chosen = samples(batch_size=8, shard_size=8)
        atomic.write_tensors(path, *sample.sample_shard(chosen, fora, identity, extractor, shards.shard_number(path)))
    assert "reason" not in atomic.read_metadata(paths[0])
    _, facts = shards.join_shards(paths)
    assert facts["batch_size_used"] == 4 and "batches of 4, not 8" in facts["reason"]


def test_nothing_of_a_batch_stays_but_its_features(fora, monkeypatch):
    """Batches of 6 MB of pixels; weighed by the tensors that live, since an allocator's holes are its own affair."""
    live = []

    def extract(model, images):
        storages = [t.untyped_storage() for t in gc.get_objects() if type(t) is torch.Tensor]
        live.append(sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values()))
        return {"features": images.float().mean(dim=(2, 3))}

    monkeypatch.setattr(extractors, "extract", extract)
    monkeypatch.setattr(pixels, "to_pixels", lambda x: x)
    chosen = samples(count=12, shard_size=12, paired=0)
    sample.sample_shard(chosen, fora, lambda x: torch.ones(len(x), 3, 1024, 1024, dtype=torch.uint8), None, 0)
    assert len(live) == 6 and live[0] > 6e6
    assert max(live) - live[0] < 1e6


def test_a_run_in_tf32_is_one_of_the_network_alone(cfg, extractor, monkeypatch):
    """Sampling and timing open their network here; features are float32 whatever it allows, and it is as before afterwards."""
    seen, forward = [], extractor.forward

    def noting(images):
        seen.append((torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32))
        return forward(images)

    monkeypatch.setattr(extractor, "forward", noting)
    run, allowed = cfg["runs"]["tiny-ddim20"], {}
    for precision in ("tf32", "float32"):
        model = opening.run_model(cfg | {"runs": {"r": run | {"precision": precision}}}, "r", "cpu")
        extractors.extract(extractor, torch.zeros(1, 1, 28, 28, dtype=torch.uint8))
        allowed[precision] = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
        assert next(model.parameters()).dtype == torch.float32
    assert allowed == {"tf32": ("high", True), "float32": ("highest", False)} and set(seen) == {("highest", False)}
