"""Kinds of objects: one room per kind, both directions in it.

`base` is the interface, `table` knows the rooms.
"""
