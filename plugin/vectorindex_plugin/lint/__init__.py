"""`lint`: a manifest as the API server and the data plane would judge it, without either.

The schema and its rules are made of the models here and now, as the CRD is (api/crd.py): what is checked is what
the API server of this release checks. It says in docs/plugin.md what only a cluster can tell.
"""
