"""What `wgpy gateway enrol` does; apart from its options, because it loads what no other command needs."""

from __future__ import annotations

import argparse
import getpass
import json
import ssl
import sys
import time
import urllib.error
import urllib.request
from base64 import b64encode
from contextlib import ExitStack
from dataclasses import replace
from http.client import HTTPException
from pathlib import Path
from typing import Any, Final

from wgpy.config.edit import rewritten
from wgpy.config.wgquick import parse
from wgpy.daemon.files import new_file, read_text, replace_text
from wgpy.errors import ConfigError, ControlError
from wgpy.gateway.identity import trust
from wgpy.gateway.policy.certificates import ENROL_PATH, Proof
from wgpy.gateway.policy.names import checked
from wgpy.keys import PrivateKey

_PATIENCE: Final = 30.0  # seconds
_LONGEST: Final = 1 << 20  # bytes of an answer


def enrol(arguments: argparse.Namespace) -> int:
    """Enrol this device, or sign it in again. Raises ConfigError and ControlError."""
    name, url = checked("device", arguments.name), arguments.url.rstrip("/")
    if not url.startswith("https://"):
        raise ConfigError(f"url {url!a}: expected https:// and the gateway's name")
    path: Path = arguments.output or Path(f"{name}.conf")
    with ExitStack() as made:
        if path.exists():
            key = parse(read_text(path), str(path)).config.private_key
            if key is None:
                raise ConfigError(f"{path}: has no PrivateKey; name another file with --output")
        else:
            key = PrivateKey.generate()
            try:  # before the gateway is asked, so that no device is there without its key
                made.enter_context(new_file(path, f"[Interface]\nPrivateKey = {key.base64()}\n".encode()))
            except OSError as error:
                raise ConfigError(f"{path}: {error.strerror}") from error
        proof = Proof(url=url, device=name, public_key=key.public_key, at=int(time.time()))
        signature = _signed(arguments.certificate_key, proof.message())
        answer = _asked(url, arguments.ca, {
            "certificate": read_text(arguments.certificate),
            "name": name,
            "public_key": proof.public_key.base64(),
            "at": proof.at,
            "signature": b64encode(signature).decode(),
        })  # fmt: skip
        is_new = not parse(read_text(path), str(path)).config.peers
        if is_new:
            replace_text(path, _completed(answer, key))
    print(f"device {name} is enrolled: {path}" if is_new else f"device {name} is signed in again", file=sys.stderr)
    return 0


def _completed(answer: dict[str, Any], key: PrivateKey) -> str:
    """The device's file as the gateway made it, with its key. Raises ControlError if it would run commands."""
    file = parse("".join(line for line in str(answer["file"]).splitlines(True) if "PrivateKey" not in line))
    config = replace(file.config, private_key=key)
    if config.pre_up or config.post_up or config.pre_down or config.post_down:
        raise ControlError("the gateway's file has commands, which are not run here; ask its administrator")
    return str(rewritten(file, config))


def _signed(path: Path, message: bytes) -> bytes:
    """Sign with the key of a certificate, as `openssl` would. Raises ConfigError."""
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    text = read_text(path).encode()
    try:
        try:
            key = load_pem_private_key(text, None)
        except TypeError:  # it is encrypted
            key = load_pem_private_key(text, getpass.getpass(f"Password of {path}: ").encode())
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{path}: expected a private key in PEM: {error}") from error
    if isinstance(key, rsa.RSAPrivateKey):
        return key.sign(message, padding.PKCS1v15(), hashes.SHA256())
    if isinstance(key, ec.EllipticCurvePrivateKey):
        return key.sign(message, ec.ECDSA(hashes.SHA256()))
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return key.sign(message)
    raise ConfigError(f"{path}: expected a key of RSA, ECDSA or Ed25519")


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        """A proof is for one gateway."""


def _asked(url: str, ca: Path | None, body: dict[str, Any]) -> dict[str, Any]:
    """Send a proof. Returns the gateway's answer. Raises ControlError with what it says."""
    try:
        context = trust.context(read_text(ca) if ca else None)
    except ConfigError as error:
        raise ConfigError(f"{ca}: {error}") from error
    opener = urllib.request.build_opener(urllib.request.HTTPSHandler(context=context), _NoRedirects)
    headers = {"Content-Type": "application/json", "Origin": url}
    request = urllib.request.Request(url + ENROL_PATH, json.dumps(body).encode(), headers)
    try:
        with opener.open(request, timeout=_PATIENCE) as response:
            answer = json.loads(response.read(_LONGEST))
            answer["file"]
    except urllib.error.HTTPError as error:
        try:
            with error:
                why = str(json.loads(error.read(_LONGEST))["detail"])
        except (OSError, ValueError, LookupError, TypeError):
            why = f"HTTP {error.code}"
        raise ControlError(f"{url}: {''.join(filter(str.isprintable, why))}") from error
    except (OSError, ValueError, LookupError, TypeError, HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        if isinstance(reason, ssl.SSLCertVerificationError):
            reason = (
                f"{reason}; if the gateway made its certificate itself, copy its https.pem here and add --ca https.pem"
            )
        raise ControlError(f"{url}: {reason}") from error
    found: dict[str, Any] = answer
    return found
