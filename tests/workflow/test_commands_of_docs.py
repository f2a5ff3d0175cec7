"""Every command that the documentation shows in a block: Snakemake plans it, and other programs know its options."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from checkouts import ROOT, copy_checkout, snakemake

PAGES = [*ROOT.glob("*.md"), *(ROOT / f"{folder}/README.md" for folder in ("methods", "config")), *ROOT.glob("docs/*.md")]
PAGES += ROOT.glob("resources/*/README.md")
BLOCK = re.compile(r"^```(?:bash|sh)?\n(.*?)^```", re.S | re.M)
# What a reader puts in the place of these.
GIVEN = {"PATH": "mine", "FOLDER": "mine", "config/<name>.yaml": "config/start.yaml"}
GIVEN |= {f"results/{name}/results.csv": "resources/demo/results.csv" for name in "xy"}
ELSEWHERE = ("pip", "conda", "python3", "git")  # programs whose commands other tests run, or that need the internet


def commands():
    """Each command once, as words, without its remark and what follows it in its line."""
    known = "|".join(("snakemake", "cachebench", "python", "make", *ELSEWHERE))
    lines = [line for page in PAGES for block in BLOCK.findall(page.read_text("utf-8")) for line in block.splitlines()]
    alone = [line.partition("&&")[0] for line in lines if re.match(rf"(\.venv/bin/)?({known})( |$)", line)]
    return list(dict.fromkeys(tuple(shlex.split(line.replace("snakemake -n", "snakemake"), comments=True)) for line in alone))


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A checkout with a folder of pictures."""
    folder = copy_checkout(tmp_path_factory.mktemp("docs"))
    (folder / "mine").mkdir()
    for i, image in enumerate(np.random.default_rng(0).integers(0, 256, (12, 28, 28), np.uint8)):
        Image.fromarray(image).save(folder / f"mine/{i}.png")
    return folder


def test_the_documentation_has_commands_of_every_kind():
    assert {Path(words[0]).name for words in commands()} >= {"snakemake", "cachebench", "python", "make"} and len(
        commands()
    ) > 25


@pytest.mark.slow
@pytest.mark.parametrize("words", [words for words in commands() if Path(words[0]).name not in ELSEWHERE], ids=" ".join)
def test_a_command_of_the_documentation_is_understood(words, project):
    program, *options = (re.sub("|".join(map(re.escape, GIVEN)), lambda of: GIVEN[of[0]], word) for word in words)
    if Path(program).name == "snakemake":
        cores = ["--cores", "1"] if "--cores" not in options else []
        shown = snakemake(project, *options, "-n", "--quiet", "rules", *cores)
    elif program == "make":
        shown = subprocess.run(["make", "-n", *options], cwd=project, capture_output=True, text=True)
    else:
        first = [sys.executable, "-m", "cachebench"] if program == "cachebench" else [sys.executable]
        of_program = options[:2] if options[0] == "-m" else options[:1]  # its options are named in its help
        shown = subprocess.run([*first, *of_program, "--help"], cwd=project, capture_output=True, text=True)
        named = {word for word in options[len(of_program) :] if word.startswith("--")}
        assert named <= set(re.findall(r"--[\w-]+", shown.stdout)) | {"--"}
    assert shown.returncode == 0, shown.stdout[-2000:] + shown.stderr[-2000:]
