"""The loops of a host: claim, intake, execute, apply, commit. They know the ports, never the storage."""
