"""A kernel specification whose Jupyter kernels load nbcr and come back from their last checkpoint."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from pathlib import Path

from nbcr.errors import TargetUnknown


def install(
    *, source: str = "python3", name: str = "nbcr", after_crash: str = "last", auto: str = "--every 10m",
    user: bool = False, prefix: str | None = None,
) -> Path:  # fmt: skip
    """Install a copy of the specification `source` under `name`; returns its folder.

    `auto`: flags of `%nbcr auto` with which each Jupyter kernel begins. Without `user` and `prefix`: into this Python's
    environment. Raises TargetUnknown.
    """
    from jupyter_client.kernelspec import KernelSpecManager, NoSuchKernel

    manager = KernelSpecManager()
    try:
        found = manager.get_kernel_spec(source)
    except NoSuchKernel:
        known = ", ".join(sorted(manager.find_kernel_specs())) or "there is none"
        raise TargetUnknown(f"there is no kernel specification {source!r}", hint=f"known: {known}") from None
    document = found.to_dict()
    document["display_name"] = f"{found.display_name} · nbcr"
    document["argv"] = [*found.argv, "--InteractiveShellApp.extra_extensions=nbcr", f"--NbcrAuto.begin_with={auto}"]
    provisioner = {"provisioner_name": "nbcr", "config": {"after_crash": after_crash}}
    document["metadata"] = {**(found.metadata or {}), "kernel_provisioner": provisioner}
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder, name)
        shutil.copytree(found.resource_dir, made, ignore=shutil.ignore_patterns("kernel.json"))
        (made / "kernel.json").write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        where = None if user else (prefix or sys.prefix)
        return Path(manager.install_kernel_spec(str(made), name, user=user, prefix=where))
