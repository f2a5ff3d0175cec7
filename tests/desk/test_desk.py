"""The desk of who adds a method: `cachebench list`, `show`, `new`, `try` and `check`."""

import inspect
import re
import runpy
import subprocess
import sys
import typing

import numpy as np
import pytest

from cachebench import __main__ as desk
from cachebench.desk import checking, contract, shown, template, trial
from cachebench.engine.spec import facts, kinds
from cachebench.files import atomic
from cachebench.plugin import loader, method
from cachebench.run import match

SMOKE = str(atomic.ROOT / "config/smoke.yaml")
KINDS = list(template.kinds())


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A user's folder, in which the command is called."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def command(capsys, *words):
    """(exit code, what it printed, its errors)."""
    code = desk.main(list(words))
    return code, *capsys.readouterr()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("network", checking.NETWORKS)
def test_every_example_is_a_method_that_holds_the_contract(folder, kind, network):
    template.written("mine", kind)
    assert loader.plugin("mine").__name__ == "Mine" and loader.plugin("mine").name == "Mine"
    assert [said for said in checking.broken("mine", network) if "`reference`" not in said] == []


@pytest.mark.parametrize("kind", KINDS)
def test_an_example_is_short_and_its_test_runs(folder, kind):
    made, test = template.written("mine", kind)
    assert len(made.read_text("utf-8").splitlines()) <= 60
    tests = [run for name, run in runpy.run_path(str(test)).items() if name.startswith("test_")]
    assert tests and [run() for run in tests] == [None]
    assert not any(word in test.read_text("utf-8") for word in ("Example", "example"))


@pytest.mark.parametrize("kind", KINDS)
def test_an_example_meets_the_budget_that_new_names(folder, capsys, monkeypatch, kind):
    """What it says next is a trial, on the demo's first run, and not a refusal."""
    said = command(capsys, "new", "mine", "--kind", kind)[1]
    assert said.endswith(f"next: cachebench try mine --budget {template.BUDGET}\n")
    spec, cls = next(iter(shown.runs().values())), loader.plugin("mine")
    state = {"change": np.random.default_rng(0).random((spec.num_evaluations, 2))} if kind == "calibrated" else None
    if not cls.by_mask():  # only a run tells what it costs; one image will do
        monkeypatch.setattr(trial, "TRAJECTORIES", 1)
        entry, _, _ = trial.Trial(None, None, 2, {}).matched("mine", template.BUDGET)
        assert "reason" not in entry
        return
    made = [cls(**params) for params in method.settings(cls.grid(spec))]
    costs = [match.share(spec, one, one.rows(spec, state))[1] for one in made]
    assert min(abs(cost - template.BUDGET) for cost in costs) <= 0.02


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("fora", "'fora': .*methods/fora.py is there already"),
        ("two words", "'two words': a name is a Python name in small letters"),
        ("Mine", "'Mine': a name is a Python name in small letters"),
        ("class", "'class': a name is a Python name in small letters"),
        ("json", "'json': a module that Python imports has this name"),
        ("numpy", "'numpy': a module that Python imports has this name"),
    ],
)
def test_a_name_that_will_not_do_is_one_line(folder, name, told):
    with pytest.raises(ValueError, match=told) as caught:
        template.written(name, "schedule")
    assert "\n" not in str(caught.value) and not list(folder.iterdir())


def test_no_file_is_written_over(folder, capsys):
    assert command(capsys, "new", "mine", "--kind", "schedule")[0] == 0
    before = (folder / "methods/mine.py").read_text()
    code, _, errors = command(capsys, "new", "mine", "--kind", "forecast")
    assert code == 1 and "methods/mine.py is there already" in errors and (folder / "methods/mine.py").read_text() == before
    code, _, errors = command(capsys, "new", "other", "--kind", "nonsense")
    assert code == 1 and errors == f"cachebench new: --kind: unknown 'nonsense'; allowed: {', '.join(KINDS)}\n"


