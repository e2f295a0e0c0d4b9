"""The sessions of a gateway: begun when a client sends, held to the policy, ended, and written down.

`tick` does all that is due, and blocks on the database and on nft, so it is called from a thread: twice a second, and
when something has happened, such as a change of the store, which `is_behind` tells. Begins and ends of one tick are one
transaction each of the database and of nft. What fails is tried again at the next tick, and nothing is open that is not
in the database.
"""

from __future__ import annotations

import logging
import secrets
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace
from queue import SimpleQueue
from typing import Any, Final

from wgpy.errors import ControlError, WgpyError
from wgpy.gateway.policy import handler, pools
from wgpy.gateway.policy.destinations import Address
from wgpy.gateway.policy.endpoint import Endpoint
from wgpy.gateway.policy.people import Device
from wgpy.gateway.policy.portal import Service, services
from wgpy.gateway.policy.sessions import NOTHING, Ask, Close, Log, Open, Reason, Session, State, Step, Terms, Traffic
from wgpy.gateway.policy.snapshot import Policy
from wgpy.gateway.policy.traffic import History, Rate
from wgpy.gateway.service.clocks import Clocks
from wgpy.gateway.service.live import Live, Question, passed, restored
from wgpy.gateway.service.queues import drained
from wgpy.gateway.service.system import Enforcement, Plane
from wgpy.gateway.service.warnings import Warnings
from wgpy.gateway.store import moves, nodes, sessions, state, users
from wgpy.gateway.store.database import Database

log: Final = logging.getLogger("wgpy.gateway")

RETRY: Final = 10.0  # seconds until a client that was refused is judged again: what it sends costs us no more
MEASURED: Final = 10.0  # seconds between readings of the counters
AT_ONCE: Final = 0.2  # seconds for which a reading serves several sessions that end
GRACE: Final = 2.0  # seconds after which the kernel ends a session that we have not ended: then its counters are gone
BEAT: Final = 10.0  # seconds between signs of life in a database that others share
_WHO: Final = "gateway"


