"""`kubectl vectorindex`: what people see of their indexes, and what they say to them. See docs/plugin.md.

It shows what the operator wrote, and asks by the annotations that anybody may write. What it has to know of the rest it
takes from the operator's own models and pure functions: it has no second opinion on anything.
"""