BROKEN = {
    "a syntax error": ("class Mine(Method)\n    pass\n", "SyntaxError: .*mine.py, line 2"),
    "an attribute that is not there": (
        "class Mine(Method):\n    name = reference = 'Mine'\n    params = {'a': [1]}\n\n"
        "    def schedule(self, spec, state=None):\n        return spec.nonsense\n",
        "AttributeError: .*nonsense.*mine.py, line 7",
    ),
    "a wrong shape": (
        "class Mine(Method):\n    name = reference = 'Mine'\n    params = {'a': [1]}\n\n"
        "    def schedule(self, spec, state=None):\n        from cachebench.engine.schedule import Schedule\n"
        "        import numpy\n        return Schedule(numpy.ones(3))\n",
        r"ValueError: schedule: shape \(3,\).*mine.py, line 9",
    ),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_what_is_broken_is_named_with_its_line(folder, capsys, fault):
    text, told = BROKEN[fault]
    (folder / "methods").mkdir()
    (folder / "methods/mine.py").write_text("from cachebench.plugin.method import Method\n" + text)
    said = checking.broken("mine", "dit")
    assert any(re.search(told, one) for one in said), said
    code, _, errors = command(capsys, "try", "mine", "--budget", "0.6", "--config", SMOKE, "--images", "2")
    assert code == 1 and errors.splitlines()[-1].startswith("cachebench try: mine: ") and "mine.py" in errors.splitlines()[-1]


def test_a_method_without_a_knob_or_on_another_grid_holds_the_contract(folder):
    """What it cannot hold by its nature, it is exempt from."""
    (folder / "methods").mkdir()
    (folder / "methods/even.py").write_text(
        '"""Every second evaluation."""\nfrom cachebench.engine.schedule import Schedule\n'
        "from cachebench.plugin.method import Method\n\n\nclass Even(Method):\n    name = reference = 'Even'\n\n"
        "    def schedule(self, spec, state=None):\n        return Schedule.refresh(spec, range(0, spec.num_evaluations, 2))\n"
    )
    (folder / "methods/fewer.py").write_text(
        '"""Two steps less."""\nfrom cachebench.plugin.method import Method\n\n\nclass Fewer(Method):\n'
        "    name = reference = 'Fewer'\n\n    def sampler(self, spec):\n"
        "        return spec.with_steps(max(1, spec.num_steps - 2))\n"
    )
    for name in ("even", "fewer"):
        for network in checking.NETWORKS:
            assert checking.broken(name, network) == []


def test_check_counts_rules_and_names_the_networks(folder, capfd):
    """A rule that is broken on four networks is one, in one line; the contract is gone through once."""
    template.written("mine", "schedule")
    assert desk.main(["check", "mine"]) == 1
    said = capfd.readouterr().out
    assert said.count("broken") == 2 and said.count("\n  holds  ") == len(contract.RULES) - 1
    assert f"broken on {', '.join(checking.NETWORKS)}: a method from a paper names it in `reference`\n" in said
    assert "\n1 rule is broken\n" in said and "\n1 passed in" in said


def test_what_is_exempt_or_broken_is_told_once():
    of = {"dit": "holds", "uvit": "exempt: It has no knob.", "sit": "broken: it rises"}
    assert checking.stands("It falls.", of) == [
        "  It falls.",
        "      broken on sit: it rises",
        "      exempt on uvit: It has no knob.",
    ]
    assert checking.stands("It falls.", {"dit": "holds", "sit": "holds"}) == ["  holds        It falls."]


def test_the_list_knows_every_kind_of_backbone(capsys):
    said = command(capsys, "list")[1]
    (line,) = [line for line in said.splitlines() if line.startswith("easycache_flow ")]
    assert re.search(r"threshold 0 to 100 +SiT +EasyCache", line)
    (line,) = [line for line in said.splitlines() if line.startswith("fora ")]
    assert all(facts(kind).NAME in line for kind in kinds())
    assert "SiT" not in command(capsys, "list", "--config", SMOKE)[1]


def test_a_trial_says_cost_error_and_contract(folder, capsys):
    words = ("--budget", "0.65", "--config", SMOKE, "--images", "4")
    code, said, _ = command(capsys, "try", "random_skip", *words)
    assert code == 0 and "random_skip" in said and "fewer_steps" in said
    assert "rules hold on dit, 0 broken" in said
    (spent,) = re.findall(r"^time: (.*) s, of these (.*)$", said, re.M)
    items = dict(item.rsplit(" ", 1) for item in spent[1].split(", "))
    assert {"imports", "network", "match", "samples of full", "contract", "picture", "other"} <= items.keys()
    assert abs(sum(map(float, items.values())) - float(spent[0])) <= 0.05 * (len(items) + 1)  # as they are rounded
    assert (folder / "results/try/tiny-ddim20/random_skip.png").stat().st_size > 10_000
    assert not (folder / "results/smoke").exists()


def test_a_trial_fits_once_also_what_the_run_does_not_list(folder, capsys):
    words = ("try", "magcache", "--budget", "0.65", "--config", SMOKE, "--images", "2")
    assert "fitting magcache" in command(capsys, *words)[1]
    assert "fitting" not in command(capsys, *words)[1]


def test_a_budget_that_cannot_be_met_names_the_nearest_costs_and_the_lines_of_a_row(folder, capsys):
    code, said, _ = command(capsys, "try", "fora", "--budget", "0.8", "--config", SMOKE, "--images", "2")
    assert code == 1 and "no setting costs 0.8 of the full run" in said
    assert "    - {budget: 0.8, fora: {interval: " in said


def test_a_method_that_does_not_run_there_says_its_sentence(folder, capsys):
    code, _, errors = command(capsys, "try", "faster_diffusion.repaired", "--budget", "0.6", "--config", SMOKE)
    assert code == 1 and errors.startswith("cachebench try: faster_diffusion.repaired does not run on tiny-ddim20: ")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("try", "nonsense", "--budget", "0.5", "--config", SMOKE), "unknown 'nonsense'; allowed: "),
        (("try", "fora", "--budget", "5", "--config", SMOKE), "--budget: 5 is outside (0, 1]"),
        (("try", "fora", "--budget", "0.5", "--config", SMOKE, "--run", "x"), "--run: unknown 'x'; allowed: tiny-ddim20"),
        (("try", "fora", "--budget", "0.5", "--config", SMOKE, "--images", "1"), "--images: 1 are too few"),
        (("show", "fora", "interval"), "'interval': a parameter is given as name=value"),
        (("show", "fora", "n=2"), "fora: unknown parameter n; allowed: interval, anchor"),
        (("show", "fora", "interval=x"), "interval: 'x' is not a whole number"),
        (("check", "nonsense"), "unknown 'nonsense'; allowed: "),
        (("show", "nonsense"), "unknown 'nonsense'; allowed: "),
        (("list", "--config", "empty.yaml"), "empty.yaml: holds nothing; keys are needed"),
        (("list", "--config", "list.yaml"), "list.yaml: holds a list; keys are needed"),
        (("settle", "--configfile", "torn.yaml"), "torn.yaml: no YAML: while parsing"),
    ],
)
def test_a_mistake_is_one_line(folder, capsys, words, told):
    for name, text in {"empty": "", "list": "- a", "torn": "a: [b"}.items():
        atomic.write_text(f"{name}.yaml", text)
    code, _, errors = command(capsys, *words)
    assert code == 1 and told in errors and errors.count("\n") == 1


