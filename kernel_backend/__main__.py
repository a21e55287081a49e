"""The engine's command line: python -m kernel_backend dump|restore|show|verify|probe (see docs/engine.md).

Every failure is one line on stderr and a status other than 0. Results are one JSON line on stdout.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import signal
import sys
from pathlib import Path
from typing import NoReturn

from kernel_backend.errors import EngineError, NoRoom

_NO_STDIO = (-1, -1, -1)
_FILES = ("keep", "rewind", "save")
_TCP = ("reset", "keep")
_FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)


def main(argv: list[str] | None = None) -> int:
    """Parse, run, print; the exit status."""
    args = _parser().parse_args(argv)
    try:
        return int(args.run(args))
    except EngineError as error:
        hint = f" ({error.hint})" if error.hint else ""
        print(f"kernel_backend: {error}{hint}".replace("\n", " "), file=sys.stderr)
        return error.exit_code
    except MemoryError:
        print("kernel_backend: there is not enough memory (free some and try again)", file=sys.stderr)
        return NoRoom.exit_code
    except OSError as error:
        print(f"kernel_backend: {error} (nothing was touched)", file=sys.stderr)
        return EngineError.exit_code
    except KeyboardInterrupt:
        print("kernel_backend: interrupted; nothing was left behind", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m kernel_backend", description="Process images: take and restore.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    dump = commands.add_parser("dump", help="write an image of a process tree")
    dump.add_argument("pid", type=int, metavar="PID")
    dump.add_argument("image_dir", type=Path, metavar="IMAGE_DIR")
    dump.add_argument("--leave", choices=("running", "stopped", "killed"), default="running")
    dump.add_argument("--no-tree", action="store_true", help="this process only, without its children")
    dump.add_argument("--files", choices=_FILES, default="keep", help="what a restore does about files being written")
    dump.add_argument("--tcp", choices=_TCP, default="reset", help="what becomes of connections to outside")
    dump.set_defaults(run=_dump)

    restore = commands.add_parser("restore", help="bring an image back")
    restore.add_argument("image_dir", type=Path, metavar="IMAGE_DIR")
    restore.add_argument("--into", type=int, metavar="PID", help="replace this living process, which keeps its pid")
    restore.add_argument("--pid", choices=("auto", "same", "any"), default="auto", help="keep the old pids?")
    restore.add_argument("--lazy", action="store_true", help="read memory when it is first touched")
    restore.add_argument("--trust", action="store_true", help="also an image that somebody else owns or may write to")
    restore.add_argument("--files", choices=_FILES, help="about files being written, instead of what the dump said")
    restore.add_argument("--detach", action="store_true", help="leave it running and exit")
    restore.set_defaults(run=_restore)

    for name, work, help_text in (("show", _show, "what an image holds"), ("verify", _verify, "prove every byte")):
        command = commands.add_parser(name, help=help_text)
        command.add_argument("image_dir", type=Path, metavar="IMAGE_DIR")
        command.set_defaults(run=work)
    commands.add_parser("probe", help="what this host allows").set_defaults(run=_probe)
    for command in commands.choices.values():
        command.add_argument("--json", action="store_true", help="one JSON document on stdout")
    return parser


def _dump(args: argparse.Namespace) -> int:
    import msgspec

    from kernel_backend.engine import dump

    report = dump(args.pid, args.image_dir, leave=args.leave, tree=not args.no_tree, files=args.files, tcp=args.tcp)
    _warn(report.warnings)
    if args.json:
        print(json.dumps(msgspec.structs.asdict(report)))
    else:
        print(
            f"process {report.pid}: {len(report.pids)} in the tree, {report.size_bytes / 2**20:.1f} MiB, "
            f"paused {report.pause_ms:.1f} ms, took {report.duration_ms:.0f} ms"
        )
    return 0


def _restore(args: argparse.Namespace) -> int:
    from kernel_backend.engine import restore

    stdio = _NO_STDIO if args.detach or args.into else (0, 1, 2)
    restored = restore(
        args.image_dir, into=args.into, pid=args.pid, lazy=args.lazy, trust=args.trust, files=args.files, stdio=stdio,
        parting=args.detach,
    )  # fmt: skip
    _warn(restored.warnings)
    print(json.dumps({"pid": restored.pid, "pids": {str(old): new for old, new in restored.pids.items()}}), flush=True)
    if args.detach or args.into:
        return 0
    for number in _FORWARDED:
        signal.signal(number, lambda received, _frame: os.kill(restored.pid, received))
    return _exit_like(restored.wait())


def _exit_like(status: int) -> int:
    """End as the process ended: with its status, or by its signal."""
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        signal.signal(number, signal.SIG_DFL) if number not in (signal.SIGKILL, signal.SIGSTOP) else None
        os.kill(os.getpid(), number)
    return os.waitstatus_to_exitcode(status)


def _show(args: argparse.Namespace) -> int:
    import msgspec

    from kernel_backend.summary import inspect

    summary = inspect(args.image_dir)
    if args.json:
        print(msgspec.json.encode(summary).decode())
        return 0
    print(f"taken {summary.created} on {summary.host} (OS kernel {summary.os_kernel})")
    print(f"{summary.size_bytes / 2**20:.1f} MiB, pause {summary.pause_ms:.1f} ms")
    for process in summary.processes:
        print(
            f"  {process.pid} (parent {process.ppid}): {process.threads} threads, {process.descriptors} descriptors, "
            f"{process.resident_bytes / 2**20:.1f} MiB: {' '.join(process.argv) or process.exe}"
        )
    _warn(summary.warnings)
    return 0


def _verify(args: argparse.Namespace) -> int:
    from kernel_backend.summary import verify

    verify(args.image_dir)
    print(json.dumps({"ok": True}) if args.json else f"{args.image_dir} is complete and undamaged")
    return 0


def _probe(args: argparse.Namespace) -> int:
    from kernel_backend.host.features import probe

    features = probe()
    if args.json:
        print(json.dumps({f.name: {"available": f.available, "detail": f.detail} for f in features.values()}))
    else:
        for feature in features.values():
            print(f"{'yes' if feature.available else 'no ':4}{feature.name}: {feature.detail}")
    return 0


def _warn(warnings: list[str]) -> None:
    for warning in warnings:
        print(f"kernel_backend: warning: {warning}", file=sys.stderr)


def run_and_leave() -> NoReturn:
    """As a command of its own: nothing we made needs collecting, and taking the interpreter down takes a while."""
    gc.disable()
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    run_and_leave()
