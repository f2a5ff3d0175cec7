"""What every file in methods/ gets for free: the contract of a plug-in (methods/README.md)."""

from itertools import product

import pytest

from cachebench.desk import contract, small
from cachebench.files import atomic
from cachebench.plugin import loader
from quick import METHODS


def subjects():
    """Every method with every run of SPECS. A file's further variants are slow on those runs whose doors other runs have."""
    for name, run in product(METHODS, small.SPECS):
        again = run in ("uvit-2m", "sit") and name != loader.ids(loader.stem(name))[0]
        yield pytest.param((name, run), id=f"{name}-{run}", marks=[pytest.mark.slow] if again else [])


@pytest.fixture(scope="module", params=subjects())
def subject(request, tmp_path_factory):
    """The method on a small DiT under DDIM, U-ViT under DPM-Solver-2 and DPM-Solver++(2M), or SiT under Euler's method."""
    name, run = request.param
    cls, spec = loader.plugin(name), small.SPECS[run]
    if reason := cls().supports(spec):
        pytest.skip(reason)
    return contract.Subject(cls, small.trained(spec.arch), spec, tmp_path_factory.mktemp("fit"))


@pytest.mark.parametrize("rule", contract.RULES, ids=lambda rule: rule.__name__)
def test_every_method_holds(subject, rule):
    try:
        rule(subject)
    except contract.Exempt as why:
        pytest.skip(str(why))


def test_every_rule_is_a_sentence():
    assert len(contract.RULES) > 10 and all(rule.__doc__.endswith(".") for rule in contract.RULES)


@pytest.mark.parametrize("count", [0, 2])
def test_a_file_without_exactly_one_method_is_named(tmp_path, count):
    path = tmp_path / "wrong.py"
    classes = [f"class M{i}(Method):\n    pass\n" for i in range(count)]
    path.write_text("from cachebench.plugin.method import Method\n\n" + "\n".join(classes))
    with pytest.raises(ValueError, match=f"wrong.py: defines {count} Method subclasses, expected exactly one"):
        loader.load(path)


def test_a_plug_in_is_loaded_once_and_again_where_one_of_its_files_changes(tmp_path):
    """Also where another folder has one of its name: what it imports is its own."""
    text = "from cachebench.plugin.method import Method\n\n\nclass M(Method):\n    name = 'M'\n\n    def part(self):\n"
    for folder, part in (("a", "of a"), ("b", "of b")):
        atomic.write_text(tmp_path / folder / "m/__init__.py", f"{text}        from .part import WORD\n\n        return WORD\n")
        atomic.write_text(tmp_path / folder / "m/part.py", f"WORD = {part!r}\n")
    a, b = tmp_path / "a/m", tmp_path / "b/m"
    assert loader.load(a) is loader.load(a) and loader.load(a)().part() == "of a"
    assert [loader.load(path)().part() for path in (b, a, b)] == ["of b", "of a", "of b"]
    atomic.write_text(b / "part.py", "WORD = 'another'\n")  # of another size, by which Python tells it within a second
    assert loader.load(b)().part() == "another"


def test_what_does_more_than_reuse_is_not_exported(small_spec, small_uvit_spec):
    """Drops, scale-shift tables, whole blocks, fewer steps, other stand-ins and networks."""
    for spec in (small_spec, small_uvit_spec):
        more = {"random_drop", "learning_to_drop", "deepcache.uniform", "faster_diffusion.strict"}
        fewer, adjusted = loader.plugin("fewer_steps")(num_steps=3), loader.plugin("block_caching")(iterations=1)
        assert not any(made.only_reuses(spec) for made in [adjusted, fewer, *(loader.plugin(name)() for name in more)])
        assert all(loader.plugin(name)().only_reuses(spec) for name in ("l2c", "fora", "smoothcache", "block_caching"))
