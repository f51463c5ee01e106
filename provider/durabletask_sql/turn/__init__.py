"""Turns: pure functions from (state, messages, answer, now) to what a turn sees and to the checkpoint that it makes.

No IO, no clock, no asyncio: times and new ids come in as values or as a callable given by the caller.
"""
