"""A private API server: unreachable from the Internet, and reachable by name and with TLS through the tunnel."""

from __future__ import annotations

import json
import secrets
import subprocess
import sys

from wgpy.errors import LabError
from wgpy.labs.gateway import Gateway
from wgpy.labs.lab import Lab
from wgpy.labs.topology import Cable, Node, Topology, Tunnel
from wgpy.labs.traffic import fetch, serve_names, serve_web, start

PROGRAMS = ("nft", "curl", "openssl")
TOPOLOGY = Topology(
    "An API server on a private address",
    nodes=(
        Node("admin", 0, 0, note="wgpy exec, no root"),
        Node("stranger", 0, 1.4),
        Node("internet", 1, 0.7, "internet"),
        Node("gateway", 2, 0.7, "gateway"),
        Node("api", 3, 0, note="api.cluster.internal:6443"),
        Node("names", 3, 1.4, note="the cluster's DNS"),
    ),
    cables=(
        Cable("admin", "203.0.113.2/24", "203.0.113.254/24", "internet"),
        Cable("stranger", "203.0.114.2/24", "203.0.114.254/24", "internet"),
        Cable("gateway", "198.51.100.1/24", "198.51.100.254/24", "internet"),
        Cable("api", "10.60.0.10/24", "10.60.0.1/24", "gateway"),
        Cable("names", "10.60.1.53/24", "10.60.1.1/24", "gateway"),
    ),
    tunnels=(Tunnel("admin", "gateway", "by name"),),
)
HOST, OUTSIDE = "api.cluster.internal", "vpn.example.org"
PODS = f"https://{HOST}:6443/api/v1/namespaces/default/pods"


def run(lab: Lab) -> None:
    lab.step("Start an API server, with a certificate from the cluster's own authority, and a name server")
    make_certificates(lab)
    token = lab.directory / "token"
    token.touch(mode=0o600)
    token.write_text(f"Authorization: Bearer {secrets.token_hex(16)}\n")
    files = (str(lab.directory / "api.pem"), str(lab.directory / "api.key"), str(token))
    start(lab["api"], sys.executable, str(lab.file("api.py")), lab.address("api"), *files)
    serve_names(lab["names"], lab.address("names"), **{HOST: lab.address("api")})
    serve_names(lab["internet"], "203.0.114.254", **{OUTSIDE: lab.address("gateway")})
    lab.ask_at("stranger", "203.0.114.254")
    gateway = Gateway(lab)
    gateway.init(f"--pool 10.99.0.0/24 --dns {lab.address('names')}")
    gateway.command("group add cluster-admins")
    for rule, destination in (("api", f"{lab.address('api')}:6443/tcp"), ("names", f"{lab.address('names')}:53")):
        gateway.command(f"rule add {rule} {destination} --group cluster-admins")
    gateway.command("route add 10.60.0.0/16")
    gateway.command("user add admin --group cluster-admins")
    gateway.device("admin", user="admin")
    gateway.run()

    lab.step("From the Internet")
    code = ("-k", "-o", "/dev/null", "-w", "%{http_code}")  # 000 without an answer
    addresses = (lab.address("api"), lab.address("gateway"))
    codes = [fetch(lab["stranger"], f"https://{address}:6443/", *code, seconds=3) for address in addresses]
    text = ", ".join(f"{code} from {address}" for code, address in zip(codes, addresses, strict=True))
    lab.check("there is no API at its own address or the gateway's", set(codes) == {"000"}, text)
    answers = {name: lab["stranger"].run("getent", "hosts", name, check=False).split() for name in (OUTSIDE, HOST)}
    text = ", ".join(f"{name}: {' '.join(words) or 'nothing'}" for name, words in answers.items())
    unknown = answers == {OUTSIDE: [lab.address("gateway"), OUTSIDE], HOST: []}
    lab.check("its name does not exist on the Internet", unknown, text)

    lab.step(
        "`wgpy exec admin.conf -- curl`: requests as kubectl makes them, by name, with the authority's certificate"
    )
    authority = ("--cacert", str(lab.directory / "ca.pem"))
    listed = json.loads(ask(lab, PODS, *authority, "-H", f"@{token}")[0])
    found = [item["metadata"]["name"] for item in listed["items"]]
    lab.check("the pods are listed", found == ["web-0", "web-1"], ", ".join(found))
    ask(lab, f"{PODS}/web-1", *authority, "-H", f"@{token}", "-X", "DELETE")
    left = [item["metadata"]["name"] for item in json.loads(ask(lab, PODS, *authority, "-H", f"@{token}")[0])["items"]]
    lab.check("a pod is deleted", left == ["web-0"], ", ".join(left))
    reason = json.loads(ask(lab, PODS, *authority)[0])["reason"]
    lab.check("without the token the API refuses", reason == "Unauthorized", reason)
    _, status = ask(lab, PODS, "-H", f"@{token}")
    lab.check("without the authority's certificate, TLS fails", status == 60, f"curl exits with {status}")
    by_address = PODS.replace(HOST, lab.address("api"))
    _, status = ask(lab, by_address, *authority, "-H", f"@{token}")
    lab.check("by address instead of by name, TLS fails", status == 60, f"curl exits with {status}")

    lab.step("The rules are for the API's port and for the name server, and for nothing else in the cluster")
    serve_web(lab["api"], lab.address("api"), 80, "a port that nobody opened")
    _, status = ask(lab, f"http://{lab.address('api')}/", "-m", "5")
    lab.check("another port of the same host is refused", status == 7, f"curl exits with {status}")
    lab.show(gateway.command(f"test admin {lab.address('api')}:80/tcp", check=False))

    lab.step("The same from a program, with wgpy.connect")
    program = (str(lab.file("list_pods.py")), str(lab.file("admin.conf")), str(lab.directory / "ca.pem"), str(token))
    said = lab["admin"].run(sys.executable, *program).strip()
    lab.check("asyncio and ssl work through the tunnel, by name", said == "web-0", said)


def ask(lab: Lab, url: str, *options: str) -> tuple[str, int]:
    """Run curl through a tunnel without privileges; returns its output and its exit status."""
    tunnel = (sys.executable, "-m", "wgpy", "exec", str(lab.file("admin.conf")), "--")
    command = ["ip", "netns", "exec", lab["admin"].name, *tunnel, "curl", "-s", "-m", "60", *options, url]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout, done.returncode


def make_certificates(lab: Lab) -> None:
    """Make a certificate authority, ca.pem, and a certificate from it for the API's name, api.pem."""
    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    # From 3.13 on, Python asks an authority for its key usage.
    kind = ("-x509", *key, "-days", "2", "-addext", "keyUsage=critical,digitalSignature,keyCertSign")
    by_it = ("-CA", "ca.pem", "-CAkey", "ca.key", "-addext", f"subjectAltName=DNS:{HOST}")
    for name, subject, options in (("ca", "the cluster's authority", ()), ("api", HOST, by_it)):
        files = ("-keyout", f"{name}.key", "-out", f"{name}.pem", "-subj", f"/CN={subject}")
        command = ("openssl", "req", *kind, *files, *options)
        done = subprocess.run(command, cwd=lab.directory, capture_output=True, text=True, check=False)
        if done.returncode:
            raise LabError(f"openssl: {done.stderr}")
