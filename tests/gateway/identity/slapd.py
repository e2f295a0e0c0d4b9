"""A real OpenLDAP server with people and groups, started for the tests in a directory of its own."""

from __future__ import annotations

import re
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from shutil import which
from typing import Any

from tests.gateway.identity.authority import Authority
from wgpy.gateway.identity.ldap.people import People
from wgpy.gateway.policy.ldap import Settings

BASE = "dc=example,dc=org"
ADMIN, PASSWORD = f"cn=admin,{BASE}", "admin's own"
SLAPD = which("slapd", path="/usr/sbin:/usr/bin:/sbin") or ""
SCHEMA = Path("/etc/ldap/schema")
SCHEMAS = ("core", "cosine", "nis", "inetorgperson", "dsee")

CONFIG = """
modulepath /usr/lib/ldap
moduleload back_mdb
moduleload memberof
moduleload refint
moduleload ppolicy
{schemas}
attributetype ( 2.16.840.1.113730.3.1.610 NAME 'nsAccountLock' SYNTAX 1.3.6.1.4.1.1466.115.121.1.15 )
pidfile {directory}/slapd.pid
TLSCACertificateFile {ca}
TLSCertificateFile {certificate}
TLSCertificateKeyFile {key}
sizelimit 500
database mdb
suffix {base}
rootdn {admin}
rootpw "{password}"
directory {directory}/data
maxsize 16777216
index objectClass,uid,entryUUID,member eq
access to attrs=userPassword by anonymous auth by * none
access to * by dn.exact=cn=searcher,{base} read by * none
limits dn.exact=cn=searcher,{base} size=2000
overlay memberof
memberof-dangling ignore
overlay refint
refint_attributes member
overlay ppolicy
"""

PEOPLE = f"""
dn: {BASE}
objectClass: dcObject
objectClass: organization
o: Example
dc: example

dn: cn=searcher,{BASE}
objectClass: organizationalRole
objectClass: simpleSecurityObject
cn: searcher
userPassword: seeks

dn: ou=people,{BASE}
objectClass: organizationalUnit
ou: people

dn: ou=groups,{BASE}
objectClass: organizationalUnit
ou: groups

dn: ou=elsewhere,{BASE}
objectClass: referral
objectClass: extensibleObject
ou: elsewhere
ref: ldap://192.0.2.1/ou=elsewhere,{BASE}

dn: ou=back,{BASE}
objectClass: referral
objectClass: extensibleObject
ou: back
ref: ldap://127.0.0.1/ou=people,{BASE}

"""


def person(name: str, password: str, more: str = "") -> str:
    """An entry in LDIF."""
    return (
        f"dn: uid={name},ou=people,{BASE}\nobjectClass: inetOrgPerson\nobjectClass: shadowAccount\n"
        f"objectClass: extensibleObject\nuid: {name}\ncn: {name}\nsn: {name}\nmail: {name}@example.org\n"
        f"displayName: {name.title()}\nuserPassword: {password}\n{more}\n"
    )


def group(name: str, *members: str) -> str:
    """A group in LDIF, whose members are given as RDNs with their branch."""
    lines = "".join(f"member: {member},{BASE}\n" for member in members)
    return f"dn: cn={name},ou=groups,{BASE}\nobjectClass: groupOfNames\ncn: {name}\n{lines}\n"


_COMPARED = {
    "sAMAccountName": "caseIgnoreMatch",
    "objectGUID": "octetStringMatch",
    "objectSid": "octetStringMatch",
}


@dataclass(slots=True)
class Slapd:
    """A server that runs."""

    port: int  # of ldap; the next one is of ldaps
    authority: Authority
    directory: Path

    def url(self, *, tls: bool = True, host: str = "localhost") -> str:
        """Where it listens."""
        return f"ldaps://{host}:{self.port + 1}" if tls else f"ldap://{host}:{self.port}"

    def settings(self, **other: Any) -> Settings:
        """Settings for it."""
        return Settings(
            **{
                "servers": (self.url(),),
                "base": f"ou=people,{BASE}",
                "group_base": f"ou=groups,{BASE}",
                "bind_dn": f"cn=searcher,{BASE}",
                "ca": self.authority.signed.certificate.read_text(),
                "timeout": 5.0,
                **other,
            }
        )

    def open(self, password: str = "seeks", **other: Any) -> People:
        """Its people as the gateway sees it."""
        return People("corp", self.settings(**other), password)

    def modify(self, ldif: str) -> None:
        """Change entries as the directory's administrator."""
        command = ["ldapmodify", "-H", self.url(tls=False), "-x", "-D", ADMIN, "-w", PASSWORD]
        done = subprocess.run(command, input=ldif, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


@contextmanager
def running(directory: Path, ldif: str = "") -> Iterator[Slapd]:
    """Start a server with PEOPLE and what else is given, and end it."""
    (directory / "data").mkdir(parents=True)
    authority = Authority.root(directory / "ca", "Directory CA")
    signed = authority.sign("/CN=localhost", "subjectAltName = DNS:localhost\n", key="rsa")
    schemas = [SCHEMA / f"{name}.schema" for name in SCHEMAS]
    windows = directory / "msuser.schema"
    windows.write_text(_searchable((SCHEMA / windows.name).read_text()))
    config = directory / "slapd.conf"
    config.write_text(
        CONFIG.format(
            schemas="\n".join(f"include {path}" for path in [*schemas, windows]),
            directory=directory, ca=authority.signed.certificate, certificate=signed.certificate, key=signed.key,
            base=BASE, admin=ADMIN, password=PASSWORD,
        )
    )  # fmt: skip
    added = subprocess.run(
        [SLAPD, "-T", "add", "-f", config], input=PEOPLE + ldif, capture_output=True, text=True, check=False
    )
    assert added.returncode == 0, added.stderr
    port = _free_ports()
    urls = f"ldap://127.0.0.1:{port}/ ldaps://127.0.0.1:{port + 1}/"
    with open(directory / "log", "w") as output:
        server = subprocess.Popen([SLAPD, "-d", "0", "-f", config, "-h", urls], stderr=output, stdout=output)
        try:
            _wait(port + 1, server, directory / "log")
            yield Slapd(port, authority, directory)
        finally:
            server.terminate()
            server.wait(10)


def _searchable(schema: str) -> str:
    """Active Directory's schema as OpenLDAP has it, with what it lacks: how these attributes are compared.

    Without `memberOf`, which is the overlay's own.
    """
    schema = re.sub(r"attributetype \( \S+\n\tNAME 'memberOf'\n.*\n", "", schema)
    schema = schema.replace(" $ memberOf", "")
    for name, rule in _COMPARED.items():
        schema = schema.replace(f"NAME '{name}'\n", f"NAME '{name}'\n\tEQUALITY {rule}\n")
    return schema


def _free_ports() -> int:
    """A port that is free, with the next one."""
    while True:
        with socket.socket() as one, socket.socket() as two:
            one.bind(("127.0.0.1", 0))
            port: int = one.getsockname()[1]
            with suppress(OSError, OverflowError):
                two.bind(("127.0.0.1", port + 1))
                return port


def _wait(port: int, server: subprocess.Popen[bytes], output: Path) -> None:
    end = time.monotonic() + 20
    while time.monotonic() < end and server.poll() is None:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.05)
    raise AssertionError(output.read_text())
