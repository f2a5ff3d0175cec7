"""ClusCa: the released program's clusters and latents under its own draws, K-means, and the card's invariants."""

import pytest
import torch

from cachebench.engine import cost, doors, trajectory
from cachebench.engine.spec import Spec
from cachebench.plugin.loader import plugin
from helpers import Outputs, part_of, relative, sample

module = part_of("clusca")
VECTORS = {  # what the settings of the vectors are
    "N3_O2_K4_g0.005": {"interval": 3, "order": 2, "clusters": 4, "weight": 0.005},
    "N5_O4_K4_g0": {"interval": 5, "order": 4, "clusters": 4, "weight": 0.0},
    "N4_O1_K12_g0.3": {"interval": 4, "order": 1, "clusters": 12, "weight": 0.3},
}
RELEASED = {"passes": 100, "empty": "literal"}
SHARES = [(3, 0.387), (4, 0.310), (5, 0.253), (6, 0.234), (7, 0.195), (9, 0.176)]  # of the card, by interval


class Released(module.ClusCaSession):
    """With the draws of the vectors; notes the labels and centroids of every refresh."""

    def __init__(self, made, spec, of):
        super().__init__(made, spec, torch.device("cpu"))
        self.of, self.found = of, []

    def starts(self, hidden):
        return self.of["init_tokens"].long()

    def picks(self, i):
        return self.of["picks"][self.evaluation, i].long()

    def cluster(self, hidden):
        super().cluster(hidden)
        self.found.append((hidden, self.labels, self.centroids))


@pytest.mark.parametrize("setting", VECTORS)
def test_agrees_with_the_released_program(vectors, golden, model, spec, setting):
    """And neither the masked form, where clusters are empty and the weight counts, nor plain forecasts do."""
    spec, of, start = spec.with_steps(20), vectors("clusca", f"ddim20/{setting}"), (golden["sample/z"], golden["sample/y"])
    made = plugin("clusca")(**VECTORS[setting], **RELEASED)
    assert made.schedule(spec).compute.all(axis=(1, 2)).tolist() == of["full"].bool().tolist()
    watched = Outputs(session := Released(made, spec, of))
    found = trajectory.run(model, spec, watched, *start)
    assert relative(found, of["latents"]) < 1e-5
    if "eps" in of:
        assert relative(torch.stack(watched.outs)[:, :, :4], of["eps"]) < 1e-5
    refreshed = of["labels"][of["full"].bool()]
    assert torch.equal(torch.stack([labels for _, labels, _ in session.found]), refreshed[: len(session.found)].long())
    if "centroids" in of:
        for k, name in enumerate(("kmeans_input", "labels", "centroids")):
            stacked = torch.stack([one[k] for one in session.found])
            assert name == "labels" or relative(stacked, of[name][: len(stacked)]) < 1e-5
    masked = Released(plugin("clusca")(**VECTORS[setting], passes=100), spec, of)
    apart = relative(trajectory.run(model, spec, masked, *start), of["latents"])
    assert (apart > 1e-5) == bool(made.weight and of["empty_clusters"].any())
    plain = plugin("taylorseer")(interval=made.interval, order=made.order)
    assert relative(trajectory.run(model, spec, plain.session(model, spec), *start), of["latents"]) > 1e-5


def test_with_few_passes_clusters_are_those_of_many(vectors, golden, model, spec):
    """The default of 10 has settled on the vectors' states, where each starts from the last."""
    of, spec = vectors("clusca", "ddim20/N3_O2_K4_g0.005"), spec.with_steps(20)
    found = {}
    for passes in (10, 100):
        session = Released(plugin("clusca")(**VECTORS["N3_O2_K4_g0.005"] | {"passes": passes}), spec, of)
        trajectory.run(model, spec, session, golden["sample/z"], golden["sample/y"])
        found[passes] = torch.stack([labels for _, labels, _ in session.found])
    assert (found[10] == found[100]).float().mean() > 0.97


