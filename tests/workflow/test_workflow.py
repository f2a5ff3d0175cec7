"""The real Snakemake on a copy of the checkout: the smoke configuration whole, plug-ins added, edited and broken, SIGKILL."""

import fcntl
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
import tomllib
import zipfile

import pandas as pd
import pytest
import yaml
from snakemake.utils import update_config

from cachebench.files import atomic
from checkouts import MEASURED, ROOT, copy_checkout, python, results, rules_to_run, shrink, smoke, snakemake, texts
from helpers import unpacked

DPM_METHODS = ["full", "fewer_steps", "deepcache.uniform", "deepcache.quadratic", "alternate.outer", "alternate.mid", "l2c"]

BROKEN = {
    "raises": 'raise RuntimeError("out of luck")',
    "nan": "return x * float('nan')",
    "shape": "return x[..., :14]",
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A checkout in which the smoke configuration has run."""
    folder = copy_checkout(tmp_path_factory.mktemp("smoke"))
    run = smoke(folder)
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-3000:]
    return folder


def one_run():
    """The first of the smoke configuration's runs, for tests to which the others would only add figures."""
    runs = yaml.safe_load((ROOT / "config/smoke.yaml").read_text())["runs"]
    return {"tiny-ddim20": runs["tiny-ddim20"]}


def test_smoke_run_fills_every_row(finished):
    table = results(finished)
    assert set(table.index) == {(m, 1.0 if m == "full" else 0.65) for m in table.index.get_level_values(0)}
    ran = table[table.status == "ok"]
    assert {"full", "fewer_steps", "random_skip", "fora_spread", "l2c"} <= set(ran.index.get_level_values(0))
    assert (ran.macs_per_image == ran.macs_counted_per_image).all()
    assert ((ran.achieved - ran.index.get_level_values(1)).abs() <= 0.02).all()
    assert ran.loc[("full", 1.0), "latent_mse"] == 0
    assert (ran.drop(("full", 1.0)).latent_mse > 0).all()
    for metric in ("fd", "inception_score", "kid", "precision", "recall"):
        assert (ran[f"{metric}_low"] <= ran[metric]).all() and (ran[metric] <= ran[f"{metric}_high"]).all()


def test_smoke_run_of_the_second_backbone(finished):
    table = results(finished, "tiny-dpm20")
    assert set(table.index.get_level_values(0)) == set(DPM_METHODS)
    ran = table[table.status == "ok"]
    assert {"fewer_steps", "alternate.outer", "alternate.mid", "l2c"} <= set(ran.index.get_level_values(0))
    assert (ran.macs_per_image == ran.macs_counted_per_image).all()
    assert ran.loc[("full", 1.0), "nfe"] == 20
    page = unpacked((finished / "results/smoke/index.html").read_text())
    assert "half of a solver" in page and "dpm_solver2" in page


def test_smoke_run_of_the_multistep_solver(finished):
    ran = results(finished, "tiny-2m8")
    assert set(ran.index.get_level_values(0)) == {"full", "alternate.outer", "alternate.mid"} and (ran.status == "ok").all()
    assert (ran.macs_per_image == ran.macs_counted_per_image).all() and ran.loc[("full", 1.0), "nfe"] == 8


def test_schedules_are_exported_and_come_back(finished):
    """What `snakemake schedules` writes is what the settings say, and what `schedule_file` reads."""
    import numpy as np

    from cachebench.engine.schedule import Schedule
    from cachebench.report.files_of_run import Files
    from cachebench.setup import config

    plan = smoke(finished, "-n", "schedules")
    assert "Nothing to be done" in plan.stdout + plan.stderr
    cfg, found = config.load(finished / "config/smoke.yaml"), set()
    for path in (finished / "results/smoke/schedules").glob("*/*.json"):
        run, (name, _, budget) = path.parent.name, path.stem.rpartition("-")
        files = Files(cfg, run, finished / "results/smoke")
        (entry,) = [entry for entry in files.entries(name) if entry["budget"] == float(budget)]
        assert np.array_equal(Schedule.from_json(path.read_text(), files.spec).compute, files.schedule(name, entry).compute)
        found.add((run, name))
    assert found >= {("tiny-ddim20", name) for name in ("random_skip", "fora_spread", "l2c")}
    assert found >= {("tiny-dpm20", name) for name in ("alternate.outer", "alternate.mid", "l2c")}
    assert not {name for _, name in found} & {"fewer_steps", "deepcache.uniform", "deepcache.quadratic"}


def test_unreachable_budget_shows_its_nearest_cost(finished):
    row = results(finished).loc[("fora", 0.65)]
    assert row.status == "unreachable" and f"{row.achieved:.3f}" in row.reason
    assert pd.isna(row.fd)


def test_finished_run_has_nothing_to_do(finished):
    plan = smoke(finished, "-n")
    assert "Nothing to be done" in plan.stdout + plan.stderr


def test_the_command_of_a_row_makes_its_samples_again_to_the_same_bytes(finished, tmp_path):
    """As the page prints it, in a copy of the finished run: that row's samples alone, and the scores."""
    folder = shutil.copytree(finished, tmp_path / "again", symlinks=True)
    page = unpacked((folder / "results/smoke/index.html").read_text())
    command = re.search(r'"id":"tiny-ddim20/fora_spread/0.65".*?"command":"(.*?)"', page)[1]
    aside, made = command.split("; ")
    subprocess.run(aside, shell=True, cwd=folder, check=True)
    run = snakemake(folder, *shlex.split(made)[1:])
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-3000:]
    assert {"sample": {"fora_spread"}, "score": {"fora_spread"}} == rules_to_run(run.stdout + run.stderr)
    here = folder / "results/smoke/tiny-ddim20/fora_spread"
    (before,), after = here.glob("0.65-*"), here / "0.65"
    names = sorted(path.name for path in before.glob("*.safetensors"))
    assert names and names == sorted(path.name for path in after.glob("*.safetensors"))
    for name in names:
        old, new = (atomic.read_tensors(part / name, "np")[0] for part in (before, after))
        assert {key: value.tobytes() for key, value in old.items()} == {key: value.tobytes() for key, value in new.items()}
    scores = here.relative_to(folder) / "scores.json"
    assert atomic.read_json(folder / scores) == atomic.read_json(finished / scores)


