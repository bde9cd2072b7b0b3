import ssl

from ._carrier import Carrier
from ._poller import Poller

class Shared:
    def __new__(cls) -> Shared: ...
    @property
    def incoming(self) -> ssl.MemoryBIO: ...
    @property
    def outgoing(self) -> ssl.MemoryBIO: ...

class TlsCarrier(Carrier):
    def __init__(
        self,
        poller: Poller,
        context: ssl.SSLContext,
        *,
        server_side: bool = ...,
        server_hostname: str | None = ...,
    ) -> None: ...
    @property
    def poller(self) -> Poller: ...
    @property
    def ssl_object(self) -> ssl.SSLObject | None: ...
    @property
    def server_side(self) -> bool: ...
    @property
    def established(self) -> bool: ...