def test_kmeans_gives_labels_of_its_centroids_means_of_their_members_and_zero_without_any():
    x = 9 + torch.randn(3, 20, 5, generator=torch.Generator().manual_seed(0))  # far from zero
    start = x[:, [0, 0, 3, 9]]  # a duplicate leaves the second cluster empty
    labels, centroids = module.kmeans(x, start, 50)
    for row in range(3):
        distances = (x[row, :, None] - centroids[row]).abs().sum(-1)
        assert torch.equal(labels[row], distances.argmin(1))
        for k in range(4):
            mine = x[row, labels[row] == k]
            assert torch.allclose(centroids[row, k], mine.mean(0) if len(mine) else torch.zeros(5), atol=1e-6)
    assert (labels != 1).all() and torch.equal(module.kmeans(x, start, 1)[1], start)


@pytest.fixture(scope="module", params=[("model", "spec"), ("uvit", "uvit_spec")], ids=["dit", "uvit"])
def backbone(request):
    return tuple(request.getfixturevalue(name) for name in request.param)


class Watched(module.ClusCaSession):
    def __init__(self, made, spec):
        super().__init__(made, spec, torch.device("cpu"))
        self.seen = []

    def picks(self, i):
        picks = super().picks(i)
        self.seen.append((self.evaluation, i, self.labels, picks))
        return picks


def test_each_cluster_has_one_computed_member_drawn_for_its_evaluation_and_block(backbone):
    """The halves of a guided pair draw apart, and another seed draws others."""
    model, spec = backbone
    session = Watched(plugin("clusca")(interval=3, clusters=5), spec)
    sample(model, spec, session)
    for _, _, labels, picks in session.seen:
        assert labels.shape == (4, 16) and picks.shape == (4, 5)
        for mine, picked in zip(labels, picks, strict=True):
            assert all(mine[picked[k]] == k if (mine == k).any() else picked[k] == 0 for k in range(5))
    partial = sum(not one for one in session.refreshes)
    assert len({picks.numpy().tobytes() for *_, picks in session.seen}) > 0.9 * partial * spec.arch.blocks
    drawn = session.drawn
    assert len({one.numpy().tobytes() for one in drawn.flatten(0, 2)}) == drawn[..., 0].numel()
    again, other = (module.draws(seed, spec, 5, "cpu")[0] for seed in (0, 1))
    assert torch.equal(again, drawn) and not torch.equal(other, drawn)


def test_a_random_member_is_any_of_them(spec):
    """The highest of independent draws is each member as often."""
    session = module.ClusCaSession(plugin("clusca")(interval=3, clusters=4), spec, torch.device("cpu"))
    session.labels, counts = torch.arange(16).expand(2, -1) // 4, torch.zeros(16)
    for seed in range(40):
        session.drawn = module.draws(seed, spec, 4, "cpu")[0]
        for session.evaluation in range(10):
            for i in range(4):
                counts += session.picks(i).flatten().bincount(minlength=16)
    assert counts.sum() == 40 * 10 * 4 * 8 and (counts - 800).abs().max() < 6 * (800 * 0.75) ** 0.5


def test_without_clusters_it_is_taylorseer(backbone):
    model, spec = backbone
    made, plain = plugin("clusca")(interval=3, order=2, clusters=0), plugin("taylorseer")(interval=3, order=2)
    found, expected = (sample(model, spec, one.session(model, spec)) for one in (made, plain))
    assert torch.equal(found, expected) and made.rows(spec) == plain.rows(spec)
    assert made.store_values(spec) == plain.store_values(spec)
    some = plugin("clusca")(interval=3, order=2, clusters=4).session(model, spec)
    assert relative(sample(model, spec, some), expected) > 1e-4


class Singletons(module.ClusCaSession):
    """Every patch is a cluster of its own: each refresh starts anew from all of them."""

    def cluster(self, hidden):
        self.centroids = None
        super().cluster(hidden)

    def starts(self, hidden):
        return torch.arange(self.clusters).expand(len(hidden), -1)


class Exact(module.ForecastSession):
    """Attention is forecast, and every MLP is computed."""

    def computes(self, i, name):
        return name == "mlp" or super().computes(i, name)


