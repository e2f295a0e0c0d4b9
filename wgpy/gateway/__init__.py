"""`wgpy gateway`: who may reach which private network, and for how long.

The rooms, from the bottom up; each imports only those before it, and each has a module for each kind of object:

- `policy`: values and decisions, without input or output. The time is an argument.
- `store`: the database, with its migrations, audit log and encrypted secrets.
- `identity`: how people prove who they are, here or by a directory.
- `enforcement`: nftables. The policy's decisions become tables that outlive the process.
- `service`: what runs. It follows the store and the clients, and begins and ends sessions.
- `web`: the web server beside it: the REST API and the pages.
- `cli`: `wgpy gateway ...`.

Nothing else in wgpy imports this package, except the command line where `wgpy gateway` is run. What it needs besides
wgpy is the extra `wgpy[gateway]`.
"""
