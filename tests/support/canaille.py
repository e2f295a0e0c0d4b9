"""Canaille, an identity provider that we did not write (MIT), as the gateway's real OpenID Connect provider.

`Canaille` starts it in a process of its own, over TLS, with users whose password is PASSWORD; `python -m
tests.support.canaille` is that process. `sign_in` does there what a person does in a browser.
"""

from __future__ import annotations

import json
import re
import ssl
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from html import unescape
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import urljoin

import httpx2

from tests.support.certificates import server_certificate

PASSWORD: Final = "correct horse battery staple"
USERS: Final = {"alice": ("vpn-staff", "wiki"), "bob": ("vpn-staff", "vpn-ops")}
CLIENT: Final = ("vpn", "a-secret-of-a-client")


class Canaille:
    """A provider at https://localhost:PORT, with the client CLIENT and USERS with their groups."""

    def __init__(self, directory: Path, redirect_uris: Sequence[str], port: int = 0) -> None:
        self.ca, self._key = server_certificate(directory, "localhost")
        settings = {"certificate": str(self.ca), "key": str(self._key), "redirect_uris": redirect_uris, "port": port}
        self._log = directory / "canaille.log"
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.support.canaille", json.dumps(settings)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                cwd=Path(__file__).parents[2],
            )
        self.port = int(self._answer())
        self.issuer = f"https://localhost:{self.port}"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """End the process, at once and for good."""
        self._process.kill()
        self._process.communicate()

    def set_groups(self, user: str, *groups: str) -> None:
        """Put a user into these groups and no others."""
        self._tell({"user": user, "groups": groups})

    def lock(self, user: str, *, locked: bool = True) -> None:
        """Disable a user, or enable them again."""
        self._tell({"user": user, "locked": locked})

    def _tell(self, what: dict[str, Any]) -> None:
        assert self._process.stdin
        self._process.stdin.write(json.dumps(what) + "\n")
        self._process.stdin.flush()
        assert self._answer() == "done"

    def _answer(self) -> str:
        assert self._process.stdout
        answer = self._process.stdout.readline().strip()
        assert answer, f"the provider has ended: {self._log.read_text()[-3000:]}"
        return answer


def browser(ca: Path) -> httpx2.Client:
    """A browser that trusts the provider's certificate. It has cookies, and goes nowhere by itself."""
    return httpx2.Client(verify=ssl.create_default_context(cafile=ca), headers={"user-agent": "a test"})


def sign_in(client: httpx2.Client, url: str, user: str, back: str, password: str = PASSWORD) -> str:
    """Sign in where the gateway has sent a browser, and return the address under `back` to which it is sent then.

    Fills in each form with what it asks for, so it also works with dex.
    """
    answers = {"login": user, "password": password, "answer": "accept", "approval": "approve"}
    response = client.get(url)
    for _ in range(12):
        if response.is_redirect:
            target = urljoin(str(response.url), response.headers["location"])
            if target.startswith(back):
                return target
            response = client.get(target)
            continue
        form = re.search(r"<form\b[^>]*method=.post.[^>]*>(.*?)</form>", response.text, re.DOTALL | re.IGNORECASE)
        assert form, f"{response.url} has neither a form nor a redirect: {response.text[:3000]}"
        fields = {}
        for tag in re.findall(r"<(?:input|button)\b[^>]*>", form[1]):
            attributes = {name: unescape(value) for name, value in re.findall(r'([\w-]+)="([^"]*)"', tag)}
            if name := attributes.get("name"):
                fields[name] = answers.get(name, attributes.get("value", ""))
        action = re.search(r'action="([^"]*)"', form[0].split(">")[0])
        to = urljoin(str(response.url), unescape(action[1]) if action else "")
        response = client.post(to, data=fields, headers={"referer": str(response.url)})
    raise AssertionError(f"no way back from {response.url}")


def _serve() -> None:
    """The process: serve, and do what is said on standard input."""
    from threading import Thread

    from canaille import create_app
    from canaille.app import models
    from canaille.backends import Backend
    from canaille.backends.memory.backend import MemoryBackend
    from werkzeug.serving import make_server

    any_of = MemoryBackend.do_query

    def all_of(self: Any, model: Any, *rest: Any, **wanted: Any) -> list[Any]:
        """What matches all that is asked for. Canaille 0.3.6 finds what matches any of it, such as another's code."""
        first, *others = [any_of(self, model, **{key: value}) for key, value in wanted.items()] or [any_of(self, model)]
        return [each for each in first if all(each.id in {other.id for other in found} for found in others)]

    MemoryBackend.do_query = all_of
    settings = json.loads(sys.argv[1])
    context = (settings["certificate"], settings["key"])
    # The address is in the settings, but the port is known only when it is bound.
    server = make_server("127.0.0.1", settings["port"], lambda *_: [], threaded=True, ssl_context=context)
    app = create_app(
        {
            "SECRET_KEY": "of a test",
            "SERVER_NAME": f"localhost:{server.port}",
            "PREFERRED_URL_SCHEME": "https",
            "CANAILLE": {
                "DATABASE": "memory",
                "ENABLE_INTRUDER_LOCKOUT": False,
                "SMTP": None,
                "LOGGING": {"version": 1},
            },
            "CANAILLE_OIDC": {
                "USERINFO_MAPPING": {"PREFERRED_USERNAME": "{{ user.user_name }}", "SUB": "{{ user.id }}"}
            },
        }
    )
    server.app = app
    with app.app_context():
        backend = Backend.instance
        groups: dict[str, Any] = {}
        for name, of in USERS.items():
            user = models.User(
                user_name=name, family_name=name.title(), formatted_name=name.title(), password=PASSWORD,
                emails=[f"{name}@example.org"],
            )  # fmt: skip
            backend.save(user)
            for group in of:
                if group not in groups:
                    groups[group] = models.Group(display_name=group)
                groups[group].members = [*groups[group].members, user]
                backend.save(groups[group])
        client = models.Client(
            client_id=CLIENT[0],
            client_secret=CLIENT[1],
            client_name="wgpy",
            client_uri="https://localhost",
            redirect_uris=settings["redirect_uris"],
            post_logout_redirect_uris=[uri.partition("/directory")[0] for uri in settings["redirect_uris"]],
            grant_types=["authorization_code", "refresh_token"],
            response_types=["code"],
            scope=["openid", "profile", "email", "groups"],
            token_endpoint_auth_method="client_secret_basic",
        )
        backend.save(client)
        client.audience = [client]
        backend.save(client)
        Thread(target=server.serve_forever, daemon=True).start()
        print(server.port, flush=True)
        for line in sys.stdin:
            said = json.loads(line)
            user = backend.get(models.User, user_name=said["user"])
            if "locked" in said:
                user.lock_date = datetime.now(UTC) if said["locked"] else None
                backend.save(user)
            else:
                for name in {*groups, *said["groups"]}:
                    group = backend.get(models.Group, display_name=name) or models.Group(display_name=name)
                    others = [member for member in group.members if member.id != user.id]
                    group.members = [*others, user] if name in said["groups"] else others
                    backend.save(group)
            print("done", flush=True)


if __name__ == "__main__":
    _serve()
