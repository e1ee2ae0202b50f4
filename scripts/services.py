#!/usr/bin/env python3
"""The door to real MariaDB, Redis and Kafka on this machine, without containers: `scripts/services.py --help`.

Called by hand through `make services`, by scripts/test.sh and by fault tests through a subprocess. Everything lives in
scripts/native/, which needs the standard library only, so that it runs before any environment exists.
"""

import sys

from native.cli import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
