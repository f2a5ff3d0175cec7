"""Which evaluations compute everything: rules that several methods share. No torch here."""


def at_interval(spec, interval):
    """Every `interval`-th evaluation from the first that counts on, and those before it, ascending. With midpoints, unless all
    are computed, the mid evaluation of a step stands for its outer one, so that none is reused where the outer is computed."""
    return mids_of(spec, [*range(spec.first_counted), *range(spec.first_counted, spec.num_evaluations, interval)])


def mids_of(spec, evaluations):
    """As many evaluations, ascending: with midpoints, the mid one for an outer one whose mid is not among them."""
    chosen = set(evaluations)
    return sorted(e + (e > 0 and spec.plan.roles[e] == "outer" and e + 1 not in chosen) for e in chosen)


def after_warmup(spec, warmup, interval):
    """The first `warmup` evaluations, and from the last of them on every `interval`-th."""
    first = min(max(warmup, 1), spec.num_evaluations)
    return mids_of(spec, [*range(first), *range(first - 1, spec.num_evaluations, interval)])


def warmups(spec, default):
    """Warm-ups that fill the gaps between intervals, the default first."""
    return [default, *(count for count in range(1, spec.num_evaluations) if count > default)]


def mids_first(spec, count, layout):
    """`count` evaluations to compute in full, ascending: layout(places, n) picks n of range(places), 0 among them.

    With midpoints these are picked first, and of the outer evaluations only the first of all until no mid one is left."""
    roles = spec.plan.roles
    mids, others = ([e for e, role in enumerate(roles) if (role == "mid") == mid] for mid in (True, False))
    early = min(count - 1, len(mids))
    picked = [mids[i] for i in layout(len(mids), early)] if early else []
    return sorted(picked + [others[i] for i in layout(len(others), count - early)])
