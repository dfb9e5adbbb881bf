"""The command line: one group, a module for each kind of verb. docs/reference/plugin.md is made of it."""
