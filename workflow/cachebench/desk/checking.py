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
    """Prints every rule and how it stands; the exit code: 0 where none is broken and the method's own tests pass."""
    files, rules = closure.files_of(loader.file_of(known(name))), {}  # {sentence: {network: how it stands}}
    for network in NETWORKS:
        print(f"on {network} ...", flush=True)
        for sentence, how in held(name, network, files):
            rules.setdefault(sentence, {})[network] = how
    for sentence, of in rules.items():
        print("\n".join(stands(sentence, of)))
    count = sum(any(how.startswith("broken") for how in of.values()) for of in rules.values())
    print(f"{count} {'rule is' if count == 1 else 'rules are'} broken" if count else "all rules hold")
    tests = Path("tests/methods") / f"test_{loader.stem(name)}.py"
    if not tests.exists():
        return int(count > 0)
    print(f"{tests}", flush=True)
    failed = subprocess.run([sys.executable, "-m", "pytest", "-q", str(tests)]).returncode != 0
    return int(count > 0 or failed)


def stands(sentence, of):
    """Lines about a rule, `of` {network: how it stands}: one where it holds; else how, and on which networks."""
    if set(of.values()) == {"holds"}:
        return [f"  {'holds':12} {sentence}"]
    lines = [f"  {sentence}"]
    for word in ("broken", "exempt"):
        if on := [network for network, how in of.items() if how.startswith(word)]:
            lines.append(f"      {word} on {', '.join(on)}: {of[on[0]].partition(': ')[2]}")
    return lines


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
            sentence = " ".join(rule.__doc__.split())
            try:
                rule(subject)
            except contract.Exempt as why:
                yield sentence, f"exempt: {why}"
            except loader.FAILURES as error:
                yield sentence, f"broken: {said(error, files)}"
            else:
                yield sentence, "holds"


def said(error, files):
    """An error in one line, and the last line of the method's own files that led to it."""
    kind = "" if isinstance(error, AssertionError) else f"{type(error).__name__}: "
    return " ".join(f"{kind}{error or 'it is not so'}{loader.place(error, files)}".split())
