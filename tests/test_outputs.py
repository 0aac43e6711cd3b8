"""Schemas of what is printed refuse what is none of it; that they allow what is, `output_checks` sees in all tests."""

import json

import pytest
from jsonschema import Draft202012Validator, ValidationError
from output_checks import validator

from diffcern.errors import UsageError
from diffcern.outputs import OUTPUTS, schema_of

GOOD = {
    "id": "a",
    "label": "3",
    "confidence": 0.9,
    "ranked": "3 0.900",
    "margin": 0.1,
    "margin_standard_error": None,
    "nfe_forward": 34,
    "seconds": 0.1,
    "error": None,
}


@pytest.mark.parametrize("output", OUTPUTS)
def test_a_schema_is_one(output):
    Draft202012Validator.check_schema(schema_of(output))
    assert not validator(output).is_valid("text")


def test_rows_have_their_columns_and_no_others():
    rows = validator("classify")
    rows.validate([GOOD, {"id": "b", "error": "cannot be read"}])
    for bad in ({**GOOD, "nfe_forward": 1.5}, {**GOOD, "other": 1}, {"id": "b", "error": ""}, {"id": 1, "error": "x"}):
        with pytest.raises(ValidationError):
            rows.validate([bad])


def test_an_unknown_output_names_the_known():
    with pytest.raises(UsageError, match=r"'calibrate run'"):
        schema_of("calibrate rum")


def test_the_command_prints_both_sides(cli):
    assert json.loads(cli("schema", "calibrate", "images")[1])["title"] == "calibrate images"
    assert "prior" in json.loads(cli("schema", "classify", "--fields")[1])["required"]
    code, _, err = cli("schema", "report", "--fields")
    assert code == 2
    assert "adapt" in err
