"""`kubectl vectorindex dashboard`: what is read (looks.py), how it is served (server.py), and the page that draws it.

It writes nothing, and listens on this machine only.
"""
