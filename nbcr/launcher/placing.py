"""Where the ranks of a job go: what mpiexec is told about hosts, by its options and by a batch system."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from nbcr.launcher.schema import Schema

# Options of MPICH's mpiexec (hydra) that say where ranks go and how other hosts are reached; each has a value.
_PLACING = frozenset(
    "f host hosts hostfile machine machinefile ppn perhost grr rankmap launcher launcher-exec bootstrap bootstrap-exec"
    " rmk iface localhost nameserver order-nodes bind-to map-by membind topolib".split()
)
_NAMING_HOSTS = frozenset("f host hosts hostfile machine machinefile".split())
_WITHOUT_VALUE = frozenset(
    "genvnone genvall envnone envall enable-x disable-x disable-auto-cleanup disable-hostname-propagation hybrid-hosts"
    " info pmi-port prepend-rank print-all-exitcodes profile skip-launch-node verbose v l".split()
)
_WITH_TWO = frozenset(("genv", "env"))
_BATCH = ("SLURM_", "PBS_", "LSB_", "LS_", "SGE_", "PE_", "COBALT_", "HYDRA_")
_HOST_FILES = (
    "HYDRA_HOST_FILE",
    "PBS_NODEFILE",
    "LSB_DJOB_HOSTFILE",
    "LSB_MCPU_HOSTS",
    "PE_HOSTFILE",
    "COBALT_NODEFILE",
)
_NO_SHARED_MEMORY, _TRANSPORTS = "MPIR_CVAR_NOLOCAL", "UCX_TLS"
_SHARED = frozenset(
    "all sm shm mm posix sysv xpmem cma knem".split()
)  # names of UCX for what leads to the own host only
_SEVERAL = ("SLURM_JOB_NUM_NODES", "SLURM_NNODES")


def options(argv: Sequence[str]) -> list[tuple[str, ...]]:
    """The options of an mpiexec's command line, each with its values, up to the first program."""
    found, at = [], 1
    while at < len(argv) and argv[at].startswith("-"):
        name = argv[at].lstrip("-")
        values = 0 if name in _WITHOUT_VALUE or "=" in name else 2 if name in _WITH_TWO else 1
        found.append(tuple(argv[at : at + 1 + values]))
        at += 1 + values
    return found


def placing_options(argv: Sequence[str]) -> list[str]:
    """Those that say where ranks go: a restart gives them to its mpiexec too."""
    return [word for option in options(argv) if option[0].lstrip("-") in _PLACING for word in option]


def placed(argv: Sequence[str], given: Sequence[str]) -> tuple[str, ...]:
    """A command line with other options that say where ranks go."""
    kept = [word for option in options(argv) if option[0].lstrip("-") not in _PLACING for word in option]
    return (argv[0], *given, *kept, *argv[1 + sum(map(len, options(argv))) :])


def is_spread(argv: Sequence[str], environ: Mapping[str, str]) -> bool:
    """Whether ranks may be on other hosts than mpiexec."""
    if any(option[0].lstrip("-") in _NAMING_HOSTS for option in options(argv)):
        return True
    if any(environ.get(name) for name in _HOST_FILES):
        return True
    return any(environ.get(name, "1") not in ("", "1") for name in _SEVERAL)


def of_now(environ: Mapping[str, str], now: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The environment of a job, with what the batch system says now in the place of what it said then."""
    kept = {name: value for name, value in environ.items() if not name.startswith(_BATCH)}
    return {**kept, **{name: value for name, value in now.items() if name.startswith(_BATCH)}}


def sharing(schema: Schema, now: Mapping[int, str]) -> dict[str, str]:
    """What restored ranks must be told of who may share memory: MPI remembers in each process how it was when that one
    first initialised it. `now`: the host of each rank.

    MPICH 5.0.2 remembers how large its shared memory was, and aborts where there are more ranks on the host now, or
    such that remember otherwise. UCX remembers on which host it is, and takes ranks that were there for neighbours.
    """
    facts = {rank: dict(schema.facts.get(str(rank), {})) for rank in now}
    together: dict[str, list[int]] = {}
    spread: dict[str, set[str]] = {}
    for rank, host in now.items():
        together.setdefault(host, []).append(rank)
        spread.setdefault(str(facts[rank].get("mark", "")), set()).add(host)
    found = {name: schema.environ[name] for name in (_NO_SHARED_MEMORY, _TRANSPORTS) if schema.environ.get(name)}
    for ranks in together.values():
        remembered = {int(facts[rank].get("local") or schema.ranks) for rank in ranks}
        if len(remembered) > 1 or min(remembered) < len(ranks):
            found[_NO_SHARED_MEMORY] = "1"
    if any(len(hosts) > 1 for hosts in spread.values()):
        found[_TRANSPORTS] = _without_shared_memory(found.get(_TRANSPORTS, ""))
    return found


def _without_shared_memory(transports: str) -> str:
    if transports.startswith("^"):
        return f"{transports},sm"
    return ",".join(each for each in transports.split(",") if each and each not in _SHARED) or "^sm"
