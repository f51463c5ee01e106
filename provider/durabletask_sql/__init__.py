"""durabletask-sql: a self-hosted, storage-backed durability provider for Durable Task."""

__version__ = "0.1.0"
