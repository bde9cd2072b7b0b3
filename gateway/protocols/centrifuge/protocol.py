"""The Centrifuge protocol in JSON: frames into commands, events into pushes."""

from __future__ import annotations

import math
import re
import time
from collections import deque
from collections.abc import Iterable

import msgspec
import structlog
from msgspec import Raw, UnsetType

from gateway import __version__, codes
from gateway.codes import Disconnected, Error, Refused, Unsubscribe
from gateway.engines import HistoryQuery
from gateway.model import ClientInfo, Expiry, Publication, StreamPosition, Subscribed
from gateway.node import Node
from gateway.protocols.centrifuge.messages import (
    EMPTY,
    Command,
    ConnectRequest,
    ConnectResult,
    HistoryResult,
    Message,
    PresenceResult,
    PresenceStatsResult,
    Push,
    PushReply,
    RefreshResult,
    Reply,
    RpcResult,
    WithInfo,
)
from gateway.session import Session, Subscription
from gateway.stepping import start

log = structlog.get_logger("gateway.centrifuge")

_PING = b"{}"
_decode = msgspec.json.Decoder(Command).decode
_encode = msgspec.json.Encoder().encode

# JSON.stringify writes half of a surrogate pair, as cutting a string inside an emoji leaves one, as
# \ud83d alone. Our decoder refuses it. Matches a pair, a lone half, or any other escape.
_ESCAPE = re.compile(
    r"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"
    r"|(?P<half>\\u[dD][89a-fA-F][0-9a-fA-F]{2})"
    r"|\\."
)