def test_a_table_is_not_made_of_what_another_config_made(finished):
    """Snakemake's memory of parameters is switched off, as its own advice has it."""
    path, table = finished / "config/smoke.yaml", finished / "results/smoke/results.csv"
    config, rows = path.read_text(), table.read_text()
    path.write_text(config.replace("cfg_scale: 1.5}", "cfg_scale: 4.0}", 1))
    table.unlink()
    try:
        refused = smoke(finished, "results/smoke/results.csv", "--rerun-triggers", "mtime")
    finally:
        path.write_text(config)
        table.write_text(rows)
    assert refused.returncode != 0
    assert "settings.json: was made with cfg_scale 1.5, and the config says 4.0" in refused.stdout + refused.stderr


def test_a_run_that_has_not_ended_can_be_looked_at(finished, tmp_path):
    """One method has been matched only, one is yet to be; nothing is traced."""
    folder = shutil.copytree(finished / "results/smoke", tmp_path / "smoke")
    for name in ("l2c/scores.json", "random_skip/settings.json", "trace.csv"):
        (folder / "tiny-ddim20" / name).unlink()
    times = atomic.read_json(folder / "tiny-ddim20/latency.json")
    atomic.write_json(folder / "tiny-ddim20/latency.json", {name: times[name] for name in times if name != "l2c"})
    for path in (*folder.glob("*.csv"), folder / "index.html"):
        path.unlink()
    asked = yaml.safe_load((finished / "config/smoke.yaml").read_text()) | {"runs": one_run()}
    atomic.write_text(tmp_path / "config.yaml", yaml.safe_dump(asked))
    words = ["--config", tmp_path / "config.yaml", "--folder", folder]
    done = subprocess.run([python(), "workflow/scripts/so_far.py", *words], cwd=finished, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    table = pd.read_csv(folder / "results.csv").set_index(["run", "method"])
    told = {name: table.loc[("tiny-ddim20", name)].reason for name in ("l2c", "random_skip")}
    assert told["l2c"].endswith("l2c/scores.json is not there yet")
    assert told["random_skip"].endswith("random_skip/settings.json is not there yet")
    assert table.loc[("tiny-ddim20", "fora_spread")].status == "ok"
    assert "is not there yet" in unpacked((folder / "index.html").read_text())

    asked["samples"] |= {"count": 24, "until": "settled"}
    atomic.write_text(tmp_path / "config.yaml", yaml.safe_dump(asked))
    atomic.write_text(folder / "look.yaml", yaml.safe_dump({"samples": {"count": 12, "most": 24}}))
    done = subprocess.run([python(), "workflow/scripts/so_far.py", *words], cwd=finished, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert (folder / "looks.csv").read_text().startswith("run,budget,method,count")  # a look of `cachebench settle`


def test_page_and_tables_exist(finished):
    page = unpacked((finished / "results/smoke/index.html").read_text())
    assert "Learning" in page or "L2C" in page
    assert "unreachable" in page or "nearest cost" in page


def test_snakemakes_own_report_holds_every_table_and_figure_under_its_label(finished):
    run = smoke(finished, "--report", "report.zip")
    assert run.returncode == 0, run.stderr
    with zipfile.ZipFile(finished / "report.zip") as archive:
        names = [name.rpartition("/")[2] for name in archive.namelist()]
        found = archive.read("report/report.html").decode()
    answer = (finished / "results/smoke/answer.txt").read_text().splitlines()
    assert (
        answer[-1].startswith("  rows: ") and "Which method to use:" in found and answer[-1].strip() in found
    )  # it opens with
    assert {
        "answer.txt",
        "results.csv",
        "comparisons.csv",
        "validity.csv",
        "tiny-ddim20.tex",
        "pareto.svg",
        "halves.png",
    } <= set(names)
    labels = re.findall(r'"labels": (\{[^}]*\})', found)
    tables = [tuple(json.loads(label).items()) for label in labels if '"table"' in label]
    assert len(tables) == len(set(tables)) == 4 + 3 * 3  # each under its own label: of every run two forms and the trace


def test_editing_a_method_reruns_that_method_only(finished):
    path = finished / "methods/random_skip.py"
    before = path.read_text()
    path.write_text(before.replace("Random skip", "Random skips"))
    try:
        plan = smoke(finished, "-n")
        methods = rules_to_run(plan.stdout + plan.stderr)
    finally:
        path.write_text(before)
    assert {m for rule in ("match", "sample", "score") for m in methods[rule]} == {"random_skip"}
    assert methods["latency"] == {None}  # of the run, in which the others keep their times
    assert "fit" not in methods


def test_added_methods_run_and_broken_ones_lose_only_their_rows(finished):
    """The README's plug-in works as printed; three broken ones say why; the rows that were there stay as they were."""
    before, shards = texts(finished).loc[list(one_run())], written(finished)
    example = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S)[1]
    (finished / "methods/early.py").write_text(example)
    for name, line in BROKEN.items():
        (finished / f"methods/{name}.py").write_text(broken_plugin(line))
    (finished / "methods/unreadable.py").write_text("def (:")
    listed = yaml.safe_load((ROOT / "config/smoke.yaml").read_text())["methods"]
    shrink(finished, runs=one_run(), methods=[*listed, "early", *BROKEN, "unreadable"])
    run = smoke(finished)
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-3000:]
    pd.testing.assert_frame_equal(before, texts(finished).loc[before.index])
    assert shards.items() <= written(finished).items()
    after = results(finished)
    assert after.loc[("early", 0.65), "status"] == "ok"
    reasons = after[after.status == "failed"].reason
    assert "out of luck" in reasons["raises", 0.65]
    assert "NaN" in reasons["nan", 0.65]
    assert "must match" in reasons["shape", 0.65]
    assert "SyntaxError" in reasons["unreadable", 0.65]


