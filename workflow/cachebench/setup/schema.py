"""The config's schema: defaults, and what is wrong with a key in one line. No torch here."""

from difflib import get_close_matches

import jsonschema
import yaml

from cachebench.engine import spec
from cachebench.files import atomic
from cachebench.plugin.values import is_finite, number

WORDS = {"integer": "a whole number", "number": "a finite number", "string": "text", "object": "a mapping", "array": "a list"}
WORDS |= {"boolean": "true or false", "null": "null"}


def fill(config):
    """Drops the keys that are null, fills the defaults into the mapping, and turns what means a number where one is wanted into
    it; its first mistake in one line, or None."""
    if (unnamed := _unnamed(config)) is not None:
        return unnamed
    schema = yaml.safe_load((atomic.ROOT / "workflow/schemas/config.schema.yaml").read_text("utf-8"))
    schema["$defs"] |= {"kind": {"enum": spec.kinds()}, "sampler": {"enum": spec.samplers()}}
    _drop(config, schema, schema["$defs"])
    error = next(iter(sorted(_validator(schema).iter_errors(config), key=lambda e: list(map(str, e.path)))), None)
    return _explain(error) if error else None


def _unnamed(config, where=""):
    """What is wrong with the first key that YAML does not read as text, or None."""
    entries = config.items() if isinstance(config, dict) else enumerate(config) if isinstance(config, list) else ()
    for key, value in entries:
        if isinstance(config, dict) and not isinstance(key, str):
            return f"{where or 'config'}: YAML reads a name as {key!s}, which is not text; write it in quotes"
        if wrong := _unnamed(value, f"{where}.{key}".lstrip(".")):
            return wrong
    return None


def _drop(value, entry, defs):
    """Drops from mappings what is null where the schema allows no null, so that a second config can take it away.
    On the command line, with `--config`, Snakemake reads null as a text."""
    for item in value if isinstance(value, list) else ():
        _drop(item, _entry(entry.get("items", {}), defs), defs)
    for key, inner in [*value.items()] if isinstance(value, dict) else ():
        inner_entry = _entry(entry.get("properties", {}).get(key, entry.get("additionalProperties")) or {}, defs)
        nothing = inner is None or (inner == "null" and "string" not in inner_entry.get("type", ()))
        if nothing and inner_entry and "null" not in inner_entry.get("type", ()):
            del value[key]
        _drop(inner, inner_entry, defs)


def _entry(entry, defs):
    """An entry of the schema, or the one in `defs` that it refers to."""
    return defs[entry["$ref"].rpartition("/")[2]] if "$ref" in entry else entry


def _validator(schema):
    base = jsonschema.Draft202012Validator
    properties, items = base.VALIDATORS["properties"], base.VALIDATORS["items"]

    def meant(value, entry):
        """A whole number for 12.0 where one is wanted, and a number for the text "1e-3"."""
        types = str(entry.get("type"))
        return number(value) if "integer" in types or ("number" in types and isinstance(value, str)) else value

    def fill(validator, wanted, instance, schema):
        if isinstance(instance, dict):
            for key, entry in wanted.items():
                if "default" in entry:
                    instance.setdefault(key, yaml.safe_load(yaml.safe_dump(entry["default"])))
                if key in instance:
                    instance[key] = meant(instance[key], entry)
        yield from properties(validator, wanted, instance, schema)

    def fill_list(validator, wanted, instance, schema):
        if isinstance(instance, list):
            instance[:] = [meant(value, wanted) for value in instance]
        yield from items(validator, wanted, instance, schema)

    checker = base.TYPE_CHECKER.redefine("number", lambda _, value: is_finite(value))
    return jsonschema.validators.extend(base, {"properties": fill, "items": fill_list}, type_checker=checker)(schema)


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
    if error.validator == "type":
        allowed = [error.validator_value] if isinstance(error.validator_value, str) else error.validator_value
        return f"{where}: {error.instance!r} is not {' or '.join(map(WORDS.get, allowed))}"
    if error.validator == "pattern" and "description" in error.schema:
        return f"{where}: {error.instance!r} is not {error.schema['description']}"
    return f"{where}: {error.message}"
