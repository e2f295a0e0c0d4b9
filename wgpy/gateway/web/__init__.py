"""The gateway's web server: the REST API, the portal for people, and the console for administrators.

It runs in the event loop of `wgpy gateway run`, and what it does with the database runs in threads.
"""
