"""A connection to a directory: TLS, bind and search (RFC 4511) within a time, by sansldap, which does no I/O itself.

What a directory sends is bounded in bytes and entries, so that one that lies costs no more than its time.
"""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from functools import partial
from typing import Final, TypeVar

import sansldap
from sansldap import LDAPFilter, LDAPResult, LDAPResultCode, PagedResultControl, SearchScope

from wgpy.errors import ConfigError
from wgpy.gateway.identity import trust
from wgpy.gateway.identity.directory import Unavailable
from wgpy.gateway.identity.ldap.entries import Entry
from wgpy.gateway.policy.ldap import Server, Settings

Message = TypeVar("Message", bound=sansldap.LDAPMessage)

MOST_BYTES: Final = 8 << 20  # from one connection
PAGE: Final = 500  # entries; Active Directory sends at most 1000 at once
LONGEST_DN: Final = 4096  # characters; those of real directories have a few hundred
_MORE: Final = "has more than {} entries for one question; narrow the filter or the base"
_CHUNK: Final = 1 << 16
_CONNECTING: Final = 4.0  # seconds for each address of a server
_TLS_FIRST: Final = LDAPResultCode.CONFIDENTIALITY_REQUIRED

# The server has judged the person, and not failed: RFC 4511 appendix A.
_REFUSALS: Final = {
    LDAPResultCode.INVALID_CREDENTIALS, LDAPResultCode.INAPPROPRIATE_AUTHENTICATION,
    LDAPResultCode.CONSTRAINT_VIOLATION, LDAPResultCode.UNWILLING_TO_PERFORM, LDAPResultCode.INVALID_DN_SYNTAX,
    LDAPResultCode.NO_SUCH_OBJECT, LDAPResultCode.INSUFFICIENT_ACCESS_RIGHTS,
}  # fmt: skip


class TooMany(Unavailable):
    """A question has more answers than are taken. The connection can still be used."""


