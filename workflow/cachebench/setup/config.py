"""The config: read, defaults filled in, and every mistake named in one line before any work starts. No torch here."""

import json
import os
from pathlib import Path

import yaml

from cachebench.setup import schema

TOLD = "CACHEBENCH_CONFIG"  # the environment variable that holds a run's config, as JSON


class ConfigError(ValueError):
    """A mistake in the config; the message is one line that names the key or file and what is allowed."""


def read(path):
    """The config at `path` as it is written, unchecked. ConfigError where it is no mapping in YAML."""
    try:
        content = yaml.safe_load(Path(path).read_text("utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: no YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: holds {'nothing' if content is None else f'a {type(content).__name__}'}; keys are needed")
    return content


def load(path=None):
    """The config at `path` with defaults, its keys checked; without a path the one that a job's run was started with, which the
    rules put into the environment. ConfigError if there is neither."""
    if path:
        return fill(read(path), path)
    if TOLD not in os.environ:
        raise ConfigError("--config: name a file, such as results/<name>/config.yaml; only the workflow's own jobs need none")
    return json.loads(os.environ[TOLD])


def fill(config, source="config"):
    """The mapping with defaults filled in and without keys x-..., which are places for anchors. ConfigError names `source`, the
    key and what is allowed."""
    config = {key: value for key, value in config.items() if not str(key).startswith("x-")}
    if mistake := schema.fill(config):
        raise ConfigError(f"{source}: {mistake}")
    return config