def test_two_grids_of_as_many_steps_are_told_apart():
    """By the times at which they evaluate."""
    drawn = {run: "\n".join(shown.shown("full", run, spec, {})) for run, spec in shown.runs(SMOKE).items()}
    assert len(set(drawn.values())) == len(drawn) and "t =     999" in drawn["tiny-ddim20"]


def test_list_and_show_import_no_torch():
    for words in (["list"], ["show", "fora"]):
        code = f"import sys; from cachebench.__main__ import main; main({words}); print('torch' in sys.modules)"
        said = subprocess.run([sys.executable, "-c", code], cwd=atomic.ROOT / "workflow", capture_output=True, text=True)
        assert said.stdout.endswith("False\n"), said.stderr


def test_a_file_that_does_not_load_is_listed_with_its_reason(folder):
    (folder / "methods").mkdir()
    (folder / "methods/mine.py").write_text("import nonsense\n")
    (line,) = [line for line in shown.listed(shown.runs(SMOKE)) if line.startswith("mine ")]
    assert "failed" in line and "No module named 'nonsense'" in line


def test_the_method_is_typed(monkeypatch):
    """All its attributes, and what its methods take and give; each of the types is one."""
    monkeypatch.setattr(typing, "TYPE_CHECKING", True)
    told = runpy.run_path(method.__file__, run_name="cachebench.plugin.typed")
    cls = told["Method"]
    public = {name: getattr(cls, name) for name in vars(cls) if name[0] != "_"}
    functions = {name: value for name, value in public.items() if inspect.isroutine(value)}
    assert len(functions) > 15 and public.keys() - functions.keys() <= typing.get_type_hints(cls, told).keys()
    for name, function in functions.items():
        taken = {key for key in inspect.signature(function).parameters if key != "self"}
        assert typing.get_type_hints(function, told).keys() == taken | {"return"}, name