class Gateway:
    """Sessions by device. `clock` is CLOCK_BOOTTIME, `wall` the time since 1970, both in seconds.

    `portal` is where people sign in, if there are web pages. `interface` is the name of the interface on this host, if
    it is not the endpoint's.
    """

    def __init__(
        self,
        database: Database,
        firewall: Enforcement,
        plane: Plane,
        *,
        clock: Callable[[], float],
        wall: Callable[[], float],
        write: Callable[[dict[str, Any]], None],
        portal: Service | None = None,
        interface: str = "",
    ) -> None:
        self.questions: list[Question] = []  # to be taken and asked
        self.counts: Counter[tuple[str, str]] = Counter()  # of log entries: started, refused or ended, and the reason
        self.total: Traffic = NOTHING  # of all sessions since this process began
        self._database, self._firewall, self._plane = database, firewall, plane
        self._clock, self._wall, self._write, self._portal = clock, wall, write, portal
        self._live: dict[str, Live] = {}  # by device
        self._refused: dict[str, float] = {}  # by device: when it is judged again
        self._clocks = Clocks(clock, wall)
        self._noticed: SimpleQueue[set[Address]] = SimpleQueue()
        self._answers: SimpleQueue[tuple[str, handler.Answer | Reason]] = SimpleQueue()
        self._opened: dict[Address, float] = {}  # to be opened, until when
        self._closed: set[Address] = set()  # to be closed
        self._unwritten: dict[str, dict[str, Any]] = {}  # rows by session
        self._entries: list[dict[str, Any]] = []  # of the connection log, once they are in the database
        self._measured_at = 0.0
        self._history = History()  # of the total
        self._seen_at = 0.0  # when the interface was seen to be there
        self.ailment: str = "it is starting"  # what is wrong, or empty
        self._ticked_at = clock()  # when the last tick ended
        self._watch = database.watch()
        policy, self._change = state.read(database)
        self.interface: Final = interface or policy.endpoint.interface
        self._own_name = interface  # of the interface, on this host
        self._new_name = ""  # another that the database has for it by now
        self._policy = self._not_renamed(policy)
        self._moves = 0  # the number of the last move of a session that we know
        self._beat_at = 0.0  # when we last gave a sign of life
        self._warnings = Warnings(database)
        self._by_address = self._policy.by_address()
        self._is_in_force = False  # in the firewall
        self._is_followed = False  # by the interface
        self._is_stale = False  # there may be changes of the store
        self._is_suspect = False  # the table may be gone

    def start(self) -> None:
        """Put the policy in force, and take up the sessions that a former process left. Raises WgpyError."""
        policy = self._policy
        self._plane.check(self.interface, policy.private_key)  # before the table cuts off whatever has this name
        pools.check(policy.endpoint.pools, self._plane.networks_of_host(self.interface))
        self._enforce()
        self._take_up()
        self._plane.up(policy)
        self._is_in_force = self._is_followed = True
        self.ailment = ""

    @property
    def endpoint(self) -> Endpoint:
        """The endpoint's settings that are in force."""
        return self._policy.endpoint

    def owner(self, address: Address) -> Device | None:
        """The device that has an address; from any thread."""
        return self._by_address.get(address)

    @property
    def active(self) -> int:
        """How many sessions are active."""
        return sum(live.session.state is State.ACTIVE for live in list(self._live.values()))

    @property
    def stalled(self) -> float:
        """Seconds since the last tick ended, whether it was successful or not."""
        return self._clock() - self._ticked_at

    def rates(self) -> list[Rate]:
        """What passed in the last ten minutes, the newest last. From any thread."""
        return self._history.rates(self._clock())

    def notice(self, addresses: set[Address]) -> None:
        """Clients without a session have sent something from these addresses. From any thread."""
        self._noticed.put(addresses)

    def suspect(self, ports: set[int]) -> None:
        """The table was changed from these netlink ports: see whether it is as it was made. From any thread."""
        self._is_suspect |= self._firewall.changed_by(ports)

    def answer(self, session: str, answer: handler.Answer | Reason) -> None:
        """Take the handler's answer about a session, or why there is none. From any thread."""
        self._answers.put((session, answer))

    def is_behind(self) -> bool:
        """Whether the store has changed since the last tick, in a way that matters; from the thread of the ticks."""
        if self.ailment:
            return False  # a tick is due anyway, and may wait for the database
        with suppress(WgpyError):  # which the next tick tells
            self._is_stale |= self._watch.changed()
            return self._is_stale and state.last_change(self._database) != self._change
        return False

    def tick(self) -> None:
        """Do all that is due. What the system refuses is logged once, and tried again at the next tick."""
        try:
            self._keep_table()
            self._keep_interface()
            self._beat()
            self._follow_store()
            self._take_answers()
            self._begin()
            self._measure()
            self._judge()
            self._carry_out()
            self._expire()
            if self._new_name:
                raise ControlError(
                    f"interface: it cannot become {self._new_name} while the gateway runs; `wgpy gateway endpoint set "
                    f"--interface {self.interface}` takes that back"
                )
        except (WgpyError, OSError) as error:
            if str(error) != self.ailment:
                self.ailment = str(error)
                log.error("%s; trying again", error)
            self._is_suspect = True
            self._hold()
        else:
            if self.ailment:
                log.warning("all is well again")
            self.ailment = ""
        self._ticked_at = self._clock()

    def _hold(self) -> None:
        """Hold sessions to what we know, though something has failed: none becomes longer than it was."""
        with suppress(WgpyError, OSError):
            self._measure()
            self._judge()
            self._close()

    def _beat(self) -> None:
        """Tell the other nodes that we live, and end in the books what nodes that do not live have left."""
        if self._database.is_shared and self._clock() >= self._beat_at + BEAT:
            with self._database.change(_WHO) as change:
                nodes.beat(change, self._own_name)
                moves.end_lost(change, self._policy.endpoint.session_max + GRACE)
            self._beat_at = self._clock()
            self._warnings.tell()

    def _keep_table(self) -> None:
        """Make the table again if somebody has removed or changed it, with the sessions that are under way only."""
        if not self._is_suspect:
            return
        if not self._firewall.exists():
            log.warning("somebody has removed or changed the gateway's table of nftables; it is made again")
            self._enforce()
        present = self._firewall.sent()
        self._closed.update(present)
        for name, live in self._live.items():
            if live.session.state is State.ACTIVE:
                self._closed.difference_update(live.session.addresses)
                if not present.keys() >= {*live.session.addresses}:
                    self._opened |= dict.fromkeys(live.session.addresses, live.session.until)
                    self._live[name] = live._replace(before=live.session.traffic)
        self._is_suspect = False

    def _enforce(self) -> None:
        policy, settings = self._policy, self._policy.endpoint
        always = services(settings, self._portal)
        compiled, log_denied = policy.compile(), settings.flow_log
        if self._firewall.replace(settings.pools, compiled, policy.routes, always, log_denied=log_denied):
            self._is_suspect = True  # it has no sessions any more

    def _keep_interface(self) -> None:
        """Make the interface again if it is gone: somebody has deleted it, or its daemon has died."""
        if self._clock() < self._seen_at + MEASURED:
            return
        if not self._plane.is_up(self.interface):
            log.warning("interface %s is gone; it is made again", self.interface)
            self._plane.up(self._policy)
        self._plane.guard(self.interface)
        self._seen_at = self._clock()

    def _follow_store(self) -> None:
        self._is_stale |= self._watch.changed()
        if self._is_stale:
            self._follow_moves()
        if self._is_stale and state.last_change(self._database) != self._change:
            before = self._policy
            policy, self._change = state.read(self._database, (before, self._change))
            self._policy = policy if policy.endpoint is before.endpoint else self._not_renamed(policy)
            if self._policy is not before:
                self._notice_again(before)
                self._refused.clear()
            if not self._policy.has_same_devices(before):
                self._by_address = self._policy.by_address()
                self._is_followed = self._is_in_force = False
            if self._policy.rules is not before.rules:
                self._is_in_force = False
            with self._database.read() as connection:
                ids = {live.session.id: device for device, live in self._live.items()}
                for session_id in sessions.terminated(connection, ids):
                    device = ids[session_id]
                    self._apply(device, self._live[device].session.ended(Reason.TERMINATED, self._clock()))
        self._is_stale = False
        if not self._is_in_force:
            self._measure(interval=0.0)
            self._judge()
            self._close()  # who may no longer have a session is cut first, and no full disk keeps old rules in force
            self._enforce()
            self._is_in_force = True
        if not self._is_followed:
            self._plane.follow(self._policy)
            self._is_followed = True

    def _follow_moves(self) -> None:
        """Close the sessions that are at other nodes by now, and count what those add that have come from there."""
        with self._database.read() as connection:
            found, number = moves.since(connection, self._moves), moves.last(connection)
        here = [move for move in found if (live := self._live.get(move.device)) and live.session.id == move.id]
        left = [move for move in here if move.node != self._database.node]
        for move in here:
            live = self._live[move.device]
            if move.node == self._database.node:
                before = live.before.plus(move.carried.less(live.carried))
                self._live[move.device] = live._replace(before=before, carried=move.carried)
        if left:
            self._measure(interval=0.0)
            self._closed.update(address for move in left for address in self._live[move.device].session.addresses)
            self._close()
            with self._database.change(_WHO) as change:
                for move in left:
                    live = self._live[move.device]
                    moves.leave(change, move.id, live.session.traffic.less(live.written))
            for move in left:
                del self._live[move.device]
                self._unwritten.pop(move.id, None)
            self._forget(move.device for move in left)
        self._moves = number

    def _forget(self, names: Iterable[str]) -> None:
        """Send nothing to devices that are elsewhere: they would follow a handshake of ours back to here."""
        keys = {self._policy.devices[name].public_key for name in names if name in self._policy.devices}
        self._plane.forget(self.interface, keys)
        self._is_followed = False

    def _not_renamed(self, policy: Policy) -> Policy:
        """The policy for the interface that we have, which keeps its name while we run."""
        name = policy.endpoint.interface
        self._new_name = name if name != self.interface and not self._own_name else ""
        return replace(policy, endpoint=replace(policy.endpoint, interface=self.interface))

    def _notice_again(self, before: Policy) -> None:
        """Who was refused just now and has signed in since is back at once; the kernel tells of them only later."""
        now = self._clock()
        for name in [name for name, until in self._refused.items() if until > now]:
            device, former = self._policy.devices.get(name), before.devices.get(name)
            if device and former and device.signed_in_at not in (None, former.signed_in_at):
                self.notice({*device.addresses})

    def _take_answers(self) -> None:
        by_id = {live.session.id: device for device, live in self._live.items()}
        for session_id, answer in drained(self._answers):
            device = by_id.get(session_id)
            if device is None or device not in self._live:
                continue
            session, now = self._live[device].session, self._clock()
            if isinstance(answer, Reason):
                step = session.failed(answer, now)
            else:
                terms = self._terms(device, self._live[device].user)
                step = session.answered(
                    allow=answer.allow, message=answer.message, posture=answer.posture, terms=terms, now=now
                )
            self._apply(device, step)

    def _begin(self) -> None:
        now = self._clock()
        noticed = {address for addresses in drained(self._noticed) for address in addresses}
        fresh = {
            device.name: device
            for address in noticed
            if (device := self._by_address.get(address))
            and device.name not in self._live
            and self._refused.get(device.name, 0.0) <= now
        }
        if not fresh:
            return
        try:
            clients = self._plane.clients(self.interface)
            begun: dict[str, tuple[Live, Step]] = {}
            for name, device in fresh.items():
                step = Session.begin(secrets.token_hex(8), name, self._terms(name), now)
                user = self._policy.users[device.user]
                client = clients.get(device.public_key, ("", ""))
                begun[name] = Live(step.session, self._wall(), user.name, (*user.groups,), client), step
            if self._database.is_shared:
                rows = [live.row(self._policy, self._wall()) for live, _ in begun.values()]
                with self._database.change(_WHO) as change:
                    sessions.write(change, self._unwritten.values())  # or one that has ended would go on
                    claimed = moves.claim(change, rows)
                for name, row in claimed.items():
                    begun[name] = self._continued(row, begun[name][0].client)
        except (WgpyError, OSError):
            self._noticed.put(noticed)
            raise
        for name, (live, step) in begun.items():
            self._live[name] = live
            self._apply(name, step)

    def _continued(self, row: dict[str, Any], client: tuple[str, str]) -> tuple[Live, Step]:
        """The session of a device that comes from another node: it began there, and ends when it would have ended."""
        now, terms, carried = self._clock(), self._terms(row["device"], row["user"]), moves.carried(row)
        if row["entry"]["connection-attempt-status"] == "successful":
            started = now - max(0.0, self._wall() - row["started_at"])
            session = restored(row, terms, started_at=started, now=now, until=0.0)
            session = replace(session, traffic=carried)
            step = session.ended(Reason(row["reason"]), now) if row["reason"] else session.judge(terms, now)
        else:  # nobody has decided yet
            step = Session.begin(row["id"], row["device"], terms, now)
            session = step.session
        return Live.of(row, session, client, carried), step

    def _measure(self, *, interval: float = MEASURED) -> None:
        """Read the counters, unless that was done less than `interval` seconds ago."""
        now = self._clock()
        if now < self._measured_at + interval:
            return
        if self._live:
            self._measured_at = now
            self._read_counters(now)
        self._history.add(now, self.total)

    def _read_counters(self, now: float) -> None:
        sent, received = self._firewall.sent(), self._firewall.received()
        for name, live in self._live.items():
            traffic = passed(live.session.addresses, sent, received).plus(live.before)
            is_open = not sent.keys().isdisjoint(live.session.addresses)  # else its counters are gone
            if live.session.state is State.ACTIVE and is_open and traffic != live.session.traffic:
                self.total = self.total.plus(traffic.less(live.session.traffic))
                self._live[name] = live._replace(session=live.session.measured(traffic, now))
                self._unwritten[live.session.id] = self._live[name].row(self._policy, self._wall())

    def _judge(self) -> None:
        now = self._clock()
        for name, live in list(self._live.items()):
            terms = self._terms(name, live.user)
            step = live.session.judge(terms, now)
            if step != (live.session, ()):
                self._apply(name, step)

    def _carry_out(self) -> None:
        """Close, then write down, then open: nothing is open that is not written down."""
        self._close()
        if self._unwritten:
            with self._database.change(_WHO) as change:
                sessions.write(change, self._unwritten.values())
            for name, live in self._live.items():
                if live.session.id in self._unwritten:
                    self._live[name] = live._replace(written=live.session.traffic)
            self._unwritten.clear()
        if self._opened:
            now = self._clock()
            self._firewall.admit({a: until + GRACE - now for a, until in self._opened.items() if until > now})
            self._opened.clear()
        for entry in self._entries:
            self._write(entry)
        self._entries.clear()

    def _expire(self) -> None:
        """Record whose access has run out: then no change of the date gives it back."""
        wall = self._wall()
        if self._policy.newly_expired(wall):
            with self._database.change(_WHO) as change:
                users.expire(change, wall)
            self._is_stale = True

    def _close(self) -> None:
        if self._closed:
            self._firewall.admit({}, self._closed)
            self._closed.clear()

    def _apply(self, name: str, step: Step) -> None:
        """Take a step, and note its effects for `_carry_out`."""
        former = self._live[name].session
        if former.state is State.ACTIVE and former is not step.session:
            self._measure(interval=AT_ONCE)
            traffic = self._live[name].session.traffic
            step = step._replace(session=replace(step.session, traffic=traffic))
            if any(isinstance(effect, Open) for effect in step.effects):
                self._live[name] = self._live[name]._replace(before=traffic)
        live = self._live[name] = self._live[name]._replace(session=step.session)
        session = step.session
        for effect in step.effects:
            if isinstance(effect, Open):
                self._opened |= dict.fromkeys(effect.addresses, effect.until)
            elif isinstance(effect, Close):
                self._closed.update(effect.addresses)
                for address in effect.addresses:
                    self._opened.pop(address, None)
            elif isinstance(effect, Ask):
                self.questions.append(live.question(self._policy))
            elif isinstance(effect, Log):
                self._note(name, live)
        self._unwritten[session.id] = live.row(self._policy, self._wall())
        if session.state is State.ENDED:
            del self._live[name]
            if not session.opened:
                self._refused[name] = self._clock() + RETRY

    def _note(self, name: str, live: Live) -> None:
        session = live.session
        kind = "started" if session.state is State.ACTIVE else "ended" if session.opened else "refused"
        self.counts[kind, session.reason.value if session.reason else ""] += 1
        self._entries.append(live.entry(self._policy, self._wall()))

    def _terms(self, name: str, user: str | None = None) -> Terms:
        return self._clocks.terms(self._policy, name, user)

    def _take_up(self) -> None:
        """Go on with the sessions that both the kernel and the database know. All others end."""
        now, wall, sent = self._clock(), self._wall(), self._firewall.sent()
        with self._database.read() as connection:
            rows = sessions.under_way(connection, self._database.node)
            self._moves = moves.last(connection)
        kept: set[Address] = set()
        for row in rows:
            name, entry = row["device"], row["entry"]
            terms = self._terms(name, row["user"])
            left = min((sent[address].seconds_left for address in terms.addresses if address in sent), default=0.0)
            # No change of the date while nothing ran makes it longer: the kernel counted, too.
            started = min(now - max(0.0, wall - row["started_at"]), now + left - GRACE - terms.session_max)
            session = restored(row, terms, started_at=started, now=now, until=now + left - GRACE)
            client, carried = (entry["device-ip"], entry["port"]), moves.carried(row)
            self._live[name] = Live.of(row, session, client, carried)
            if left > 0 and row["reason"] is None:
                kept.update(terms.addresses)
            else:
                reason = Reason(row["reason"]) if row["reason"] else terms.refusal or Reason.GATEWAY_STOPPED
                self._apply(name, session.ended(reason, now))
        self._closed |= set(sent) - kept
        if self._database.is_shared:
            strangers = (self._by_address.get(address) for address in self._closed)
            self._forget(device.name for device in strangers if device)
        self._judge()
        self._carry_out()
