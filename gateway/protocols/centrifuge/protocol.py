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
from gateway.log import Seldom
from gateway.metrics import error_label
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
seldom = Seldom(log)

_PING = b"{}"
_METHODS = tuple(name for name in Command.__struct_fields__ if name != "id")
_decode = msgspec.json.Decoder(Command).decode
_encode = msgspec.json.Encoder().encode
_NOT_A_COMMAND = (msgspec.DecodeError, RecursionError)

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
        self._commands = node.counters.commands
        for name in _METHODS:
            self._commands.setdefault(name, 0)

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
        command = None
        if session.info is not None and isinstance(frame, str) and "\n" not in frame:
            if frame == "{}":
                return  # a pong: the transport has noted that the client is alive
            try:
                command = _decode(frame)
            except _NOT_A_COMMAND:
                pass  # `_parse` is to say why, or to mend it
            else:
                reply = self.answer(session, command)
                if reply:
                    self._node.counters.replies += 1
                    session.transport.send(reply, True)
                    return
                if reply is not None:
                    return
        batch = _Batch(self, session)
        session.task = start(batch.run(frame, command), batch.flush)

    def _put_aside(self, session: Session, frame: str | bytes) -> None:
        inbox = session.inbox
        if inbox is None:
            inbox = session.inbox = deque()
        inbox.append(frame)
        if sum(map(len, inbox)) > self._node.config.client.queue_max_size:
            self._node.limits.reach("queue_max_size", client=session.id)
            self._node.disconnect(session, codes.TOO_MANY_COMMANDS)

    # -- events out

    def publication(self, channel: str, publication: Publication) -> bytes:
        return _encode(PushReply(Push(channel, pub=publication)))

    def in_delta(self, publication: Publication, patch: bytes | None) -> Publication:
        # What the client keeps as the base is the text of the data: it comes as a string of that.
        text = (bytes(publication.data) if patch is None else patch).decode()
        return Publication(
            Raw(_encode(text)),
            publication.info,
            publication.offset,
            publication.tags,
            patch is not None,
        )

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

    def answer(
        self, session: Session, command: Command, batch: _Batch | None = None
    ) -> bytes | None:
        """Do one of the commonest commands at once, without a coroutine, and give the reply to it.

        None where `execute` is to be awaited: for other commands, and for those that have to wait
        or are refused. So far the command has only been counted by its rate limits; for one over
        them the reply says so, and is empty where nothing is answered. ``batch`` has replies that
        wait to be sent before.
        """
        number, node = command.id, self._node
        limits = node.limits
        if (
            limits.counts_commands
            and command != _PONG
            and not limits.take_command(session, node.clock())
        ):
            return self.refusal(session, number, codes.TOO_MANY_REQUESTS)
        if (
            not number
            or session.info is None
            or command.connect is not None
            or command.send is not None
        ):
            return None
        try:
            publish = command.publish
            if publish is not None:
                if not publish.channel or isinstance(publish.data, UnsetType) or publish.type:
                    return None
                if batch is not None:
                    batch.flush_subscribed()
                if node.publish_at_once(session, publish.channel, publish.data):
                    self._commands["publish"] += 1
                    return b'{"id":%d,"publish":{}}' % number
            elif command.subscribe is not None:
                if command.subscribe.channel and node.members.subscribe_at_once(
                    session, command.subscribe
                ):
                    self._commands["subscribe"] += 1
                    if batch is not None:
                        batch.subscribed = True
                    return b'{"id":%d,"subscribe":{}}' % number
            elif command.unsubscribe is not None:
                name = command.unsubscribe.channel
                if name and node.members.unsubscribe_at_once(session, name):
                    self._commands["unsubscribe"] += 1
                    return b'{"id":%d,"unsubscribe":{}}' % number
        except Refused as refusal:
            self._count(command)
            return self.refusal(session, number, refusal.error)
        except Exception:
            log.exception("command failed", client=session.id)
            self._count(command)
            return self.refusal(session, number, codes.INTERNAL)
        return None

    def _count(self, command: Command) -> None:
        for name in _METHODS:
            if getattr(command, name) is not None:
                self._commands[name] += 1
                return

    def refusal(self, session: Session, number: int, error: Error) -> bytes:
        """The reply to a command that is not done; empty for one without an id."""
        log.debug("command refused", client=session.id, code=error.code)
        self._node.counters.command_errors[error_label(error.code)] += 1
        return _encode(Reply(number, error=error)) if number else b""

    async def execute(self, session: Session, command: Command, batch: _Batch) -> Reply | None:
        """Do what a command asks. None where nothing is to be answered.

        Raises `Refused` with the error to answer, or `Disconnected`.
        """
        node = self._node
        number = command.id
        self._count(command)
        if command.send is not None or number == 0:
            await self._without_reply(session, command)
            return None
        if command.connect is not None:
            await self._connect(session, number, command.connect, batch)
            return None
        if session.info is None:
            raise _bad_request("the first command must be connect")

        if command.publish is not None:
            request = command.publish
            _require_channel(request.channel)
            if isinstance(request.data, UnsetType):
                raise Refused(codes.BAD_REQUEST)
            if request.type:
                raise Refused(codes.PERMISSION_DENIED)
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
            self._add_large(Reply(number, presence=PresenceResult(present)), batch)
            return None
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
            result = HistoryResult(publications, top.epoch, top.offset)
            self._add_large(Reply(number, history=result), batch)
            return None
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

    def _add_large(self, reply: Reply, batch: _Batch) -> None:
        """Add a reply of any size. Raises `Refused` (106) rather than close the client by it."""
        encoded = _encode(reply)
        if len(encoded) > self._node.config.client.queue_max_size:
            self._node.limits.reach("queue_max_size")
            raise Refused(codes.LIMIT_EXCEEDED)
        batch.add_encoded(encoded)

    async def _connect(
        self, session: Session, number: int, request: ConnectRequest, batch: _Batch
    ) -> None:
        wanted = {
            name: StreamPosition(sub.offset, sub.epoch) if sub.recover else None
            for name, sub in request.subs.items()
        }
        connected = await self._node.admission.connect(
            session,
            request.token,
            request.data,
            wanted,
            request.name,
            request.version,
            request.headers,
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

    async def _without_reply(self, session: Session, command: Command) -> None:
        """A command that is not answered: a pong, or ``send``.

        If no application listens to that, its client would not know if it were not closed.
        """
        if session.info is None:
            raise _bad_request("the first command must be connect")
        if command.send is not None:
            if not self._node.app.handles("message"):
                raise Disconnected(codes.NOBODY_LISTENS, "no application listens to send")
            await self._node.app.message(session, command.send.data)
        elif command != _PONG:
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

    def add_encoded(self, reply: bytes) -> None:
        self._replies.append(reply)

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

    async def run(self, frame: str | bytes, command: Command | None = None) -> None:
        """Execute a frame, then those that came while it waited.

        ``command`` is all that is in the frame, if that is known and could not be done at once.
        """
        session = self._session
        try:
            if command is not None:
                await self._execute(command)
            else:
                await self._execute_frame(frame)
            while session.inbox:
                await self._execute_frame(session.inbox.popleft())
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

    async def _execute_frame(self, frame: str | bytes) -> None:
        # All of a frame is understood before any of it is done.
        for command in [_parse(line) for line in _lines(frame)]:
            if self._session.ended:
                return
            reply = self._protocol.answer(self._session, command, self)
            if reply is None:
                await self._execute(command)
            elif reply:
                self._replies.append(reply)

    async def _execute(self, command: Command) -> None:
        try:
            reply = await self._protocol.execute(self._session, command, self)
            if reply is not None:
                self.add(reply)
        except Refused as refusal:
            self._refuse(command, refusal.error)
        except Disconnected:
            raise
        except OSError as error:
            key = type(error).__name__
            seldom.warning("out of reach", key, client=self._session.id, error=str(error))
            self._refuse(command, codes.INTERNAL)
        except Exception:
            log.exception("command failed", client=self._session.id)
            self._refuse(command, codes.INTERNAL)

    def _refuse(self, command: Command, error: Error) -> None:
        reply = self._protocol.refusal(self._session, command.id, error)
        if reply:
            self._replies.append(reply)


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
    except _NOT_A_COMMAND as error:
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
