"""Numbers and structures of the OS kernel's interface: no calls, no logic.

`linux` holds what every architecture shares; one further file per architecture holds syscall numbers, register
layouts and machine code. `arch` is the file for the machine we run on.
"""

from kernel_backend.abi import x86_64 as arch

__all__ = ["arch"]