def test_clusters_of_one_token_each_compute_the_mlp_exactly(backbone):
    model, spec = backbone
    made = plugin("clusca")(interval=3, order=1, clusters=16, fresh="exact")
    session = Singletons(made, spec, torch.device("cpu"))
    expected = sample(model, spec, Exact(made.schedule(spec), made.forecaster))
    assert relative(sample(model, spec, session), expected) < 1e-4
    forecast = plugin("clusca")(interval=3, order=1, clusters=16)
    assert relative(sample(model, spec, forecast.session(model, spec)), expected) > 1e-4


def values_of(session, values, spec):
    """What the MLP's door of block 0 gives at every evaluation where the MLP gives `values`, the same for all tokens."""
    found = []
    for e, value in enumerate(values):
        session.begin(e)
        whole = value.expand(2, 16, 3)
        run = doors.Branch(
            lambda z, tokens=None, whole=whole: whole if tokens is None else whole[:, : tokens.shape[1]], lambda h: h
        )
        found.append(session.branch(0, "mlp", torch.zeros(2, 16, 3), run)[0, 0, 0])
        if session.refresh:
            session.labels = torch.arange(16).expand(2, -1) % 4
    return torch.stack(found)


@pytest.mark.parametrize(("slope", "fresh"), [(0.0, "forecast"), (0.0, "exact"), (2.0, "exact")])
def test_what_does_not_change_is_exact_and_a_computed_token_of_a_line_where_its_value_is_the_output(spec, slope, fresh):
    made = plugin("clusca")(interval=3, order=2, clusters=4, fresh=fresh)
    session = module.ClusCaSession(made, spec, torch.device("cpu"))
    session.picks = lambda i: torch.arange(4).expand(2, -1)
    values = slope * torch.arange(10.0) + 1
    assert torch.allclose(values_of(session, values, spec), values)
    if slope:  # as released its own slope still moves a computed token
        session.method.fresh = "forecast"
        session.reset()
        moved = values_of(session, values, spec)
        assert moved[2] == values[2] + slope and not torch.allclose(moved, values)


def test_images_do_not_depend_on_their_batch_and_passes_are_theirs(backbone):
    model, spec = backbone
    made = plugin("clusca")(interval=3, order=1, clusters=4)
    session = made.session(model, spec)
    together = sample(model, spec, session, n=5)
    for image in (0, 4):
        assert relative(sample(model, spec, session, n=1, first_seed=image), together[image : image + 1]) < 1e-4


@pytest.mark.parametrize(("interval", "share"), SHARES)
def test_published_shares_of_the_macs(xl, interval, share):
    """DiT-XL/2 at 50 steps: with all modulations, as the card counts, its digits; the products of K-means are below 0.2 %."""
    spec = Spec(xl, "ddim", num_steps=50, cfg_scale=1.5)
    rows, full = plugin("clusca")(interval=interval).rows(spec), cost.full_rows(spec)
    assert [rows["mlp@16"], rows["mlp"]] == [28 * (50 - rows["mlp"] // 28), 28 * (2 + 48 // interval)]
    whole = cost.image_macs(spec, full)
    assert cost.image_macs(spec, {"spent": rows["spent"]}) / whole < 2e-3
    found = cost.image_macs(spec, rows | {"affine": full["affine"], "spent": 0}) / whole
    assert found == pytest.approx(share, abs=5.1e-4)


def test_its_clusters_are_a_share_of_the_patches_and_no_more_than_there_are(xl, spec, uvit_spec):
    cls = plugin("clusca")
    assert [cls.grid(Spec(arch, "ddim", 10))["clusters"] for arch in (xl, spec.arch, uvit_spec.arch)] == [[16], [1], [1]]
    assert f"mlp@{16 + 2}" in cls(interval=2, clusters=99).rows(uvit_spec)
    assert cls(interval=1).store_values(spec) == 0 and cls(interval=5, order=1).store_values(spec) == 2 * 8 + 1


def test_unknown_forms_are_named(model, spec):
    for name, known in (("fresh", "forecast, exact"), ("empty", "masked, literal")):
        with pytest.raises(ValueError, match=f"{name}: unknown 'none'; allowed: {known}"):
            plugin("clusca")(**{name: "none"}).session(model, spec)
