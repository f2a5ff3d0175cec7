"""What the order of methods on one setting tells of another, in words. No torch here."""

from cachebench.judge.agreement import KINDS, METRICS
from cachebench.metrics import catalog
from cachebench.report import tables

OTHER = {"budget": "another budget of the same run", "run": "another run at the nearest budget"}


def title(metric):
    """What a metric is called where no table says which extractor."""
    return catalog.metric(metric).title.format(fd="FD")


def named(key):
    """What two settings differ in, of a key of `judge.agreement`."""
    kind, metric = key
    return f"{OTHER[kind]}, by {title(metric)}" if metric else " against ".join(map(title, METRICS))


def sentences(found):
    """One for each kind of pairs: how well one order tells the other."""
    kinds = {kind: [(key, of) for key, of in found.items() if key[0] == kind] for kind in KINDS}
    return [sentence(kind, pairs) for kind, pairs in kinds.items() if pairs]


def sentence(kind, pairs):
    told = [f"{value(of)}{f' by {title(metric)}' if metric else ''} ({counted(of['pairs'])})" for (_, metric), of in pairs]
    between = f"a setting and {OTHER[kind]}" if kind in OTHER else f"{' and '.join(map(title, METRICS))} of one setting"
    return f"Between {between}, Kendall's tau of the methods' orders is {' and '.join(told)}."


def counted(number):
    return f"{number} pair" if number == 1 else f"{number} pairs"


def value(of):
    return f"{tables.number(of['tau'], 2)} [{tables.number(of['low'], 2)}, {tables.number(of['high'], 2)}]"