class CentrifugeJson:
    """The protocol as one node speaks it. Keeps nothing of its clients."""

    ping = _PING

    def __init__(self, node: Node) -> None:
        self._node = node
        client = node.config.client
        self._ping_seconds = math.ceil(client.ping_interval)
        self._tells_time = client.connect_include_server_time

    # -- frames in

    def receive(self, session: Session, frame: str | bytes) -> None:
        """Take a frame: its commands one after the other, their replies in one frame.

        While a command waits for the engine, later frames of that client wait in its inbox.
        """
        if session.ended:
            return
        if session.task is not None:
            self._put_aside(session, frame)
            return
        if frame == "{}" and session.info is not None:
            return  # a pong: the transport has noted that the client is alive
        batch = _Batch(self, session)
        session.task = start(batch.run(frame), batch.flush)

    def _put_aside(self, session: Session, frame: str | bytes) -> None:
        inbox = session.inbox
        if inbox is None:
            inbox = session.inbox = deque()
        inbox.append(frame)
        if sum(map(len, inbox)) > self._node.config.client.queue_max_size:
            self._node.disconnect(session, codes.TOO_MANY_COMMANDS)

    # -- events out

    def publication(self, channel: str, publication: Publication) -> bytes:
        return _encode(PushReply(Push(channel, pub=publication)))

    def join(self, channel: str, info: ClientInfo) -> bytes:
        return _encode(PushReply(Push(channel, join=WithInfo(info))))

    def leave(self, channel: str, info: ClientInfo) -> bytes:
        return _encode(PushReply(Push(channel, leave=WithInfo(info))))

    def subscribed(self, channel: str, subscribed: Subscribed) -> bytes:
        return _encode(PushReply(Push(channel, subscribe=subscribed)))

    def unsubscribed(self, channel: str, why: Unsubscribe) -> bytes:
        return _encode(PushReply(Push(channel, unsubscribe=why)))

    def refreshed(self, expiry: Expiry) -> bytes:
        return _encode(PushReply(Push(refresh=expiry)))

    def message(self, data: Raw) -> bytes:
        return _encode(PushReply(Push(message=Message(data))))

    # -- commands

    async def execute(self, session: Session, command: Command, batch: _Batch) -> Reply | None:
        """Do what a command asks. None where nothing is to be answered.

        Raises `Refused` with the error to answer, or `Disconnected`.
        """
        node = self._node
        number = command.id
        if command.send is not None or number == 0:
            self._without_reply(session, command)
            return None
        if command.connect is not None:
            await self._connect(session, number, command.connect, batch)
            return None
        if session.info is None:
            raise _bad_request("the first command must be connect")

        if command.publish is not None:
            request = command.publish
            if not request.channel or isinstance(request.data, UnsetType):
                raise _bad_request("publish needs a channel and data")
            batch.flush_subscribed()
            await node.publish(request.channel, request.data, session)
            return Reply(number, publish=EMPTY)
        if command.subscribe is not None:
            _require_channel(command.subscribe.channel)
            subscription, told = await node.members.subscribe(session, command.subscribe)
            batch.add(Reply(number, subscribe=told))
            await self._joined([subscription], batch)
            return None
        if command.unsubscribe is not None:
            _require_channel(command.unsubscribe.channel)
            await node.members.unsubscribe(session, command.unsubscribe.channel)
            return Reply(number, unsubscribe=EMPTY)
        if command.presence is not None:
            _require_channel(command.presence.channel)
            present = await node.presence(command.presence.channel, session)
            return Reply(number, presence=PresenceResult(present))
        if command.presence_stats is not None:
            _require_channel(command.presence_stats.channel)
            stats = await node.presence_stats(command.presence_stats.channel, session)
            counts = PresenceStatsResult(stats.num_clients, stats.num_users)
            return Reply(number, presence_stats=counts)
        if command.history is not None:
            _require_channel(command.history.channel)
            since = command.history.since
            query = HistoryQuery(
                command.history.limit,
                StreamPosition(since.offset, since.epoch) if since is not None else None,
                command.history.reverse,
            )
            publications, top = await node.history(command.history.channel, query, session)
            return Reply(number, history=HistoryResult(publications, top.epoch, top.offset))
        if command.ping is not None:
            return Reply(number, ping=EMPTY)
        if command.rpc is not None:
            answer = await node.rpc(session, command.rpc.method, command.rpc.data)
            return Reply(number, rpc=RpcResult(answer))
        if command.refresh is not None:
            end = await node.admission.refresh(session, command.refresh.token)
            renewed = RefreshResult(session.id, __version__, end.expires, end.ttl)
            return Reply(number, refresh=renewed)
        if command.sub_refresh is not None:
            wanted = command.sub_refresh
            _require_channel(wanted.channel)
            end = await node.members.refresh(session, wanted.channel, wanted.token)
            return Reply(number, sub_refresh=end)
        raise Refused(codes.METHOD_NOT_FOUND)

    async def _connect(
        self, session: Session, number: int, request: ConnectRequest, batch: _Batch
    ) -> None:
        since = {
            name: StreamPosition(sub.offset, sub.epoch)
            for name, sub in request.subs.items()
            if sub.recover
        }
        connected = await self._node.admission.connect(
            session, request.token, request.data, since, request.name, request.version
        )
        seconds = self._ping_seconds
        result = ConnectResult(
            connected.info.client,
            __version__,
            connected.expiry.expires,
            connected.expiry.ttl,
            connected.data,
            connected.subs,
            ping=seconds,
            pong=seconds > 0,
            time=time.time_ns() // 1_000_000 if self._tells_time else 0,
        )
        batch.add(Reply(number, connect=result))
        await self._joined(session.subscriptions, batch)

    async def _joined(self, subscriptions: Iterable[Subscription], batch: _Batch) -> None:
        """What follows a reply that tells of new subscriptions."""
        for subscription in subscriptions:
            batch.subscribed = True
            if subscription.channel.watchers:
                batch.flush_subscribed()
            await self._node.members.joined(subscription)

    def _without_reply(self, session: Session, command: Command) -> None:
        """A command without an id: a pong, or ``send``, which no application listens to yet."""
        if session.info is None:
            raise _bad_request("the first command must be connect")
        if command.send is None and command != _PONG:
            raise _bad_request("a command needs an id")


