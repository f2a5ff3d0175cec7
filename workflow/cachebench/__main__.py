"""`cachebench`, or `python -m cachebench`: the desk of who adds a method, or joins results. Snakemake runs the benchmark."""

import argparse
import sys
import time


def parser():
    main = argparse.ArgumentParser(prog="cachebench", description=__doc__)
    commands = main.add_subparsers(dest="command", required=True, metavar="command")

    def command(name, said, *positional):
        added = commands.add_parser(name, help=said, description=said)
        for argument in positional:
            added.add_argument(argument)
        return added

    def on_a_run(added, which="the first"):
        added.add_argument("--config", help="a configuration (default: the demo's)")
        added.add_argument("--run", help=f"one of its runs (default: {which})")

    on_a_run(command("list", "all methods: what they do, their knobs, and where they run"), "all, and every backbone there is")
    show = command("show", "one method: its parameters, its cost, and its schedule", "method")
    show.add_argument("parameters", nargs="*", metavar="name=value", help="values for the schedule")
    on_a_run(show)
    new = command("new", "a commented file that runs, and its test", "method")
    new.add_argument("--kind", required=True, help="what it is like")
    trial = command("try", "match, sample and compare a method in this process; nothing is scored for good", "method")
    trial.add_argument("--budget", type=float, required=True, help="share of the full run's MACs")
    trial.add_argument("--images", type=int, default=20, help="how many (20)")
    on_a_run(trial)
    merge = command("merge", "the tables of several results folders, of one version, as one")
    merge.add_argument("folders", nargs="+", help="folders with results.csv and comparisons.csv")
    merge.add_argument("--out", required=True, help="the folder to write")
    settle = command("settle", "more and more images, until every verdict is settled or samples.count is reached")
    settle.add_argument("--configfile", nargs="+", required=True, help="a configuration with `samples: {until: settled}`")
    settle.add_argument("words", nargs="*", metavar="-- option", help="Snakemake's own options (default: --cores all)")
    command("check", "the contract of a plug-in, rule by rule, and the method's own tests", "method")
    return main


def main(words=None):
    """Exit code of a command; what is wrong with it is one line."""
    args = parser().parse_args(words)
    try:
        return COMMANDS[args.command](args) or 0
    except (ValueError, OSError) as error:
        print(f"cachebench {args.command}: {error}", file=sys.stderr)
        return 1


def list_methods(args):
    from cachebench.desk import shown

    print("\n".join(shown.listed(shown.specs(args.config, args.run))))


def show(args):
    from cachebench.desk import shown
    from cachebench.plugin.loader import FAILURES

    runs = shown.runs(args.config)
    run = shown.run_of(runs, args.run)
    if wrong := [word for word in args.parameters if "=" not in word]:
        raise ValueError(f"{wrong[0]!r}: a parameter is given as name=value")
    try:
        print("\n".join(shown.shown(args.method, run, runs[run], dict(word.split("=", 1) for word in args.parameters))))
    except FAILURES as error:
        raise ValueError(str(error)) from error


def new(args):
    from cachebench.desk import template

    for path in template.written(args.method, args.kind):
        print(f"wrote {path}")
    print(f"next: cachebench try {args.method} --budget {template.BUDGET}")


def try_out(args):
    began = time.perf_counter()
    from cachebench.desk import trial
    from cachebench.files.memory import keep_freed_memory

    keep_freed_memory()
    return trial.run(args.method, args.budget, args.images, args.config, args.run, began)


def check(args):
    from cachebench.desk import checking
    from cachebench.files.memory import keep_freed_memory

    keep_freed_memory()
    return checking.run(args.method)


def merge(args):
    from cachebench.desk import merging

    print(f"{args.out}: {merging.merge(args.folders, args.out)} rows")


def settle(args):
    from cachebench.desk import settling

    return settling.settle(args.configfile, args.words)


COMMANDS = {"list": list_methods, "show": show, "new": new, "try": try_out, "check": check, "merge": merge, "settle": settle}

if __name__ == "__main__":
    sys.exit(main())
