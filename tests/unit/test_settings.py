"""Settings from options and the environment are checked once, and refused by name."""

import pytest

from durabletask_sql.errors import SettingsError
from durabletask_sql.settings import DEFAULT_LEASE_SECONDS, check_lease, from_environment


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
