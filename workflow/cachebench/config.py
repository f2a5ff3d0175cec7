import yaml
def load(p): return yaml.safe_load(open(p))
