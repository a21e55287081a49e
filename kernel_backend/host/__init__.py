"""The only code that touches libc or /proc: syscalls, parsers, probed features."""
