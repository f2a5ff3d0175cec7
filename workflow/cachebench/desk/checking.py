"""`cachebench check`: the contract of a plug-in, rule by rule, and the tests that the method has of its own."""

import subprocess
import sys
import tempfile
from pathlib import Path

from cachebench.desk import contract, small
from cachebench.desk.shown import known
from cachebench.files import closure
from cachebench.plugin import loader

NETWORKS = tuple(small.SPECS)


def run(name):
    """Prints every rule and how it stands; the exit code: 0 where none is broken."""
    files, count = closure.files_of(loader.file_of(known(name))), 0
    for network in NETWORKS:
        print(f"on {network}")
        for sentence, said in held(name, network, files):
            count += said.startswith("broken")
            print(f"  {said:12} {sentence}" if said == "holds" else f"  {sentence}\n      {said}")
    own = Path("tests/methods") / f"test_{loader.stem(name)}.py"
    if own.exists():
        print(f"{own}", flush=True)
        count += subprocess.run([sys.executable, "-m", "pytest", "-q", str(own)]).returncode != 0
    print(f"{count} broken" if count else "all rules hold")
    return int(count > 0)


def broken(name, network):
    """[What is broken, with the file and the line] of the rules, on one of NETWORKS."""
    files = closure.files_of(loader.file_of(known(name)))
    return [f"{sentence} {said}" for sentence, said in held(name, network, files) if said.startswith("broken")]


def held(name, network, files):
    """Yields (sentence of a rule, "holds", "exempt: why" or "broken: how, where")."""
    spec = small.SPECS[network]
    try:
        cls = loader.plugin(name)
        if reason := cls().supports(spec):
            yield "It runs here.", f"exempt: {reason}"
            return
    except loader.FAILURES as error:
        yield "Its file defines one method, which is made from its defaults.", f"broken: {said(error, files)}"
        return
    with tempfile.TemporaryDirectory() as folder:
        subject = contract.Subject(cls, small.trained(spec.arch), spec, Path(folder))
        for rule in contract.RULES:
            try:
                rule(subject)
            except contract.Exempt as why:
                yield rule.__doc__, f"exempt: {why}"
            except loader.FAILURES as error:
                yield rule.__doc__, f"broken: {said(error, files)}"
            else:
                yield rule.__doc__, "holds"


def said(error, files):
    """An error in one line, and the last line of the method's own files that led to it."""
    kind = "" if isinstance(error, AssertionError) else f"{type(error).__name__}: "
    return " ".join(f"{kind}{error or 'it is not so'}{loader.place(error, files)}".split())
