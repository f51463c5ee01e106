"""Three servers and two workers on one PostgreSQL that is restarted, under random kills: `torture`, at its full size.

DURABLETASK_SQL_SOAK_MINUTES sets how long (default 0.5), DURABLETASK_SQL_SOAK_IN_FLIGHT how many orchestrations (default
100), DURABLETASK_SQL_SOAK_RESTARTS how often PostgreSQL restarts (default 1). The full run:

    DURABLETASK_SQL_SOAK_MINUTES=10 DURABLETASK_SQL_SOAK_IN_FLIGHT=2000 DURABLETASK_SQL_SOAK_RESTARTS=5 \
        python3 dev.py test tests/crash/test_soak.py
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys

from cluster import nodes

MINUTES = float(os.environ.get("DURABLETASK_SQL_SOAK_MINUTES", "0.5"))
IN_FLIGHT = os.environ.get("DURABLETASK_SQL_SOAK_IN_FLIGHT", "100")
RESTARTS = int(os.environ.get("DURABLETASK_SQL_SOAK_RESTARTS", "1"))
SEED = os.environ.get("DURABLETASK_SQL_SOAK_SEED", "1")


def test_a_cluster_under_blows_loses_nothing_and_counts_nothing_twice():
    command = [sys.executable, "-m", "durabletask_sql"]
    with nodes(1) as (database,):
        database.initialize()
        database.start()
        subprocess.run([*command, "schema", "upgrade", "--database", database.url], check=True, capture_output=True)
        process = subprocess.Popen(
            [*command, "torture", "--database", database.url, "--minutes", str(MINUTES), "--seed", SEED, "--in-flight",
             IN_FLIGHT], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        assert process.stdout is not None
        lines, restarts = [], 0
        try:
            for line in process.stdout:
                lines.append(line)
                sys.stdout.write(line)
                left = re.match(r"(\d+) s left", line)
                # Every other one as a crash would be; the last well before the end.
                if left and restarts < RESTARTS and MINUTES * 60 - int(left[1]) > (restarts + 0.5) * 50 * MINUTES / RESTARTS:
                    database.restart((signal.SIGINT, signal.SIGQUIT)[restarts % 2])
                    restarts += 1
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
            code = process.wait(60)
        assert code == 0, "".join(lines[-40:])
        assert restarts == RESTARTS
        trouble = [line for line in database.log.read_text().splitlines()
                   if re.search("deadlock|could not serialize", line)]
        assert trouble == []