def written(folder):
    """When each shard was."""
    return {path: path.stat().st_mtime_ns for path in (folder / "results/smoke").rglob("shard-*.safetensors")}


def broken_plugin(line):
    return f"""
from cachebench.engine.doors import Session
from cachebench.plugin.method import Method
from cachebench.engine.schedule import Schedule

class Wrong(Session):
    def __init__(self, work):
        self.work = work
    def trunk(self, h, run):
        return self.work(run(h))

class Broken(Method):
    name = "Broken"
    params = {{"refreshes": [12]}}
    knob = "refreshes"
    def schedule(self, spec, state=None):
        return Schedule.refresh(spec, range(self.refreshes))
    def prepare(self, model, state):
        forward = model.forward
        def wrong(*args):
            x = forward(*args)
            {line}
        model.forward = wrong
        return model
"""


@pytest.mark.slow
def test_killed_run_resumes_to_the_same_numbers(tmp_path, finished):
    """SIGKILL to the whole process group, three times, then a plain second call: every number that is not a time agrees."""
    folder = copy_checkout(tmp_path)
    shrink(folder, methods=["fewer_steps", "l2c"], runs=one_run())
    killed, before = 0, {}
    for seconds in (6, 9, 12):
        process = subprocess.Popen(
            [sys.executable, "-m", "snakemake", "--cores", "2", "--configfile", "config/smoke.yaml"],
            cwd=folder, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        time.sleep(seconds)
        killed += process.poll() is None
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        assert before.items() <= (before := written(folder)).items()  # what is finished stays
    assert killed, "the run ended before it could be killed"
    run = smoke(folder)
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-3000:]
    assert before.items() <= written(folder).items()
    table, expected = texts(folder), texts(finished)
    columns = [c for c in table.columns if not re.search(MEASURED, c)]
    pd.testing.assert_frame_equal(table[columns], expected.loc[table.index, columns])


