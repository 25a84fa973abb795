"""What results call things: presets by their names, identities beside what they should be, no ratio
to rounding."""

import numpy as np
import pytest

import allmodes as am
from allmodes.files.saved import describe
from allmodes.methods import METHODS
from allmodes.metrics.mode_weights import over_floors
from allmodes.report.facts import evidence_rows
from allmodes.targets import gaussian


@pytest.mark.parametrize("name", list(METHODS))
def test_a_preset_is_called_by_its_name(name):
    assert METHODS[name].name == name
    assert describe(gaussian(2), METHODS[name])["method"]["name"] == name


def test_a_preset_keeps_its_name_when_a_setting_changes():
    assert am.IWSM.paper(steps=10).name == "iwsm-paper"
    assert am.IWSM(steps=10).name == "iwsm"


def test_an_identity_is_shown_beside_what_it_should_be():
    rows = evidence_rows({"virial": {"value": -1.5, "expected": -2.0, "std_error": 0.39}}, {})
    assert rows[0]["value"] == "-1.50 \u00b1 0.39 (exact draws: -2.00)"


def test_a_floor_of_rounding_makes_no_ratio():
    """A ring is one mode, whose weight is 1 whatever is drawn: the ratio was 13,725,256,007,226."""
    assert np.isnan(over_floors(0.03, [2e-15, 1e-15, 0.0])["ratio"])
    assert over_floors(0.03, [0.02, 0.03, 0.04])["ratio"] == pytest.approx(1.0)
