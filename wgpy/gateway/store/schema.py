"""The tables. What is here and what the migrations make is the same, as a test confirms.

Names are the keys. Times are in seconds since 1970; networks, addresses and keys are text as people write them.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    false,
    true,
)

metadata: Final = MetaData()

endpoint: Final = Table(
    "endpoint",
    metadata,
    Column("interface", String(15), primary_key=True),
    Column("host", Text, nullable=False),
    Column("port", Integer, nullable=False),
    Column("pools", JSON, nullable=False),
    Column("dns", JSON, nullable=False),
    Column("search", JSON, nullable=False),
    Column("full_tunnel", Boolean, nullable=False),
    Column("mtu", Integer),
    Column("banner", Text, nullable=False),
    Column("session_max", Integer, nullable=False),
    Column("idle_max", Integer, nullable=False),
    Column("sign_in", Boolean, nullable=False),
    Column("handler", Text, nullable=False),
    Column("handler_user", Text, nullable=False, server_default=""),
    Column("flow_log", Boolean, nullable=False, server_default=false()),
    Column("data_plane", Text, nullable=False),
    Column("private_key", LargeBinary, nullable=False),  # sealed
    Column("url", Text, nullable=False, server_default=""),
    Column("admin_group", Text, nullable=False, server_default="admins"),
    Column("second_factor", Boolean, nullable=False, server_default=true()),
    Column("devices_max", Integer, nullable=False, server_default="10"),
)
groups: Final = Table(
    "groups",
    metadata,
    Column("name", Text, primary_key=True),
    Column("description", Text, nullable=False),
)
users: Final = Table(
    "users",
    metadata,
    Column("name", Text, primary_key=True),
    Column("enabled", Boolean, nullable=False),
    Column("expires", Float),
    Column("expired", Boolean, nullable=False, server_default=false()),
    Column("source", Text, nullable=False, server_default="local"),
    Column("subject", Text),
    Column("display_name", Text, nullable=False, server_default=""),
    Column("email", Text, nullable=False, server_default=""),
    Column("suspended", Boolean, nullable=False, server_default=false()),
    Index("ix_users_subject", "source", "subject", unique=True),  # those of local users are null, and so not equal
)
directories: Final = Table(
    "directories",
    metadata,
    Column("name", Text, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("settings", JSON, nullable=False),
    Column("groups", JSON, nullable=False),
    Column("grace", Integer, nullable=False),
    Column("secret", LargeBinary, nullable=False),  # sealed
)
checks: Final = Table(
    "checks",
    metadata,
    Column("user", Text, ForeignKey("users.name"), primary_key=True),
    Column("token", LargeBinary, nullable=False),  # sealed
    Column("checked_at", Float, nullable=False),
    Column("confirmed_at", Float, nullable=False),
)
memberships: Final = Table(
    "memberships",
    metadata,
    Column("user", Text, ForeignKey("users.name"), primary_key=True),
    Column("group", Text, ForeignKey("groups.name"), primary_key=True),
)
devices: Final = Table(
    "devices",
    metadata,
    Column("name", Text, primary_key=True),
    Column("user", Text, ForeignKey("users.name"), nullable=False, index=True),
    Column("public_key", Text, nullable=False, unique=True),
    Column("preshared_key", LargeBinary, nullable=False),  # sealed
    Column("enabled", Boolean, nullable=False),
    Column("signed_in_at", Float),
    Column("certificate", Text),
)
certificates: Final = Table(
    "certificates",
    metadata,
    Column("device", Text, ForeignKey("devices.name"), primary_key=True),
    Column("subject", Text, nullable=False),
    Column("serial", Text, nullable=False),  # in hexadecimal, as `openssl x509 -serial` prints it
    Column("expires", Float, nullable=False),
    Column("chain", Text, nullable=False),  # in PEM, the device's own first
    Column("proved_at", Float, nullable=False),
)
authority: Final = Table(
    "authority",
    metadata,
    Column("id", Integer, primary_key=True),  # there is one row at most
    Column("ca", Text, nullable=False),
    Column("crl", Text, nullable=False),
    Column("name_from", Text, nullable=False),
)
leases: Final = Table(
    "leases",
    metadata,
    Column("address", Text, primary_key=True),
    Column("public_key", Text, nullable=False, index=True),
    Column("released_at", Float),
)
routes: Final = Table(
    "routes",
    metadata,
    Column("network", Text, primary_key=True),
    Column("snat", Text, nullable=False),
)
rules: Final = Table(
    "rules",
    metadata,
    Column("name", Text, primary_key=True),
    Column("destination", Text, nullable=False),
    Column("everyone", Boolean, nullable=False),
)
rule_groups: Final = Table(
    "rule_groups",
    metadata,
    Column("rule", Text, ForeignKey("rules.name"), primary_key=True),
    Column("group", Text, ForeignKey("groups.name"), primary_key=True),
)
credentials: Final = Table(
    "credentials",
    metadata,
    Column("user", Text, ForeignKey("users.name"), primary_key=True),
    Column("handle", LargeBinary, nullable=False, unique=True),
    Column("password", Text, nullable=False),  # a hash
    Column("changed_at", Float, nullable=False),
    Column("totp", LargeBinary),  # sealed
    Column("totp_step", Integer, nullable=False),
    Column("recovery", JSON, nullable=False),  # hashes
)
passkeys: Final = Table(
    "passkeys",
    metadata,
    Column("id", Text, primary_key=True),
    Column("user", Text, ForeignKey("users.name"), nullable=False, index=True),
    Column("name", Text, nullable=False),
    Column("public_key", LargeBinary, nullable=False),
    Column("counter", BigInteger, nullable=False),
    Column("made_at", Float, nullable=False),
    Column("used_at", Float, nullable=False),
)
logins: Final = Table(
    "logins",
    metadata,
    Column("id", Text, primary_key=True),  # a hash
    Column("user", Text, ForeignKey("users.name"), nullable=False, index=True),
    Column("made_at", Float, nullable=False),
    Column("seen_at", Float, nullable=False),
    Column("strength", Text, nullable=False),
    Column("address", Text, nullable=False),
)
links: Final = Table(
    "links",
    metadata,
    Column("id", Text, primary_key=True),  # a hash
    Column("purpose", Text, nullable=False),
    Column("user", Text, ForeignKey("users.name"), nullable=False, index=True),
    Column("expires_at", Float, nullable=False),
)
sessions: Final = Table(
    "sessions",
    metadata,
    Column("id", Text, primary_key=True),
    Column("device", Text, nullable=False, index=True),  # which may be removed while its sessions are remembered
    Column("user", Text, nullable=False),
    Column("started_at", Float, nullable=False),
    Column("ended_at", Float),
    Column("reason", Text),
    Column("entry", JSON, nullable=False),  # of the connection log, with AWS's keys
    Column("number", Integer, nullable=False, index=True, server_default="0"),  # grows with each new session
    Column("node", Text, nullable=False, server_default=""),  # where it is now
    Column("carried", JSON(none_as_null=True)),  # what passed at the nodes where it was before, as a list of `Traffic`
    Column("moved", Integer, index=True),  # grows with each session that moves, so that its former node learns of it
    Index("ix_sessions_ended", "ended_at", "reason"),
)
nodes: Final = Table(
    "nodes",
    metadata,
    Column("name", Text, primary_key=True),
    Column("interface", Text, nullable=False),
    Column("started_at", Float, nullable=False),
    Column("seen_at", Float, nullable=False),
    Column("version", Text, nullable=False),
    Column("ailment", Text, nullable=False),  # what is wrong with it, or empty
)
tokens: Final = Table(
    "tokens",
    metadata,
    Column("name", Text, primary_key=True),
    Column("digest", LargeBinary, nullable=False, unique=True),  # SHA-256 of the token
    Column("scopes", JSON, nullable=False),
    Column("made_at", Float, nullable=False),
    Column("expires", Float),
    Column("used_at", Float),
)
audit: Final = Table(
    "audit",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("at", Float, nullable=False),
    Column("who", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("before", JSON(none_as_null=True)),
    Column("after", JSON(none_as_null=True)),
    Index("ix_audit_object", "kind", "name"),
)
