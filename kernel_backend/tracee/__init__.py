"""A stopped process as an object: seize, threads, registers, memory, injected system calls.

Everything borrowed from a tracee is a context manager that gives it back on any way out.
"""
