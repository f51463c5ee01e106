"""`python -m durabletask_sql`: the command line."""

import sys

from durabletask_sql.cli import main

sys.exit(main())
