"""What a config asks for: the methods and budgets of every run, and the grids that are swept. No torch here."""

import itertools
import math
import re

from cachebench.engine.spec import Arch, Spec
from cachebench.plugin import loader, method


def method_ids(config, run=None):
    """Ids of the methods of a run, `full` first: the swept ones and those of its `settings`; without a run those of any."""
    if run is None:
        return list(dict.fromkeys(name for run in config["runs"] for name in method_ids(config, run)))
    ids_of_settings = [name for entry in config["runs"][run].get("settings", []) for name in entry if name != "budget"]
    return list(dict.fromkeys(["full", *swept_ids(config, run), *ids_of_settings]))


def swept_ids(config, run):
    """Ids of the methods that are matched to budgets of a run: its own `methods` or those of all runs, and those of `also`."""
    return list(dict.fromkeys(id for name, _ in _asked(config, run) for id in loader.ids(name)))


def _asked(config, run):
    """[(name, budgets)] of a run's methods: those of its list, `all` being those of all files, and those of `also`."""
    entry = config["runs"][run]
    wanted, asked_budgets = entry.get("methods", config.get("methods")), entry.get("budgets") or config.get("budgets")
    listed = [(name, asked_budgets) for name in (loader.available() if wanted == "all" else wanted)]
    return listed + [(name, [more["budget"]]) for more in entry.get("also", []) for name in more["methods"]]


def overrides(config, name, run):
    """Grid values that the config gives instead of those of the method with the id `name`: for its file or for it alone, for
    all runs or for this one."""
    given = [config["params"], config["runs"][run].get("params", {})]
    merged, told = {}, loader.parts(name)
    for values in given:
        for key in dict.fromkeys((told["stem"], told["own"], re.split("[@#]", name)[0], name.partition("#")[0])):
            merged |= values.get(key, {})
    return merged


def fits(config, cls, run):
    """The distinct fit parameters of a method's settings on a run, one mapping per fit; [] for a method without one."""
    if not cls.has_fit():
        return []
    all_fits = [
        fit for grid, *_ in grids(config, cls, run) for fit in method.settings({key: grid[key] for key in cls.fit_params})
    ]
    return [fit for i, fit in enumerate(all_fits) if fit not in all_fits[:i]]


def grids(config, cls, run):
    """[(grid, budgets, tolerance)] of a method on a run: what is swept to reach the run's budgets, and each fixed setting
    (the first value where it says none), which has its row whatever it costs."""
    swept = cls.sweep(spec(config, run), overrides(config, cls.id(), run))
    entries = [(swept, swept_budgets(config, run, cls.id()), config["tolerance"])]
    for budget, params in fixed(config, run, cls.id()).items():
        entries.append(({key: [params.get(key, values[0])] for key, values in swept.items()}, [budget], math.inf))
    return [entry for entry in entries if entry[1]]


def spec(config, run):
    """The Spec of a run."""
    entry = config["runs"][run]
    backbone = config["backbones"][entry["backbone"]]
    arch = Arch.from_config(backbone["arch"])
    guidance, ends = (entry["cfg_scale"], entry["cfg_channels"]), (backbone.get("noise"), backbone.get("end"))
    return Spec(arch, entry["sampler"], entry["num_steps"], *guidance, *ends, entry.get("timestep_shift"))


def budgets(config, run, name=None):
    """The budgets under which a method has rows on a run; without a name those of any."""
    if name is None:
        return list(dict.fromkeys(b for name in method_ids(config, run) if name != "full" for b in budgets(config, run, name)))
    return [1.0] if name == "full" else [*swept_budgets(config, run, name), *fixed(config, run, name)]


def swept_budgets(config, run, name):
    """The budgets that a method is matched to: the run's own or those of all runs, or those of `also`; none of fixed
    settings alone."""
    if name == "full":
        return [1.0]
    files = [asked for asked in _asked(config, run) if loader.stem(asked[0]) == loader.stem(name)]
    return list(
        dict.fromkeys(budget for listed, asked_budgets in files if name in loader.ids(listed) for budget in asked_budgets)
    )


def fixed(config, run, name):
    """{budget of the row: parameters} of the run's `settings` for a method."""
    return {entry["budget"]: entry[name] for entry in config["runs"][run].get("settings", []) if name in entry}


def number_rows(config):
    """Gives every further row of a method at one budget a number of its own: `fora#2` for the second of `fora`."""
    for run, entry in config["runs"].items():
        taken = {(name, budget) for name in swept_ids(config, run) for budget in swept_budgets(config, run, name)}
        given = entry.pop("settings", [])
        if given:  # an empty list no config may have, and this one is read again
            entry["settings"] = []
        for setting in given:
            budget = setting["budget"]
            entry["settings"].append({"budget": budget})
            for name in [key for key in setting if key != "budget"]:
                further = (f"{name.partition('#')[0]}#{n}" for n in itertools.count(2))
                label = next(label for label in itertools.chain([name], further) if (label, budget) not in taken)
                taken.add((label, budget))
                entry["settings"][-1][label] = setting[name]


def paths(config, name, run):
    """Files of the project that the parameter `path` of a method names, on a run."""
    swept = overrides(config, name, run).get("path", [])
    return [path for path in [*swept, *(p.get("path") for p in fixed(config, run, name).values())] if path]


def shard_size(samples, across_samples=False):
    """Images of a shard; all of them for a method whose samples depend on those before them."""
    return total(samples) if across_samples else samples["shard_size"]


def indices(samples, shard, name, across_samples=False):
    """The samples of a method's shard, as a range."""
    size = shard_size(samples, across_samples)
    return range(shard * size, min((shard + 1) * size, total(samples, name)))


def shards(config, name):
    """Number of shards of a method's settings."""
    samples = config["samples"]
    return -(-total(samples, name) // shard_size(samples, says(name, "across_samples")))


def says(name, attribute):
    """Whether the method's class says so; a method whose file does not load says nothing."""
    return bool(getattr(_attempt(name), attribute, False))


def backbone(cfg, run):
    """The config's entry of the network that a run samples."""
    return cfg["backbones"][cfg["runs"][run]["backbone"]]


def total(samples, name=None):
    """Images of a setting: `count` in each of its seed blocks, of which the full run may have more."""
    return samples["count"] * max(samples["blocks"], samples["full_blocks"] if name == "full" else 1)


def partners(cfg, run):
    """The runs whose schedules can be used on `run`: those of its backbone and sampler, itself too."""
    same = [{key: entry[key] for key in ("backbone", "sampler")} for entry in cfg["runs"].values()]
    of_run = {key: cfg["runs"][run][key] for key in ("backbone", "sampler")}
    return [name for name, entry in zip(cfg["runs"], same, strict=True) if entry == of_run]


def fitted(cfg, run):
    """{id: class} of the methods whose static schedule comes from a fit, on every partner of `run`."""
    common = [name for name in method_ids(cfg, run) if all(name in method_ids(cfg, p) for p in partners(cfg, run))]
    loaded = {name: cls for name in common if (cls := _attempt(name))}
    return {name: cls for name, cls in loaded.items() if cls.has_fit() and cls.by_mask() and not cls.fewer}


def _attempt(name):
    """The plug-in class, or None where its file does not load: its rows say why."""
    try:
        return loader.plugin(name)
    except loader.FAILURES:
        return None
