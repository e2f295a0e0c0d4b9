"""The REST API at /api/v1: every object and verb of the command line, with the same JSON and the same sentences.

A module for each kind of object has a `router`. Whoever asks at the unix socket is an administrator; over HTTPS a
program has a token (`access`). The description of all of it, at /api/v1/openapi.json, is made from the types.
"""