_PONG = Command()


class _Batch:
    """The commands of one frame, and the replies that wait to leave in one frame."""

    __slots__ = ("_protocol", "_replies", "_session", "subscribed")

    def __init__(self, protocol: CentrifugeJson, session: Session) -> None:
        self._protocol = protocol
        self._session = session
        self._replies: list[bytes] = []
        self.subscribed = False  # a reply to subscribe is among them

    def add(self, reply: Reply) -> None:
        self._replies.append(_encode(reply))

    def flush(self) -> None:
        """Send what is there. Called at the end, and before each wait: replies never wait."""
        if self._replies:
            replies, self._replies = self._replies, []
            self.subscribed = False
            if not self._session.ended:
                self._protocol._node.counters.replies += 1
                payload = replies[0] if len(replies) == 1 else b"\n".join(replies)
                self._session.transport.send(payload, True)

    def flush_subscribed(self) -> None:
        """Before a push that may come to this client: it must know of its subscription first."""
        if self.subscribed:
            self.flush()

    async def run(self, frame: str | bytes) -> None:
        """Execute a frame, then those that came while it waited."""
        session = self._session
        try:
            await self._execute(frame)
            while session.inbox:
                await self._execute(session.inbox.popleft())
            self.flush()
        except Disconnected as reason:
            log.info(
                "client refused",
                client=session.id,
                address=session.address,
                detail=reason.detail,
            )
            self.flush()
            self._protocol._node.disconnect(session, reason.disconnect)
        finally:
            session.inbox = None
            session.task = None

    async def _execute(self, frame: str | bytes) -> None:
        limits = self._protocol._node.limits
        # All of a frame is understood before any of it is done.
        for command in [_parse(line) for line in _lines(frame)]:
            if self._session.ended:
                return
            try:
                if limits.counts_commands:
                    self._check_rate(command)
                reply = await self._protocol.execute(self._session, command, self)
                if reply is not None:
                    self.add(reply)
            except Refused as refusal:
                self._refuse(command, refusal.error)
            except Disconnected:
                raise
            except OSError as error:
                log.warning("out of reach", client=self._session.id, error=str(error))
                self._refuse(command, codes.INTERNAL)
            except Exception:
                log.exception("command failed", client=self._session.id)
                self._refuse(command, codes.INTERNAL)

    def _check_rate(self, command: Command) -> None:
        """Raises `Refused` (111) for a client that is too fast. Pongs are free."""
        node = self._protocol._node
        if command != _PONG and not node.limits.take_command(self._session, node.clock()):
            raise Refused(codes.TOO_MANY_REQUESTS)

    def _refuse(self, command: Command, error: Error) -> None:
        log.debug("command refused", client=self._session.id, code=error.code)
        if command.id:
            self.add(Reply(command.id, error=error))


def _lines(frame: str | bytes) -> list[str]:
    if isinstance(frame, bytes):
        try:
            # Payloads are passed on as they came, and may not make a text frame invalid.
            frame = frame.decode()
        except UnicodeDecodeError:
            raise _bad_request("the frame is not UTF-8") from None
    if "\n" not in frame:
        return [frame]
    lines = [line for line in frame.split("\n") if line]
    if not lines:
        raise _bad_request("the frame is empty")
    return lines


def _parse(line: str) -> Command:
    try:
        return _decode(line)
    except msgspec.ValidationError as error:
        raise _bad_request(str(error)) from None
    except (msgspec.DecodeError, RecursionError) as error:
        mended = _ESCAPE.sub(_mend, line)
        if mended != line:
            return _parse(mended)
        raise _bad_request(str(error)) from None


def _mend(escape: re.Match[str]) -> str:
    return r"\ufffd" if escape["half"] else escape[0]


def _require_channel(channel: str) -> None:
    if not channel:
        raise _bad_request("a channel is needed")


def _bad_request(detail: str) -> Disconnected:
    return Disconnected(codes.INVALID_REQUEST, detail)
