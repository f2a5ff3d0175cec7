"""A shard of one setting as a file: opened, sampled, its features extracted. What a job runs in a process of its own."""

from cachebench.engine import device
from cachebench.files import atomic
from cachebench.metrics import extractors
from cachebench.run.opening import decoder, open_setting
from cachebench.run.sample import sample_shard
from cachebench.setup import provenance, sources


def write_shard(cfg, run, name, budget, settings, states, shard, path, facts):
    """Writes a shard of the setting that the file `settings` has for a budget, with what `facts` and itself say of it."""
    where = device.pick()
    setting = open_setting(cfg, run, name, budget, settings, states, where)
    models = {space: extractors.load(view["extractor"], where) for space, view in sources.spaces(cfg).items()}
    tensors, told = sample_shard(cfg["samples"], setting, decoder(cfg, run, where), models.pop(""), shard, models)
    atomic.write_tensors(path, tensors, facts | told | {"device": device.describe(where)} | provenance.here(name))
