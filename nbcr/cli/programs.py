"""The commands that start something: ``nbcr run``, ``execute``, ``kernelspec``."""

from __future__ import annotations

from typing import Annotated

import typer

from nbcr.cli.app import EXIT_CODES, StoreOption, app, complain, end_like, errors, started_umask


@app.command(epilog=EXIT_CODES, context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
def run(
    command: Annotated[list[str], typer.Argument(help="The command and its arguments, after `--`.")],
    name: Annotated[str | None, typer.Option("--name", "-n", help="Name of the job; left out: job-PID.")] = None,
    every: Annotated[str | None, typer.Option("--every", metavar="SPAN", help="Save it every 10m, 90s, 1h.")] = None,
    on_memory: Annotated[
        str | None, typer.Option("--on-memory", metavar="SHARE", help="Save it when 90% of the memory are in use.")
    ] = None,
    on_signal: Annotated[
        list[str] | None,
        typer.Option("--on-signal", metavar="NAME", help="Save and end it at this signal (TERM; none: no one)."),
    ] = None,
    keep: Annotated[
        int | None, typer.Option("--keep", metavar="N", help="How many of these checkpoints stay; left out: 3 or 2.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the last checkpoint of this job, where there is one.")
    ] = False,
    store: StoreOption = None,
) -> None:
    """Run a command as a job that `nbcr checkpoint JOB` can save: `nbcr run -- mpiexec -n 4 python sim.py`.

    Ends as the command ends. All ranks of an MPI program that uses mpi4py are saved together. A job that is ended by
    SIGTERM, as schedulers do, is saved first: the same command with --resume goes on with it.
    """
    with errors():
        from nbcr.launcher import launcher
        from nbcr.launcher.keeping import Wants

        wants = Wants.of(every=every, on_memory=on_memory, on_signal=on_signal or (), keep=keep, resume=resume)
        end_like(launcher.run(command, name=name, umask=started_umask(), wants=wants, store=store))


@app.command(epilog=EXIT_CODES)
def execute(
    notebook: Annotated[str, typer.Argument(help="The notebook to execute.")],
    output: Annotated[str, typer.Option("--output", "-o", metavar="FILE", help="Where to write it, with its outputs.")],
    resume: Annotated[bool, typer.Option("--resume", help="Go on where an earlier run into that file died.")] = False,
    kernel: Annotated[str | None, typer.Option("--kernel", metavar="NAME", help="Not the notebook's own.")] = None,
    timeout: Annotated[float | None, typer.Option("--timeout", metavar="SECONDS", help="For each cell.")] = None,
    store: StoreOption = None,
) -> None:
    """Execute a notebook, with a checkpoint after each cell: a run that died can go on from there."""
    with errors():
        from pathlib import Path

        try:
            import nbclient  # noqa: F401
        except ImportError as error:
            from nbcr.errors import NotPossible

            raise NotPossible(f"nbclient is missing ({error})", hint="pip install 'nbcr[execute]'") from error
        from nbcr.jupyter.executing import execute as run

        many = run(
            Path(notebook),
            Path(output),
            resume=resume,
            kernel_name=kernel,
            store=store,
            timeout_s=timeout,
            say=complain,
        )
        typer.echo(f"executed {many} cells into {output}")


kernelspec_app = typer.Typer(no_args_is_help=True, help="Kernel specifications whose Jupyter kernels survive crashes.")
app.add_typer(kernelspec_app, name="kernelspec")


@kernelspec_app.callback()
def kernelspec() -> None:
    """Kernel specifications whose Jupyter kernels survive crashes."""


@kernelspec_app.command("install", epilog=EXIT_CODES)
def install_kernelspec(
    source: Annotated[str, typer.Option("--from", metavar="NAME", help="The specification to copy.")] = "python3",
    name: Annotated[str, typer.Option("--name", help="What the new one is called.")] = "nbcr",
    after_crash: Annotated[str, typer.Option("--after-crash", metavar="last|clean")] = "last",
    auto: Annotated[str, typer.Option("--auto", metavar="FLAGS", help="Of %nbcr auto, on from the start.")] = (
        "--every 10m"
    ),
    user: Annotated[bool, typer.Option("--user", help="For you, instead of into this Python's environment.")] = False,
    prefix: Annotated[str | None, typer.Option("--prefix", metavar="DIR", help="Into another environment.")] = None,
) -> None:
    """Install one whose Jupyter kernels load nbcr, take checkpoints, and come back from the last when they crash."""
    with errors():
        from nbcr.errors import UsageProblem
        from nbcr.jupyter import kernelspec as specs

        if after_crash not in ("last", "clean"):
            raise UsageProblem(f"--after-crash {after_crash!r} is not known", hint="use last or clean")
        folder = specs.install(source=source, name=name, after_crash=after_crash, auto=auto, user=user, prefix=prefix)
        typer.echo(f"installed {name} in {folder}")
