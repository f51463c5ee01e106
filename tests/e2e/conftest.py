"""The wheel, built and installed into an environment of its own: what users get, away from the checkout."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
_SECONDS = 30


def clean_environment(variables: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment without anything of this project's, and with what a test gives."""
    kept = {name: value for name, value in os.environ.items()
            if not name.startswith(("DURABLETASK_SQL_", "PYTHONPATH", "VIRTUAL_ENV"))}
    return {**kept, **(variables or {})}


@dataclass(frozen=True)
class Installed:
    """An environment with the wheel in it."""

    wheel: Path
    environment: Path

    @property
    def python(self) -> str:
        return str(self.environment / "bin" / "python")

    @property
    def command(self) -> tuple[str, ...]:
        return (str(self.environment / "bin" / "durabletask-sql"),)

    def run(self, *arguments: str, folder: Path, variables: Mapping[str, str] | None = None
            ) -> subprocess.CompletedProcess[str]:
        """Run the command to its end in a folder."""
        return subprocess.run([*self.command, *arguments], check=False, capture_output=True, text=True, cwd=folder,
                              env=clean_environment(variables), stdin=subprocess.DEVNULL, timeout=_SECONDS)


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    folder = tmp_path_factory.mktemp("installed")
    pip, constraints = ("-m", "pip", "--quiet", "--disable-pip-version-check"), str(ROOT / "constraints.txt")
    subprocess.run([sys.executable, *pip, "wheel", "--no-deps", "--wheel-dir", str(folder), str(ROOT)], check=True)
    wheel, = folder.glob("*.whl")
    environment = folder / "venv"
    subprocess.run([sys.executable, "-m", "venv", str(environment)], check=True)
    subprocess.run([str(environment / "bin" / "python"), *pip, "install", "-c", constraints, f"{wheel}[demo]"], check=True,
                   cwd=folder)
    return Installed(wheel, environment)
