#!/usr/bin/env python3
"""One command for each thing a developer does; each sets up what it needs by itself.

    python3 dev.py demo            set up and run the demo on embedded SQLite
    python3 dev.py test [ARGS]     set up and run the tests (ARGS go to pytest), on SQLite and a real PostgreSQL
    python3 dev.py sdks [ARGS]     set up and run the scenarios of the SDKs of all languages (ARGS go to pytest)
    python3 dev.py lint            ruff, mypy, import contracts, freshness of generated code

Uses the standard library only. The virtual environment is `.venv` beside this file, or $DURABLETASK_SQL_VENV.
"""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
OLDEST = (3, 11)
PYTHONS = ("python3.13", "python3.12", "python3.11")


def fail(message):  # type: ignore[no-untyped-def]  # runs on Pythons that know no annotations of today
    """End with one sentence."""
    sys.stderr.write("dev.py: %s\n" % message)
    sys.exit(1)


def interpreter():  # type: ignore[no-untyped-def]
    """Return a Python that is new enough: this one, else one on the PATH."""
    if sys.version_info >= OLDEST:
        return sys.executable
    for name in PYTHONS:
        found = shutil.which(name)
        if found and subprocess.call([found, "-c", ""]) == 0:
            return found
    fail("Python %d.%d or newer is needed, this is %s and no newer one is on the PATH"
         % (*OLDEST, sys.version.split()[0]))


def environment(extra):  # type: ignore[no-untyped-def]
    """Make the virtual environment if it is missing or out of date; return its Python."""
    base = interpreter()
    folder = Path(os.environ.get("DURABLETASK_SQL_VENV") or HERE / ".venv")
    python = folder / "bin" / "python"
    wanted = hashlib.sha256()
    for name in ("pyproject.toml", "constraints.txt"):
        wanted.update((HERE / name).read_bytes())
    stamp, mark = folder / ("installed-" + extra), wanted.hexdigest()
    if python.exists() and stamp.exists() and stamp.read_text() == mark:
        return str(python)
    print("setting up %s for %s (once)..." % (folder, extra), flush=True)
    if not python.exists() and subprocess.call([base, "-m", "venv", str(folder)]):
        fail("no virtual environment could be made in %s (on Debian: apt-get install python3-venv)" % folder)
    install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-c",
               str(HERE / "constraints.txt"), "-e", "%s[%s]" % (HERE, extra)]
    if subprocess.call(install, stdin=subprocess.DEVNULL):
        fail("the packages could not be installed; pip's message is above")
    stamp.write_text(mark)
    return str(python)


def become(command):  # type: ignore[no-untyped-def]
    """Go on as another program. A parent that waits would kill it soon after Ctrl-C, before it has cleaned up."""
    sys.stdout.flush()
    os.execv(command[0], command)


def demo(arguments):  # type: ignore[no-untyped-def]
    """Run the demo."""
    become([environment("demo"), "-m", "durabletask_sql", "demo", *arguments])


def test(arguments):  # type: ignore[no-untyped-def]
    """Run the tests."""
    python = environment("dev")
    os.chdir(str(HERE))
    become([python, "-m", "pytest", *arguments])


def sdks(arguments):  # type: ignore[no-untyped-def]
    """Run the scenarios of all SDKs, those included that need a toolchain which `test` does not ask for."""
    return subprocess.call([environment("dev"), "-m", "pytest", "-m", "", "tests/sdk", "tests/polyglot", *arguments],
                           cwd=str(HERE))


def lint(arguments):  # type: ignore[no-untyped-def]
    """Run all static checks."""
    del arguments
    python = environment("dev")
    folder = Path(python).parent
    checks = (
        [str(folder / "ruff"), "check", "."],
        [python, "-m", "mypy"],
        [str(folder / "lint-imports"), "--no-logo"],
        [python, "tools/protocol.py", "--check"],
    )
    codes = []
    for command in checks:
        print("$ " + " ".join([Path(command[0]).name, *command[1:]]), flush=True)
        codes.append(subprocess.call(command, cwd=str(HERE)))
    return max(codes)


def main():  # type: ignore[no-untyped-def]
    """Run a command."""
    commands = {"demo": demo, "test": test, "sdks": sdks, "lint": lint}
    if len(sys.argv) < 2 or sys.argv[1] not in commands:
        print(__doc__.strip())
        return 0 if sys.argv[1:] in (["--help"], ["-h"]) else 2
    try:
        return commands[sys.argv[1]](sys.argv[2:])
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
