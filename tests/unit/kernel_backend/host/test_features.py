"""What is probed holds for who probes."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.support import needs

_ASK = "from kernel_backend.host.features import probe_one; print(probe_one('user_namespaces').available)"


@pytest.mark.parametrize("kept", ["none", "all"])
def test_user_namespaces_are_there_for_root_where_it_is_root_in_them(kept: str) -> None:
    """Without CAP_SETFCAP it is not: a tree that was to be restored there was not restored at all."""
    needs("root, to be it without capabilities", available=os.geteuid() == 0)
    drop = [] if kept == "all" else ["setpriv", "--bounding-set=-all", "--inh-caps=-all", "--ambient-caps=-all"]
    asked = subprocess.run([*drop, sys.executable, "-c", _ASK], capture_output=True, text=True, check=True)
    tried = subprocess.run([*drop, "unshare", "--user", "--pid", "--map-root-user", "true"], capture_output=True)
    assert asked.stdout.strip() == str(tried.returncode == 0)
