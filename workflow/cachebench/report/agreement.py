"""What the order of methods on one setting tells of another, in words. No torch here."""

from cachebench.judge import agreement
from cachebench.judge.agreement import KINDS, METRICS
from cachebench.metrics import catalog, spaces
from cachebench.report import tables

OTHER = {
    "budget": "another budget of the same run",
    "run": "another run at the nearest budget",
    "data": "a run on another data set at the nearest budget",
}


def title(metric):
    """What a metric is called where no table says which extractor; of a further one with its name."""
    entry = catalog.metric(metric)
    return " ".join(filter(None, [entry.title.format(fd="FD"), entry.space and f"({entry.space})"]))


def named(key):
    """What two settings differ in, of a key of `judge.agreement`."""
    kind, metric = key
    if kind == "space":
        return f"{title('fd')} against {title(metric)}"
    return f"{OTHER[kind]}, by {title(metric)}" if metric else " against ".join(map(title, METRICS))


def sentences(agreements):
    """One for each kind of pairs: how well one order tells the other."""
    kinds = {kind: [(key, of) for key, of in agreements.items() if key[0] == kind] for kind in KINDS}
    return [sentence(kind, pairs) for kind, pairs in kinds.items() if pairs]


def sentence(kind, pairs):
    if kind == "space":
        told = [f"{value(of)} for {title(metric)} ({counted(of['pairs'])})" for (_, metric), of in pairs]
        return f"Between FD and that of another extractor, Kendall's tau of the methods' orders is {' and '.join(told)}."
    told = [f"{value(of)}{f' by {title(metric)}' if metric else ''} ({counted(of['pairs'])})" for (_, metric), of in pairs]
    between = f"a setting and {OTHER[kind]}" if kind in OTHER else f"{' and '.join(map(title, METRICS))} of one setting"
    return f"Between {between}, Kendall's tau of the methods' orders is {' and '.join(told)}."


def held(rows):
    """A sentence for each further extractor: how many verdicts against fewer steps it leaves as they are, and which not."""
    out = []
    for space in spaces.further(rows):
        known = agreement.both_verdicts(rows, space)
        turned = [
            f"{row['name']} at {row.under:.3g} ({row.other}, by FD {row.verdict})"
            for _, row in known[known.verdict != known.other].iterrows()
        ]
        by, same = title(spaces.named("fd", space)), len(known) - len(turned)
        told = f"By {by}, {same} of {len(known)} verdicts against fewer steps are the same"
        out += ["; others: ".join(filter(None, [told, "; ".join(turned)])) + "."] if len(known) else []
    return out


def counted(number):
    return f"{number} pair" if number == 1 else f"{number} pairs"


def value(of):
    return f"{tables.number(of['tau'], 2)} [{tables.number(of['low'], 2)}, {tables.number(of['high'], 2)}]"
