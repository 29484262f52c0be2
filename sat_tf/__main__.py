"""`python -m sat_tf`: the command line."""

import sys

from sat_tf.cli import main

if __name__ == "__main__":
    sys.exit(main())
