"""The schema of results.csv: its columns are those that are written, and what it allows is what the code knows."""

import jsonschema
import pandas as pd

from cachebench.files import atomic
from cachebench.judge import results
from cachebench.plugin.method import EFFORTS, FAMILIES
from cachebench.setup import provenance


def test_the_schema_is_one_and_every_column_has_a_type_and_a_meaning():
    jsonschema.Draft202012Validator.check_schema(results.written())
    assert all(set(of) >= {"type", "x-part", "description"} for of in results.written()["properties"].values())
    assert set(results.columns(x_part="metrics")).isdisjoint(results.written()["properties"])


def test_what_is_allowed_is_what_the_code_knows():
    said = results.schema()
    assert said["family"]["enum"] == list(FAMILIES) and said["effort"]["enum"] == list(EFFORTS)
    assert said["precision_dtype"]["enum"] == list(results.BITS)
    assert set(provenance.HERE) <= set(results.columns(x_part="provenance"))


def test_the_committed_results_are_allowed_what_they_say():
    for path in sorted((atomic.ROOT / "resources").glob("*/results.csv")):
        assert results.wrong(pd.read_csv(path, dtype=str, keep_default_na=False)) == [], path
