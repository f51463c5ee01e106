"""Entities: what a step of one sees and does, and what orchestrations send to them. Pure, like all of `turn`."""
