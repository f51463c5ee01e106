"""The demo: a sample workflow on the unmodified SDK, a server that is killed half-way, and the proof that it finished.

Needs the extra `durabletask-sql[demo]`.
"""

from durabletask_sql.demo.show import run

__all__ = ["run"]
