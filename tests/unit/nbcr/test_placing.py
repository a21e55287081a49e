"""Where ranks go: mpiexec's options, batch systems, and what MPI remembers of hosts."""

from __future__ import annotations

import pytest

from nbcr.launcher import placing
from nbcr.launcher.schema import Schema

COMMAND = "mpiexec -verbose -genv A 1 -launcher ssh --hosts a,b -ppn=2 -n 4 -env B 2 python prog.py -hosts x".split()


def test_what_says_where_ranks_go_is_found() -> None:
    assert placing.placing_options(COMMAND) == ["-launcher", "ssh", "--hosts", "a,b"]
    assert placing.placing_options(["mpiexec", "-n", "2", "prog", "-f", "file"]) == []


def test_other_hosts_take_the_place_of_those() -> None:
    found = placing.placed(COMMAND, ["-f", "hosts"])
    assert found == tuple("mpiexec -f hosts -verbose -genv A 1 -ppn=2 -n 4 -env B 2 python prog.py -hosts x".split())


@pytest.mark.parametrize(
    ("words", "environ", "is_spread"),
    [
        ("mpiexec -n 4 prog -f x", {}, False),
        ("mpiexec -f hosts -n 4 prog", {}, True),
        ("mpiexec -n 4 -hosts a,b prog", {}, True),
        ("mpiexec -n 4 prog", {"SLURM_JOB_NUM_NODES": "2"}, True),
        ("mpiexec -n 4 prog", {"SLURM_JOB_NUM_NODES": "1", "SLURM_NNODES": "1"}, False),
        ("mpiexec -n 4 prog", {"PBS_NODEFILE": "/var/nodes"}, True),
    ],
)
def test_jobs_of_several_hosts_are_known(words: str, environ: dict[str, str], is_spread: bool) -> None:
    assert placing.is_spread(words.split(), environ) is is_spread


def test_a_batch_system_says_what_is_now() -> None:
    then = {"PATH": "/bin", "SLURM_JOB_ID": "1", "SLURM_OLD": "x", "UCX_TLS": "tcp"}
    assert placing.of_now(then, {"SLURM_JOB_ID": "2", "PATH": "/other"}) == {
        "PATH": "/bin",
        "UCX_TLS": "tcp",
        "SLURM_JOB_ID": "2",
    }


@pytest.mark.parametrize(
    ("then", "now", "transports", "expected"),
    [
        pytest.param("aabb", "aabb", "", {}, id="as before"),
        pytest.param("aabb", "ccdd", "", {}, id="other hosts, alike"),
        pytest.param("aabb", "aaaa", "", {"MPIR_CVAR_NOLOCAL": "1"}, id="more on a host"),
        pytest.param("aabb", "abcd", "", {"UCX_TLS": "^sm"}, id="neighbours apart"),
        pytest.param("aabb", "abba", "tcp,sm,self", {"UCX_TLS": "tcp,self"}, id="neighbours apart, transports named"),
        pytest.param("aaab", "ccdd", "^ib", {"MPIR_CVAR_NOLOCAL": "1", "UCX_TLS": "^ib,sm"}, id="unlike ones together"),
    ],
)
def test_what_mpi_remembers_of_hosts_is_told_to_be_wrong(
    then: str, now: str, transports: str, expected: dict[str, str]
) -> None:
    facts = {str(rank): {"mark": host, "local": then.count(host)} for rank, host in enumerate(then)}
    environ = {"UCX_TLS": transports} if transports else {}
    schema = Schema("job", ("mpiexec",), "/", environ, "mpiexec", len(then), "", facts)
    assert placing.sharing(schema, dict(enumerate(now))) == environ | expected


def test_a_job_of_an_earlier_version_was_on_one_host() -> None:
    schema = Schema("job", ("mpiexec",), "/", {}, "mpiexec", 2, "", {"0": {"host": "a"}, "1": {"host": "a"}})
    assert placing.sharing(schema, {0: "x", 1: "x"}) == {}
    assert placing.sharing(schema, {0: "x", 1: "y"}) == {"UCX_TLS": "^sm"}
