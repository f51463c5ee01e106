"""The orchestration service: what clients can do to instances of a task hub, whatever front they come through."""
