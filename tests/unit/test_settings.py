"""Settings that environment variables give."""

from __future__ import annotations

import pytest

from durabletask_sql.errors import SettingsError
from durabletask_sql.settings import from_environment

VARIABLE = "DURABLETASK_SQL_MANAGE_TASK_HUBS"


@pytest.mark.parametrize(("text", "expected"), [(None, False), ("", False), ("0", False), ("Off", False), ("no", False),
                                                ("1", True), ("TRUE", True), (" yes ", True)])
def test_managing_task_hubs_is_switched_on_by_a_word_and_off_otherwise(text, expected):
    assert from_environment({} if text is None else {VARIABLE: text}).manage_hubs is expected


def test_a_word_that_is_neither_on_nor_off_is_refused_by_name():
    with pytest.raises(SettingsError, match=f"{VARIABLE} 'perhaps'"):
        from_environment({VARIABLE: "perhaps"})