class Connection:
    """A connection to one server. Every method raises Unavailable if the server fails, lies, or takes too long."""

    def __init__(self, server: Server, peer: socket.socket, deadline: float) -> None:
        self.name: str = str(server)
        self._server, self._peer, self._deadline = server, peer, deadline
        self._client = sansldap.LDAPClient()
        self._messages: list[sansldap.LDAPMessage] = []
        self._left = MOST_BYTES

    @classmethod
    @contextmanager
    def open(cls, server: Server, settings: Settings, deadline: float) -> Iterator[Connection]:
        """Connect and begin TLS, unless the settings say plain. `deadline` is in seconds of time.monotonic."""
        context = None if settings.plain else _context(settings.ca)
        peer = _connected(server, deadline)
        with closing(cls(server, peer, deadline)) as connection:
            if context and not server.is_tls:
                connection._start_tls()
            if context:
                connection._secure(context)
            yield connection

    def close(self) -> None:
        """Say goodbye, without waiting for an answer."""
        with suppress(OSError, sansldap.LDAPError):
            self._client.unbind()
            self._peer.settimeout(0.0)
            self._peer.sendall(self._client.data_to_send())
        self._peer.close()

    def bind(self, dn: str, password: str) -> str:
        """Bind by a password (RFC 4513, section 5.1.3). Returns why the server refuses; empty if it does not.

        Neither may be empty: the server would let anybody in (RFC 4513, sections 5.1.1 and 5.1.2).
        """
        if not dn or not password:
            return "no name or no password"
        response = self._ask(sansldap.BindResponse, lambda: self._client.bind_simple(dn, password))
        result = response.result
        if result.result_code is LDAPResultCode.SUCCESS:
            return ""
        if result.result_code not in _REFUSALS:
            raise self._failed("bind", result)
        return _said(result)

    def search(
        self,
        base: str,
        wanted: LDAPFilter,
        attributes: Sequence[str],
        *,
        most: int,
        scope: SearchScope = SearchScope.SUBTREE,
        some: bool = False,
    ) -> list[Entry]:
        """All entries that match, at most `most`, or with `some` as many of them as that.

        What the server refers to elsewhere is not followed, and entries with a DN of more than LONGEST_DN are left out.
        A search of the base alone finds nothing if there is none. Raises TooMany, too.
        """
        found: list[Entry] = []
        cookie = b""
        paged = most > PAGE
        while True:
            page = PagedResultControl(critical=False, size=PAGE, cookie=cookie)
            number = self._sent(
                partial(
                    self._client.search_request,
                    base,
                    scope,
                    size_limit=0 if paged else most + (not some),
                    time_limit=max(1, int(self._remaining())),
                    filter=wanted,
                    attributes=list(attributes) or ["1.1"],
                    controls=[page] if paged else [],
                )
            )
            done = self._entries(number, found, most)
            code = done.result.result_code
            if code is LDAPResultCode.NO_SUCH_OBJECT and scope is SearchScope.BASE:
                return []
            if code is LDAPResultCode.SIZE_LIMIT_EXCEEDED and some:
                return found[:most]
            if code is not LDAPResultCode.SUCCESS:
                raise self._failed(f"search of {base}", done.result)
            if len(found) > most and not some:
                raise TooMany(f"{self._server}: {_MORE.format(most)}")
            cookie = next((each.cookie for each in done.controls if isinstance(each, PagedResultControl)), b"")
            if not cookie:
                return found[:most]

    def _entries(self, number: int, found: list[Entry], most: int) -> sansldap.SearchResultDone:
        """Collect the entries of a search until it is done."""
        while True:
            message = self._received()
            if message.message_id != number:
                raise self._error("answers something else than was asked")
            if isinstance(message, sansldap.SearchResultDone):
                return message
            if isinstance(message, sansldap.SearchResultEntry):
                if len(found) > most + PAGE:  # more than a page too many, of which it should have sent one
                    raise self._error(_MORE.format(most))
                if len(message.object_name) > LONGEST_DN:
                    continue
                values = {each.name.lower(): tuple(each.values) for each in message.attributes}
                found.append(Entry(message.object_name, values))
            elif not isinstance(message, sansldap.SearchResultReference):
                raise self._error("answers something else than was asked")

    def _start_tls(self) -> None:
        oid = sansldap.ExtendedOperations.LDAP_START_TLS.value
        response = self._ask(sansldap.ExtendedResponse, lambda: self._client.extended_request(oid))
        if response.result.result_code is not LDAPResultCode.SUCCESS:
            raise self._failed("StartTLS", response.result, "; use ldaps://, or have the server offer StartTLS")

    def _secure(self, context: ssl.SSLContext) -> None:
        # Nothing that came before TLS is believed afterwards.
        self._client, self._messages = sansldap.LDAPClient(), []
        try:
            self._peer.settimeout(self._remaining())
            self._peer = context.wrap_socket(self._peer, server_hostname=self._server.host)
        except ssl.SSLCertVerificationError as error:
            raise self._error(f"its certificate is not accepted: {error.verify_message}") from error
        except OSError as error:
            raise self._error(f"TLS: {_reason(error)}") from error

    def _ask(self, kind: type[Message], request: Callable[[], int]) -> Message:
        number = self._sent(request)
        message = self._received()
        if not isinstance(message, kind) or message.message_id != number:
            raise self._error("answers something else than was asked")
        return message

    def _sent(self, request: Callable[[], int]) -> int:
        """Send a request; returns its number."""
        try:
            number = request()
            self._peer.settimeout(self._remaining())
            self._peer.sendall(self._client.data_to_send())
        except sansldap.LDAPError as error:
            raise self._error(str(error)) from error
        except OSError as error:
            raise self._error(_reason(error)) from error
        return number

    def _received(self) -> sansldap.LDAPMessage:
        while not self._messages:
            try:
                self._peer.settimeout(self._remaining())
                data = self._peer.recv(_CHUNK)
            except OSError as error:
                raise self._error(_reason(error)) from error
            if not data:
                raise self._error("closed the connection")
            self._left -= len(data)
            if self._left < 0:
                raise self._error(f"sends more than {MOST_BYTES >> 20} MiB")
            try:
                self._messages = self._client.receive(data)
            except (sansldap.LDAPError, LookupError, RecursionError, ValueError) as error:
                raise self._error(f"sends no LDAP: {str(error) or type(error).__name__}") from error
        return self._messages.pop(0)

    def _remaining(self) -> float:
        """The seconds that are left. Raises TimeoutError if there are none."""
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return left

    def _failed(self, what: str, result: LDAPResult, remedy: str = "") -> Unavailable:
        if result.result_code is LDAPResultCode.REFERRAL:
            return self._error(f"{what}: refers to {', '.join(result.referrals or ())[:200]!a}; name that server here")
        if result.result_code is _TLS_FIRST:
            remedy = "; it wants TLS: leave out plain"
        return self._error(f"{what}: {_said(result)}{remedy}")

    def _error(self, text: str) -> Unavailable:
        return Unavailable(f"{self._server}: {''.join(filter(str.isprintable, text))}")


def _connected(server: Server, deadline: float) -> socket.socket:
    """Connect to the first of the server's addresses that answers. Raises Unavailable."""
    error: OSError = TimeoutError()
    try:
        addresses = socket.getaddrinfo(server.host, server.port, type=socket.SOCK_STREAM)
    except OSError as problem:
        raise Unavailable(f"{server}: {_reason(problem)}") from problem
    for family, kind, protocol, _, address in addresses:
        left = deadline - time.monotonic()
        if left <= 0:
            break
        peer = socket.socket(family, kind, protocol)
        peer.settimeout(min(left, _CONNECTING))
        try:
            peer.connect(address)
        except OSError as problem:
            error = problem
            peer.close()
        else:
            return peer
    raise Unavailable(f"{server}: {_reason(error)}") from error


def _context(ca: str) -> ssl.SSLContext:
    try:
        return trust.context(ca or None)
    except ConfigError as error:
        raise Unavailable(f"the certificates to check servers with: {error}") from error


def _said(result: LDAPResult) -> str:
    """What the server says, as one line."""
    code = result.result_code.name.lower().replace("_", " ")
    more = "".join(filter(str.isprintable, result.diagnostics_message))[:200]
    return f"{code} ({more})" if more else code


def _reason(error: OSError) -> str:
    if isinstance(error, TimeoutError):
        return "does not answer in time"
    return error.strerror or str(error)
