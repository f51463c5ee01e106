"""SQL storage: tables, engine, dialect, statements by subject, group commit, migrations. Implements the ports.

The only package that imports SQLAlchemy, Alembic and the drivers. It decides nothing but message sequences, heartbeat
and lease times, and which items of a group still hold their fences.
"""
