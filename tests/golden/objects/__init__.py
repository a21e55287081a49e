"""Snapshots of objects as earlier versions of nbcr and other versions of Python have written them."""
