"""Values of the domain: instances, messages, activity tasks, checkpoints, leases. Pure; no IO, no clock, no asyncio."""
