"""`python -m vectorindex_searcher`."""

import sys

from .cli.entry import main

sys.exit(main())
