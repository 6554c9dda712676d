"""`python -m zeroshift` is the command `zeroshift`."""

import sys

from zeroshift.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
