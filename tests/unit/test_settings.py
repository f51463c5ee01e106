"""Settings from options and environment variables are checked once, and refused by name."""

from __future__ import annotations

import pytest

from durabletask_sql.errors import SettingsError
from durabletask_sql.settings import DEFAULT_LEASE_SECONDS, check_lease, from_environment

VARIABLE = "DURABLETASK_SQL_MANAGE_TASK_HUBS"


@pytest.mark.parametrize(("text", "expected"), [(None, False), ("", False), ("0", False), ("Off", False), ("no", False),
                                                ("1", True), ("TRUE", True), (" yes ", True)])
def test_managing_task_hubs_is_switched_on_by_a_word_and_off_otherwise(text, expected):
    assert from_environment({} if text is None else {VARIABLE: text}).manage_hubs is expected


def test_a_word_that_is_neither_on_nor_off_is_refused_by_name():
    with pytest.raises(SettingsError, match=f"{VARIABLE} 'perhaps'"):
        from_environment({VARIABLE: "perhaps"})


@pytest.mark.parametrize("seconds", ["3", "12.5", "600"])
def test_a_lease_within_the_range_is_taken(seconds):
    assert check_lease(seconds, "--lease-seconds") == float(seconds)


@pytest.mark.parametrize("seconds", ["2.9", "601", "nan", "inf", "long", ""])
def test_any_other_lease_is_refused_by_name(seconds):
    with pytest.raises(SettingsError, match="--lease-seconds"):
        check_lease(seconds, "--lease-seconds")


def test_the_lease_comes_from_the_environment_too():
    assert from_environment({"DURABLETASK_SQL_LEASE_SECONDS": "5"}).lease_seconds == 5.0
    assert from_environment({}).lease_seconds == DEFAULT_LEASE_SECONDS
    with pytest.raises(SettingsError, match="DURABLETASK_SQL_LEASE_SECONDS 'soon'"):
        from_environment({"DURABLETASK_SQL_LEASE_SECONDS": "soon"})
