"""The config's schema: defaults, and what is wrong with a key in one line. No torch here."""

from difflib import get_close_matches

import jsonschema
import yaml

from cachebench.engine import spec
from cachebench.files import atomic


def fill(config):
    """Fills the defaults into the mapping; its first mistake in one line, or None."""
    schema = yaml.safe_load((atomic.ROOT / "workflow/schemas/config.schema.yaml").read_text())
    schema["$defs"] |= {"kind": {"enum": spec.kinds()}, "sampler": {"enum": spec.samplers()}}
    error = next(iter(sorted(_validator(schema).iter_errors(config), key=lambda e: list(map(str, e.path)))), None)
    return _explain(error) if error else None


def _validator(schema):
    base = jsonschema.Draft202012Validator
    properties = base.VALIDATORS["properties"]

    def fill(validator, wanted, instance, schema):
        if isinstance(instance, dict):
            for key, entry in wanted.items():
                if "default" in entry:
                    instance.setdefault(key, yaml.safe_load(yaml.safe_dump(entry["default"])))
        yield from properties(validator, wanted, instance, schema)

    return jsonschema.validators.extend(base, {"properties": fill})(schema)


def _explain(error):
    where = ".".join(map(str, error.absolute_path))
    if error.validator == "additionalProperties":
        allowed = sorted(error.schema["properties"])
        unknown = next(key for key in error.instance if key not in allowed)
        hint = get_close_matches(str(unknown), allowed, 1)
        guess = f"did you mean {hint[0]!r}? " if hint else ""
        return f"unknown key {'.'.join(filter(None, [where, str(unknown)]))!r}; {guess}allowed: {', '.join(allowed)}"
    if error.validator == "required":
        return f"key missing{f' under {where!r}' if where else ''}: {error.message}"
    if error.validator in ("exclusiveMinimum", "maximum", "minimum") and "budgets." in where:
        return f"{where}: budget {error.instance} is outside (0, 1]"
    return f"{where}: {error.message}"
