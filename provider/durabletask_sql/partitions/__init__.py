"""The owner's memory of its partitions: instances with their rows, the ready queue, the timer window.

A pure state machine: it is told what was read, claimed and committed, and says what may run. No IO, no asyncio.
"""
