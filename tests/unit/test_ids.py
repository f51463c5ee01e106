"""Partitions are FNV-1a of an id's UTF-8 bytes, as the reference's are, and ids have the forms that SDKs expect."""

from __future__ import annotations

import re

import pytest

from durabletask_sql.ids import is_entity, new_claim_token, new_execution_id, partition_of


@pytest.mark.parametrize(("instance_id", "expected"), [
    ("", 0x811C9DC5), ("a", 0xE40C292C), ("A", 0xC40BF6CC), ("foobar", 0xBF9CF968)])
def test_the_partition_is_the_hash_of_the_published_vectors(instance_id, expected):
    assert partition_of(instance_id, 1 << 32) == expected
    assert [partition_of(instance_id, count) for count in (1, 4, 16)] == [0, expected % 4, expected % 16]


def test_an_execution_id_is_32_lower_case_hexadecimal_digits():
    assert all(re.fullmatch("[0-9a-f]{32}", new_execution_id()) for _ in range(50))


def test_claim_tokens_are_positive_and_fit_a_signed_64_bit_number():
    assert all(0 < new_claim_token() < 1 << 63 for _ in range(50))


def test_only_a_leading_at_makes_an_entity():
    assert [is_entity(one) for one in ("@a@b", "a@b", "")] == [True, False, False]
