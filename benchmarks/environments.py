"""The environments of peers: a virtual environment each, made when first needed and kept until its requirements change."""

from __future__ import annotations

import glob
import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

FOLDER = Path(__file__).parent / ".environments"

REQUIREMENTS = {
    "storchastic": ("torch==2.13.0", "storchastic==0.3.7"),
    "genjax": ("genjax==1.0.14",),
    "numpyro": ("numpyro==0.22.0",),
    "optax": ("optax==0.2.6",),
    "tfp": ("tfp-nightly==0.26.0.dev20261027", "jax"),
}


class Missing(RuntimeError):
    """A peer that cannot be installed here."""


@cache
def newest_python() -> str:
    """The newest interpreter there is that can make environments; some peers need one newer than mcgrad does."""
    managed = glob.glob(
        os.path.join(os.environ.get("PYENV_ROOT", os.path.expanduser("~/.pyenv")), "versions/*/bin/python")
    )
    ask = "import sys, venv, ensurepip; print(*sys.version_info[:3])"
    found = {}
    for python in [sys.executable, *(f"python3.{minor}" for minor in (14, 13, 12, 11)), *managed]:
        path = shutil.which(python)
        if path is None:
            continue
        told = subprocess.run([path, "-c", ask], capture_output=True, text=True)
        if told.returncode == 0 and (number := tuple(map(int, told.stdout.split()))) < (3, 15):
            found.setdefault(number, path)
    return found[max(found)]


def environment(name: str) -> str:
    """The interpreter of a peer's environment: of this Python, so of the same JAX; else of the newest, where the peer asks for it.

    Args:
        name: a key of `REQUIREMENTS`.

    Raises:
        Missing: where pip cannot install it; with what pip said last.
    """
    folder, wanted = FOLDER / name, "\n".join(REQUIREMENTS[name])
    stamp, python = folder / "requirements.txt", folder / "bin" / "python"
    if stamp.exists() and stamp.read_text() == wanted:
        return str(python)
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *REQUIREMENTS[name]]
    for base in dict.fromkeys((sys.executable, newest_python())):
        shutil.rmtree(folder, ignore_errors=True)
        try:
            subprocess.run([base, "-m", "venv", str(folder)], check=True, capture_output=True, text=True)
            subprocess.run(pip, check=True, capture_output=True, text=True)
        except subprocess.CalledProcessError as error:
            failure = error
        else:
            stamp.write_text(wanted)
            return str(python)
    reason = [line for line in (failure.stderr or failure.stdout or "").splitlines() if "ERROR" in line]
    raise Missing(f"{' '.join(REQUIREMENTS[name])}: {reason[-1] if reason else failure}") from failure
