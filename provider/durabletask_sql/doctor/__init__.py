"""The examination of a task hub: which invariants hold, in pure functions of what was read, and what to do if not."""
