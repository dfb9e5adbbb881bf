"""A release of the project: what has to agree, what is built, and what is said of it. `python -m releasing --help`."""
