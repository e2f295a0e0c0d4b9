"""One end of another VPN's tunnel, like those of tests.support.peers: OpenVPN, and IPsec if the kernel has ESP."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Final

from tests.support.netns import Namespace
from tests.support.peers import Side, wait_for

# The kernel's names of AEADs, and the bytes of their key and salt: ChaCha20-Poly1305 as in WireGuard, or AES-GCM.
_ESP_CIPHERS: Final = {"rfc7539esp(chacha20,poly1305)": 36, "rfc4106(gcm(aes))": 20}


class OpenVpn:
    """OpenVPN with ChaCha20-Poly1305 over UDP. Each end knows the other's certificate."""

    def __init__(self, side: Side, other: Side, directory: Path) -> None:
        self.side = side
        fingerprints = {end.name: _certificate(end.name, directory) for end in (side, other)}
        role = ("--tls-server", "--dh", "none") if side.outer < other.outer else ("--tls-client",)
        self.process = side.namespace.popen(
            *("openvpn", "--dev", side.name, "--dev-type", "tun", "--topology", "p2p", "--proto", "udp"),
            *("--local", side.outer, "--lport", str(side.port), "--remote", other.outer, str(other.port)),
            *("--ifconfig", side.inner4, other.inner4, "--ifconfig-ipv6", f"{side.inner6}/64", other.inner6),
            *role,
            *("--cert", str(directory / f"{side.name}.crt"), "--key", str(directory / f"{side.name}.key")),
            *("--peer-fingerprint", fingerprints[other.name], "--data-ciphers", "CHACHA20-POLY1305"),
            *("--tun-mtu", "1420", "--disable-dco", "--verb", "1", "--keepalive", "10", "60"),
            stdout=subprocess.DEVNULL,
        )
        assert wait_for(self._has_address), "OpenVPN did not start"

    def _has_address(self) -> bool:
        assert self.process.poll() is None, "OpenVPN ended"
        return self.side.inner6 in self.side.namespace.run("ip", "address", "show", self.side.name, check=False)

    def close(self) -> None:
        self.process.terminate()
        self.process.wait(10)

    @staticmethod
    def missing() -> str:
        return next(
            (f"no {program} is installed" for program in ("openvpn", "openssl") if shutil.which(program) is None), ""
        )

    @staticmethod
    def version() -> str:
        return " ".join(_output("openvpn", "--version").split()[:2])


class Ipsec:
    """The kernel's ESP in tunnel mode, with manual keys."""

    def __init__(self, side: Side, other: Side, directory: Path) -> None:
        self.side = side
        cipher = _cipher(side.namespace)
        run = side.namespace.run
        for source, destination in ((side, other), (other, side)):
            key = (source.key + destination.public_key)[: _ESP_CIPHERS[cipher]].hex()  # both ends need both
            addresses = ("src", source.outer, "dst", destination.outer, "proto", "esp")
            spi = str(0x1000 + int.from_bytes(source.public_key[:2], "big"))
            state = ("mode", "tunnel", "aead", cipher, f"0x{key}", "128")
            run("ip", "xfrm", "state", "add", *addresses, "spi", spi, *state)
            way = "out" if source is side else "in"
            for family in ("inner4", "inner6"):
                selector = ("src", getattr(source, family), "dst", getattr(destination, family))
                run("ip", "xfrm", "policy", "add", *selector, "dir", way, "tmpl", *addresses, "mode", "tunnel")
        for inner, far in ((side.inner4, other.inner4), (side.inner6, other.inner6)):
            run("ip", "address", "add", inner, "dev", "lo")
            run("ip", "route", "add", far, "dev", "veth0", "mtu", "1420", "src", inner)

    def close(self) -> None:
        for kind in ("policy", "state"):
            self.side.namespace.run("ip", "xfrm", kind, "flush")

    @staticmethod
    def missing() -> str:
        with Namespace() as namespace:
            return "" if _cipher(namespace) else "this kernel has no ESP with an AEAD"

    @staticmethod
    def version() -> str:
        return f"the kernel's ESP, Linux {_output('uname', '-r').strip()}"


def _cipher(namespace: Namespace) -> str:
    """The first of the ciphers that the kernel has."""
    for cipher, size in _ESP_CIPHERS.items():
        state = ("xfrm", "state", "add", "src", "192.0.2.8", "dst", "192.0.2.9", "proto", "esp", "spi", "1")
        said = namespace.run("ip", *state, "mode", "tunnel", "aead", cipher, f"0x{'5a' * size}", "128", check=False)
        namespace.run("ip", "xfrm", "state", "flush")
        if not said:
            return cipher
    return ""


def _certificate(name: str, directory: Path) -> str:
    """The SHA-256 fingerprint of a self-signed certificate, which is made if it is missing."""
    key, certificate = directory / f"{name}.key", directory / f"{name}.crt"
    if not certificate.exists():
        elliptic = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2")
        _output("openssl", "req", "-x509", *elliptic, "-subj", "/CN=b", "-keyout", str(key), "-out", str(certificate))
    said = _output("openssl", "x509", "-in", str(certificate), "-noout", "-fingerprint", "-sha256")
    return said.partition("=")[2].strip()


def _output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout
