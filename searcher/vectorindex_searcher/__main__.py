"""`python -m vectorindex_searcher`."""

from .cli.entry import main

main()
