"""The seams between what decides and what does: protocols of coroutines, cut by caller.

The store is dumb: no decision, id or time is made below these protocols, except message sequences, heartbeat and lease
times, and the filter of a group by its fences. Every method is atomic.
"""
