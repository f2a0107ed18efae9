"""``python -m irope``."""

import sys

from irope.cli.main import main

sys.exit(main())
