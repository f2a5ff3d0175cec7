"""The plug-ins that docs/doors.md prints, one a door, on both backbones; and what a session that goes wrong is told."""

import re

import pytest
import torch

from cachebench.engine import cost, doors, trajectory
from cachebench.files import atomic
from cachebench.plugin import loader
from helpers import inputs, relative, sample

PRINTED = re.findall(r"```python\n(.*?)```", (atomic.ROOT / "docs/doors.md").read_text(), re.S)


@pytest.fixture(scope="module", params=PRINTED, ids=lambda text: text[3:].partition(":")[0].lower())
def cls(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("methods") / "example.py"
    path.write_text(request.param)
    return loader.load(path)


@pytest.fixture(scope="module", params=[("small_model", "small_spec"), ("small_uvit", "small_uvit_spec")], ids=["dit", "uvit"])
def backbone(request):
    return tuple(request.getfixturevalue(name) for name in request.param)


@pytest.mark.parametrize("place", [0, 2, -1])
def test_a_printed_plugin_holds_the_contract(cls, backbone, place):
    """Its first value is the full run; it costs what torch dispatches; a sample does not depend on its batch."""
    model, spec = backbone
    made = cls(**{cls.knob: cls.params[cls.knob][place]})
    counted = doors.Counted(made.session(model, spec))
    together = sample(model, spec, counted, n=4)
    assert torch.equal(together, sample(model, spec, n=4)) or place
    each = counted.macs(spec.arch, 4 * spec.rows).view(spec.rows, 4).sum(0)
    shares = counted.shares_of_rows(spec.mask_shape, 4 * spec.rows).unflatten(0, (spec.rows, 4)).mean(0)
    for image in range(4):  # what an image costs in a batch is what it costs alone, and so is what it computes
        alone = doors.Counted(made.session(model, spec))
        sample(model, spec, alone, n=1, first_seed=image)
        assert cost.total(spec.arch, alone.rows) == each[image]
        assert torch.allclose(alone.shares(spec.mask_shape, spec.rows), shares[image])
    counted.clear()
    dispatched = cost.count_macs(lambda: sample(model, spec, counted, n=1))
    assert cost.total(spec.arch, counted.rows) == dispatched
    assert dispatched < cost.image_macs(spec, cost.full_rows(spec)) or place != -1
    for first in (0, 3):
        alone = sample(model, spec, made.session(model, spec), n=1, first_seed=first)
        assert relative(alone, together[first : first + 1]) < 1e-4


@pytest.mark.parametrize("door", ["network", "trunk", "block", "branch"])
@pytest.mark.parametrize("part", [(slice(1),), (..., slice(1), slice(None))], ids=["rows", "tokens"])
def test_another_number_of_rows_or_tokens_is_named_with_its_door(backbone, door, part):
    model, spec = backbone

    class Less(doors.Session):
        pass

    setattr(Less, door, lambda self, *entered: entered[-1](entered[-2])[part])
    named = {"network": "network", "trunk": "trunk", "block": "block 0", "branch": "attn of block 0"}[door]
    with pytest.raises(ValueError, match=rf"door {named}: the session returned \[.*\], expected \["):
        sample(model, spec, doors.Counted(Less()))


def test_rows_at_every_door_are_the_rows_of_the_whole(backbone):
    """Each door asked for its rows one after the other gives what it gives for all."""
    model, spec = backbone

    class Apart(doors.Session):
        def apart(self, h, run):
            return torch.cat([run.rows([k])(h[[k]]) for k in range(len(h))])

        network = trunk = apart
        block = branch = lambda self, *entered: self.apart(*entered[-2:])

    whole = sample(model, spec)
    for door in ("network", "trunk", "block", "branch"):
        one = type("One", (doors.Session,), {"apart": Apart.apart, door: getattr(Apart, door)})
        assert relative(sample(model, spec, one()), whole) < 1e-4


def test_the_input_of_block_0_is_the_same_from_every_door(backbone):
    model, spec = backbone
    seen = {}

    class Look(doors.Session):
        def network(self, x, run):
            seen.setdefault("network", run.door(0, "attn").input(x))
            return run(x)

        def trunk(self, h, run):
            seen.setdefault("trunk", run.door(0, "attn").input(h))
            return run(h)

        def block(self, i, h, run):
            seen.setdefault("block", run.door(0, "attn").input(h))
            return run(h)

        def branch(self, i, name, h, run):
            seen.setdefault("branch", run.input(h))
            return run(h)

    counted = doors.Counted(Look())
    dispatched = cost.count_macs(lambda: trajectory.run(model, spec, counted, *inputs(spec, 1)))
    assert len(seen) == 4 and all(torch.allclose(z, seen["branch"], atol=1e-6) for z in seen.values())
    assert cost.total(spec.arch, counted.rows) == dispatched  # what `door` computes is counted


def test_what_a_session_multiplies_itself_is_counted(small_model, small_spec):
    class Spends(doors.Session):
        def begin(self, evaluation, x=None, t=None, y=None):
            self.spend(7)

    counted = doors.Counted(Spends())
    sample(small_model, small_spec, counted)
    assert counted.rows["spent"] == 7 * small_spec.num_evaluations


def test_the_output_after_guidance_may_be_replaced(small_model, small_spec):
    class Zero(doors.Session):
        def output(self, out):
            assert out.shape == (2, small_spec.arch.out_channels, 4, 4)
            return 0 * out

    noise, labels = inputs(small_spec)
    found = trajectory.run(small_model, small_spec, doors.Counted(Zero()), noise, labels)
    signal = small_spec.plan.signal
    assert torch.allclose(found, noise * signal[-1] / signal[0], atol=1e-4)  # no noise predicted: x0 all along
    assert all(a**2 + b**2 == pytest.approx(1) for a, b in zip(signal, small_spec.plan.noise, strict=True))


@pytest.mark.parametrize("name", ["teacache.identity", "easycache", "fora"])
def test_waits_for_the_device_are_the_evaluations_at_which_it_decides(backbone, name):
    """However many rows there are and whatever it decides; a static schedule never waits."""
    model, spec = backbone
    decided = {"teacache.identity": spec.num_evaluations - 2 - spec.first_counted, "easycache": spec.num_evaluations - 3}
    cls = loader.plugin(name)
    for value, n in ((cls.grid(spec)[cls.knob][-1], 1), (cls.grid(spec)[cls.knob][len(cls.grid(spec)[cls.knob]) // 2], 3)):
        session = cls(**{cls.knob: value}).session(model, spec)
        sample(model, spec, doors.Counted(session), n=n)
        assert session.syncs == decided.get(name, 0)
