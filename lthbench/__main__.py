"""python -m lthbench"""

import sys

from lthbench.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
