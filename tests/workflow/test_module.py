"""The workflow as a module of a user's own: rules from another folder or a git repository, made things in the user's folder."""

import json
import shutil
import subprocess
import sys
import sysconfig

import pytest
import yaml

from checkouts import ROOT, copy_checkout, rules_to_run, snakemake

# What snakedeploy writes to workflow/Snakefile, but for the place.
DEPLOYED = """
configfile: "config/config.yaml"

module cachebench:
    snakefile:
        "{place}"
    config:
        config

use rule * from cachebench
"""


@pytest.fixture
def deployed(tmp_path):
    """deployed(place of the rules) -> a user's folder, which has the smoke configuration, a method of its own, and another file
    in the place of the project's FORA."""

    def deploy(place):
        folder = tmp_path / "mine"
        for name in ("config", "workflow", "methods"):
            (folder / name).mkdir(parents=True)
        smoke = yaml.safe_load((ROOT / "config/smoke.yaml").read_text())
        (folder / "config/config.yaml").write_text(yaml.safe_dump(smoke | {"methods": ["fewer_steps", "fora", "mine"]}))
        (folder / "workflow/Snakefile").write_text(DEPLOYED.format(place=place))
        for name in ("mine", "fora"):  # the project's FORA does not reach the budget
            shutil.copy(ROOT / "methods/random_skip.py", folder / f"methods/{name}.py")
        return folder

    return deploy


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    """A git repository of the checkout, in the place of the hub, and the Snakefile that a module names in it."""
    folder = copy_checkout(tmp_path_factory.mktemp("hub"))
    told = ("-c", "user.name=a", "-c", "user.email=a@b")
    for words in (("init", "-q"), ("add", "-A"), (*told, "commit", "-qm", "all"), (*told, "tag", "v1")):
        subprocess.run(["git", *words], cwd=folder, check=True)
    return folder, f"git+file://{folder}/workflow/Snakefile@v1"


def environment(folder):
    """Python of an environment in `folder` that has what this one has, but not the package."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    (packages / "base.pth").write_text(sysconfig.get_path("purelib"))
    return folder / "bin/python"


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    return environment(tmp_path_factory.mktemp("bare"))


@pytest.fixture(scope="module")
def installed(repository, tmp_path_factory):
    """Python of an environment in which the repository's package is installed too."""
    python = environment(made := tmp_path_factory.mktemp("environment"))
    pip = [python, "-m", "pip", "install", "-q", "--no-deps", "--no-index", "--no-build-isolation", "--ignore-installed"]
    subprocess.run(list(map(str, [*pip, repository[0]])), check=True, cwd=made)
    return python


def run(folder, python, *words):
    command = [str(python), "-m", "snakemake", *words, "--quiet", "host"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


def test_rules_of_another_folder_are_planned_in_the_users(deployed):
    folder = deployed(ROOT / "workflow/Snakefile")
    shown = snakemake(folder, "-n", "--cores", "1")
    assert shown.returncode == 0, shown.stderr[-2000:]
    assert {"full", "fewer_steps", "fora", "mine"} <= rules_to_run(shown.stdout + shown.stderr)["sample"]
    assert "input: methods/mine.py" in shown.stdout + shown.stderr


def test_rules_of_a_repository_name_the_command_that_installs_their_package(deployed, repository, bare):
    folder, place = repository
    shown = run(deployed(place), bare, "-n", "--cores", "1")
    assert shown.returncode == 1
    assert f"pip install git+file://{folder}@v1\n" in shown.stdout + shown.stderr


@pytest.mark.slow
def test_a_repository_and_its_package_run_in_the_users_folder(deployed, repository, installed):
    user = deployed(repository[1])
    targets = [f"results/smoke/tiny-ddim20/{method}/scores.json" for method in ("mine", "fora")]
    done = run(user, installed, *targets, "--cores", "2")
    assert done.returncode == 0, done.stderr[-3000:]
    for target in targets:
        assert {row["status"] for row in json.loads((user / target).read_text()).values()} == {"ok"}
    assert {path.name for path in user.iterdir()} == {".snakemake", "config", "logs", "methods", "results", "workflow"}


@pytest.mark.slow
def test_rules_of_another_version_than_the_package_are_refused(deployed, repository, installed, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(repository[0], other)
    with open(other / "workflow/rules/fit.smk", "a") as file:
        file.write("# changed\n")
    told = ("-c", "user.name=a", "-c", "user.email=a@b")
    for words in (("add", "-A"), ("commit", "-qm", "more"), ("tag", "v2")):
        subprocess.run(["git", *told, *words], cwd=other, check=True)
    shown = run(deployed(f"git+file://{other}/workflow/Snakefile@v2"), installed, "-n")
    assert shown.returncode == 1
    assert "fit.smk is not that of the installed package" in shown.stdout + shown.stderr
