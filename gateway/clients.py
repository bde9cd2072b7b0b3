"""The clients that have connected, by their ids and by their users."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from gateway.session import Session


class Clients:
    """Anonymous clients are found by client id only: there may be any number of them."""

    def __init__(self) -> None:
        self._by_id: dict[str, Session] = {}
        # Most users have one connection: a set for each would cost more than the session's share.
        self._by_user: dict[str, Session | set[Session]] = {}

    def __len__(self) -> int:
        return len(self._by_id)

    def __iter__(self) -> Iterator[Session]:
        return iter(self._by_id.values())

    def __reversed__(self) -> Iterator[Session]:
        """The newest first."""
        return reversed(self._by_id.values())

    @property
    def num_users(self) -> int:
        """Users with at least one connection, anonymous ones not counted."""
        return len(self._by_user)

    def add(self, session: Session) -> None:
        """A client has connected."""
        self._by_id[session.id] = session
        user = session.user
        if not user:
            return
        others = self._by_user.get(user)
        if others is None:
            self._by_user[user] = session
        elif isinstance(others, set):
            others.add(session)
        else:
            self._by_user[user] = {others, session}

    def remove(self, session: Session) -> None:
        """A client has ended."""
        self._by_id.pop(session.id, None)
        known = self._by_user.get(session.user)
        if isinstance(known, set):
            known.discard(session)
            if not known:
                del self._by_user[session.user]
        elif known is session:
            del self._by_user[session.user]

    def get(self, client: str) -> Session | None:
        """The client of this id."""
        return self._by_id.get(client)

    def count(self, user: str) -> int:
        """How many connections a user has."""
        known = self._by_user.get(user)
        if known is None:
            return 0
        return len(known) if isinstance(known, set) else 1

    def of_user(self, user: str) -> Collection[Session]:
        """All clients of a user, which must not be the anonymous one."""
        known = self._by_user.get(user)
        if known is None:
            return ()
        return list(known) if isinstance(known, set) else (known,)

    def select(self, user: str, client: str = "") -> Collection[Session]:
        """The clients that a backend means: of a user, or one by its id, or both at once."""
        if not client:
            return self.of_user(user)
        session = self.get(client)
        if session is None or (user and session.user != user):
            return ()
        return (session,)