BAD = {
    "unknown key": (dict(bugets=[0.5]), r"unknown key 'bugets'; did you mean 'budgets'\? allowed: .*budgets"),
    "unknown method": (dict(methods=["fora", "flora"]), r"methods: unknown 'flora'; allowed: all, .*fora"),
    "unknown variant": (dict(methods=["alternate.both"]), r"unknown 'alternate.both'; allowed: alternate.outer, alternate.mid"),
    "unknown parameter of a run": (
        dict(runs={"r": dict(backbone="dit-tiny", sampler="ddim", num_steps=8, params={"fora": {"n": [2]}})}),
        r"runs.r.params.fora: unknown 'n'; allowed: interval",
    ),
    "budget of a run": (
        dict(runs={"r": dict(backbone="dit-tiny", sampler="ddim", num_steps=8, budgets=[0])}),
        r"runs.r.budgets.0: budget 0 is outside \(0, 1\]",
    ),
    "unknown parameter": (dict(params={"fora": {"intervall": [2]}}), r"params.fora: unknown 'intervall'; allowed: interval"),
    "budget": (dict(budgets=[1.5]), r"budget 1.5 is outside \(0, 1\]"),
    "unknown backbone": (
        dict(runs={"r": dict(backbone="dit-huge", sampler="ddim", num_steps=10)}),
        r"runs.r.backbone: unknown 'dit-huge'; allowed: dit-tiny",
    ),
    "missing weights": (
        dict(extractor=dict(name="fmnist-cnn", weights="resources/none.safetensors")),
        r"none.safetensors: no such file",
    ),
    "checksum": (
        dict(extractor=dict(name="fmnist-cnn", weights="resources/weights/fmnist-cnn.safetensors", sha256="0" * 64)),
        r"extractor.weights: .*fmnist-cnn.safetensors: sha256 is [0-9a-f]{64}, expected 0{64}",
    ),
    "another extractor": (
        dict(extractor=dict(name="inception", weights="resources/weights/fmnist-cnn.safetensors")),
        r"reference: 'fashion-mnist-test' holds features of extractor 'fmnist-cnn', the config's is 'inception'",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_config_is_one_clear_line_before_any_work(case, tmp_path_factory):
    from cachebench.setup import check, config

    changes, message = BAD[case]
    values = yaml.safe_load((ROOT / "config/smoke.yaml").read_text()) | changes
    with pytest.raises(config.ConfigError, match=message) as caught:
        check.check(values, "smoke.yaml")
    assert "\n" not in str(caught.value)


def test_snakemake_prints_the_line_and_starts_nothing(tmp_path):
    folder = copy_checkout(tmp_path)
    shrink(folder, budgets=[0.0])
    run = smoke(folder)
    assert run.returncode != 0
    assert "budget 0.0 is outside (0, 1]" in run.stdout + run.stderr
    assert "Traceback" not in run.stdout + run.stderr
    assert not (folder / "results").exists()


def test_corrupt_weights_are_named(tmp_path):
    from cachebench.setup import check

    path = tmp_path / "broken.safetensors"
    path.write_bytes((ROOT / "resources/weights/fmnist-cnn.safetensors").read_bytes()[:-100])
    with pytest.raises(ValueError, match="^extractor.weights: .*broken.safetensors: not a complete safetensors file"):
        check.check_file("extractor.weights", path)


def test_every_configuration_passes_its_check():
    from cachebench.setup import check, config

    for path in sorted((ROOT / "config").glob("*.yaml")):
        if path.name != "queue.yaml":  # the training queue, of which no run is made
            check.check(config.read(path), path)
    for part in set((ROOT / "config/parts").glob("*.yaml")) - {shared := ROOT / "config/parts/methods.yaml"}:
        values = config.read(ROOT / f"config/{config.read(part)['name'].rpartition('-')[0]}.yaml")
        for file in (shared, part):
            update_config(values, config.read(file))
        assert len(check.check(values, part)["runs"]) == 1


@pytest.mark.slow
def test_all_methods_are_planned_on_every_run(tmp_path):
    """`methods: all` names every file and variant; a method that a run cannot carry still gets its row."""
    from cachebench.plugin import loader

    folder = copy_checkout(tmp_path)
    runs = yaml.safe_load((ROOT / "config/smoke.yaml").read_text())["runs"]
    shrink(folder, methods="all", runs={name: {k: v for k, v in run.items() if k != "methods"} for name, run in runs.items()})
    plan = smoke(folder, "-n", "results/smoke/results.csv")
    assert plan.returncode == 0, plan.stderr[-3000:]
    found = set(re.findall(r"method=([\w.]+), run=tiny-dpm20|run=tiny-dpm20, method=([\w.]+)", plan.stdout + plan.stderr))
    known = {one for stem in loader.available() for one in loader.ids(stem)}
    assert {a or b for a, b in found} == known


def test_conda_and_pip_have_the_pins_of_the_package():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    pins = sorted([*project["dependencies"], *project["optional-dependencies"]["dev"]])
    assert [line for line in (ROOT / "requirements.txt").read_text().split("\n") if "==" in line] == pins
    assert yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"][-1]["pip"] == pins


def test_a_dry_run_writes_nothing(finished):
    """Not even another config's: jobs read what their run was started with, from the environment."""
    files = {path: path.stat().st_mtime_ns for path in (finished / "results").rglob("*")}
    shown = snakemake(finished, "-n", "--configfile", "config/smoke.yaml", "--config", "tolerance=0.1")
    assert shown.returncode == 0, shown.stderr
    assert {path: path.stat().st_mtime_ns for path in (finished / "results").rglob("*")} == files


def test_a_second_run_in_the_same_results_is_refused_in_one_line(finished):
    """The lock is the kernel's: it ends with the process that holds it, however that ends."""
    with open(finished / "results/smoke/.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        refused = smoke(finished, "--forcerun", "collect")
        assert refused.returncode != 0
        assert "results/smoke: another snakemake is writing there; wait for it" in refused.stdout + refused.stderr
        assert "Traceback" not in refused.stdout + refused.stderr
