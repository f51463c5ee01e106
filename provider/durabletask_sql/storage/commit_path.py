"""Which statements commits, loads and polls are made of."""

from collections.abc import Iterator

from durabletask_sql.storage import entity_statements, pending, statements
from durabletask_sql.storage.dialect import Statement


def commit_path() -> Iterator[Statement]:
    """Yield each of them."""
    for module in (statements, entity_statements, pending):
        for value in vars(module).values():
            for one in value.values() if isinstance(value, dict) else (value,):
                if isinstance(one, Statement):
                    yield one
