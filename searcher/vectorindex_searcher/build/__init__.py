"""The steps of `build` between staged rows and index.faiss, with their memory and their checkpoints.

Importing this package alone loads nothing: the command line reads its constants for --help.
"""

CHECKPOINT_AFTER_SECONDS = 20.0
"""Training that took less is not kept: storing, fetching and checking a checkpoint costs seconds too."""
