"""Every key of the configuration with its type, bounds and default.

Names and defaults are Centrifugo's where it has the same thing. A field of a section is a key; a
list of sections (``channel.namespaces``) is one key whose tables have keys of their own.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct, field

# Marks a number of seconds, which may also be written as a duration: "25s", "1m30s", "200ms".
SECONDS = Meta(ge=0, le=10 * 365 * 86400, extra={"seconds": True})

Seconds = Annotated[float, SECONDS]
Count = Annotated[int, Meta(ge=0, le=2**31 - 1)]
Port = Annotated[int, Meta(ge=0, le=65535)]
UnixTime = Annotated[int, Meta(ge=0, le=2**53)]
Mark = Annotated[str, Meta(max_length=8)]  # a sign that has a meaning in names of channels
DataFormat = Literal["", "json", "json_object"]
Name = Annotated[str, Meta(pattern="^[-a-zA-Z0-9_.]{2,}$")]

UNIX_PREFIX = "unix:"  # of addresses that are paths

# Stands for the webhook that the event itself has, where a proxy is named.
DEFAULT_PROXY = "default"


class Tls(Struct, frozen=True):
    """TLS of a listening port. With a CA for them, clients need a certificate.

    What is PEM may be given as it is, in base64, or as the path of a file.
    """

    enabled: bool = False
    cert_pem: str = ""
    key_pem: str = ""
    client_ca_pem: str = ""
    client_auth: Literal["required", "optional"] = "required"
    min_version: Literal["1.2", "1.3"] = "1.2"


class HttpServer(Struct, frozen=True):
    """Where to listen, and which proxies are believed.

    An address is a host, or ``unix:`` and a path. Port 0 takes a free one. What is not said of the
    internal place is as in the one for clients.
    """

    address: str = "127.0.0.1"
    port: Port = 8000
    workers: Annotated[int, Meta(ge=1, le=1024)] = 1
    reuse_port: bool = False
    unix_socket_mode: Annotated[str, Meta(pattern="^0?[0-7]{3}$")] = "0660"
    tls: Tls = field(default_factory=Tls)
    tls_external: bool = False
    internal_address: str = ""
    internal_port: Port | None = None
    internal_tls: Tls = field(default_factory=Tls)
    trusted_proxies: list[str] = field(default_factory=list)
    proxy_protocol: bool = False
    forwarded_header: Literal["x-forwarded-for", "forwarded", "none"] = "x-forwarded-for"

    @property
    def internal(self) -> tuple[str, int] | None:
        """Address and port of the internal place; None if it is the one for clients."""
        address = self.internal_address or self.address
        port = self.port if self.internal_port is None else self.internal_port
        same = port == self.port and self.internal_port != 0  # 0 is another one each time
        if address == self.address and (same or address.startswith(UNIX_PREFIX)):
            return None
        return address, port


class HttpApi(Struct, frozen=True):
    """The HTTP API, which is there when a key is set. The limit of a request is in bytes."""

    key: str = ""
    external: bool = False
    handler_prefix: Annotated[str, Meta(pattern=r"^(/[-\w.~]+)+/?$")] = "/api"
    error_mode: Literal["", "transport"] = ""
    body_size_limit: Annotated[int, Meta(ge=1, le=2**31 - 1)] = 10485760


class AdminPage(Struct, frozen=True):
    """The page at ``/admin/``: behind a password, or with ``insecure`` open to everybody.

    ``secret`` signs what a browser is given for the password, which is good for ``token_ttl``;
    without one it is made at the start, and ends with the process.
    """

    enabled: bool = False
    password: str = ""
    secret: str = ""
    insecure: bool = False
    token_ttl: Seconds = 43200.0


class WebSocket(Struct, frozen=True):
    """Limits of the WebSocket transport, in bytes."""

    message_size_limit: Annotated[int, Meta(ge=1, le=2**31 - 1)] = 65536


class Token(Struct, frozen=True):
    """Keys that JSON Web Tokens are checked with, and what must stand in them.

    Public keys are PEM. Several kinds of key may be set at once, except that with a JWKS endpoint
    all keys come from there.
    """

    hmac_secret_key: str = ""
    hmac_previous_secret_key: str = ""
    hmac_previous_secret_key_valid_until: UnixTime = 0  # of `iat`; 0: whenever issued
    rsa_public_key: str = ""
    ecdsa_public_key: str = ""
    ed25519_public_key: str = ""
    jwks_public_endpoint: str = ""
    audience: str = ""
    audience_regex: str = ""
    issuer: str = ""
    issuer_regex: str = ""
    user_id_claim: str = ""


class SubscriptionToken(Token, frozen=True):
    """Keys of their own for subscription tokens, when enabled."""

    enabled: bool = False


class TokenSource(Struct, frozen=True):
    """Where a connection token may come from besides the connect command, which goes first."""

    authorization_header: bool = False
    cookie: str = ""
    query_parameter: str = ""
    subprotocol_prefix: str = ""


class ToError(Struct, frozen=True):
    """The error that a client gets."""

    code: Annotated[int, Meta(ge=0, lt=2**32)] = 0
    message: str = ""
    temporary: bool = False


class ToDisconnect(Struct, frozen=True):
    """The close code and the reason that a client gets."""

    code: Count = 0
    reason: str = ""


class StatusToCode(Struct, frozen=True):
    """What a status of a backend means to the client: an error, or a disconnect."""

    status_code: Annotated[int, Meta(ge=100, le=599)] = 100
    to_error: ToError = field(default_factory=ToError)
    to_disconnect: ToDisconnect = field(default_factory=ToDisconnect)


class ProxyHttp(Struct, frozen=True):
    """What only webhooks over HTTP have: headers of every request, such as a secret, and what a
    status other than 200 means where it is not just a failure.
    """

    static_headers: dict[str, str] = field(default_factory=dict)
    status_to_code_transforms: list[StatusToCode] = field(default_factory=list)


class OnFailure(Struct, frozen=True):
    """What a client gets when the backend fails.

    Error 100, unless there is a close code. With a renewal it goes on for ``keep``.
    """

    disconnect_code: Count = 0
    disconnect_reason: str = ""
    keep: Seconds = 60.0


class ProxyOptions(Struct, frozen=True):
    """Where a webhook goes, how long it may take, what of a client goes along, and what if it
    fails: after so many failures in a row (0: any number) it is left alone for a while.
    """

    endpoint: str = ""
    timeout: Seconds = 1.0
    http_headers: list[str] = field(default_factory=list)
    emulated_headers: list[str] = field(default_factory=list)
    include_connection_meta: bool = False
    http: ProxyHttp = field(default_factory=ProxyHttp)
    in_flight_limit: Annotated[int, Meta(ge=1, le=65536)] = 256
    breaker_failures: Count = 5
    breaker_pause: Seconds = 2.0
    on_failure: OnFailure = field(default_factory=OnFailure)


class Proxy(ProxyOptions, frozen=True):
    """The webhook of one event, where no other is named."""

    enabled: bool = False


class NamedProxy(ProxyOptions, frozen=True):
    """A webhook that namespaces choose by its name."""

    name: Name = ""


class ClientProxies(Struct, frozen=True):
    """Webhooks about connections."""

    connect: Proxy = field(default_factory=Proxy)
    refresh: Proxy = field(default_factory=Proxy)
    disconnect: Proxy = field(default_factory=Proxy)
    disconnect_rate_limit: Count = 100


class ChannelProxies(Struct, frozen=True):
    """Webhooks about channels, for those whose options ask for them."""

    subscribe: Proxy = field(default_factory=Proxy)
    publish: Proxy = field(default_factory=Proxy)
    sub_refresh: Proxy = field(default_factory=Proxy)


class PersonalChannel(Struct, frozen=True):
    """Every user with an id is subscribed to a channel of their own."""

    enabled: bool = False
    personal_channel_namespace: str = ""
    single_connection: bool = False


class Client(Struct, frozen=True):
    """What a client may do. A count of 0 is no limit, an interval or delay of 0 turns it off."""

    ping_interval: Seconds = 25.0
    pong_timeout: Seconds = 8.0
    stale_close_delay: Seconds = 10.0
    expired_close_delay: Seconds = 25.0
    expired_sub_close_delay: Seconds = 25.0
    allowed_origins: list[str] = field(default_factory=list)
    allow_anonymous_connect_without_token: bool = False
    disallow_anonymous_connection_tokens: bool = False
    connect_include_server_time: bool = False
    connection_limit: Count = 0
    connection_rate_limit: Count = 0
    ip_connection_limit: Count = 0
    user_connection_limit: Count = 0
    command_rate_limit: Count = 0
    user_command_rate_limit: Count = 0
    channel_limit: Count = 128
    queue_max_size: Annotated[int, Meta(ge=1, le=2**31 - 1)] = 1048576
    history_max_publication_limit: Count = 300
    recovery_max_publication_limit: Count = 300
    channel_position_check_delay: Seconds = 40.0
    subscribe_to_user_personal_channel: PersonalChannel = field(default_factory=PersonalChannel)
    token: Token = field(default_factory=Token)
    subscription_token: SubscriptionToken = field(default_factory=SubscriptionToken)
    token_source: TokenSource = field(default_factory=TokenSource)
    proxy: ClientProxies = field(default_factory=ClientProxies)


class ChannelOptions(Struct, frozen=True):
    """What a channel offers, and to whom. History is kept when its size and its time to live are
    above 0; a ``history_meta_ttl`` of 0 is that of all channels, as is an empty
    ``publication_data_format``. What is allowed to clients or subscribers is allowed to anonymous
    ones only if that is said too.
    """

    presence: bool = False
    join_leave: bool = False
    force_push_join_leave: bool = False
    history_size: Count = 0
    history_ttl: Seconds = 0.0
    history_meta_ttl: Seconds = 0.0
    force_positioning: bool = False
    allow_positioning: bool = False
    force_recovery: bool = False
    allow_recovery: bool = False
    force_recovery_mode: Literal["", "stream", "cache"] = ""
    auto_cache_recover: bool = False
    allow_tags_filter: bool = False
    allowed_delta_types: list[Literal["fossil"]] = field(default_factory=list)
    delta_publish: bool = False
    exclude_publisher: bool = False
    slow_reader: Literal["close", "drop_oldest", "latest"] = "close"
    slow_reader_queue: Annotated[int, Meta(ge=1, le=10000)] = 100
    slow_reader_key: str = ""
    allow_subscribe_for_client: bool = False
    allow_subscribe_for_anonymous: bool = False
    allow_publish_for_client: bool = False
    allow_publish_for_subscriber: bool = False
    allow_publish_for_anonymous: bool = False
    allow_presence_for_client: bool = False
    allow_presence_for_subscriber: bool = False
    allow_presence_for_anonymous: bool = False
    allow_history_for_client: bool = False
    allow_history_for_subscriber: bool = False
    allow_history_for_anonymous: bool = False
    allow_user_limited_channels: bool = False
    channel_regex: str = ""
    publication_data_format: DataFormat = ""
    subscribe_proxy_enabled: bool = False
    subscribe_proxy_name: str = DEFAULT_PROXY
    publish_proxy_enabled: bool = False
    publish_proxy_name: str = DEFAULT_PROXY
    sub_refresh_proxy_enabled: bool = False
    sub_refresh_proxy_name: str = DEFAULT_PROXY


class Namespace(ChannelOptions, frozen=True):
    """Options of channels whose name begins with this one and the boundary."""

    name: Name = ""


class Channel(Struct, frozen=True):
    """Rules of channels. The length of a name is in bytes of UTF-8."""

    max_length: Annotated[int, Meta(ge=1, le=65535)] = 255
    private_prefix: Mark = "$"
    namespace_boundary: Mark = ":"
    user_boundary: Mark = "#"
    user_separator: Mark = ","
    history_meta_ttl: Seconds = 720 * 3600.0
    publication_data_format: DataFormat = ""
    presence_max_clients: Count = 10000
    without_namespace: ChannelOptions = field(default_factory=ChannelOptions)
    namespaces: list[Namespace] = field(default_factory=list)
    proxy: ChannelProxies = field(default_factory=ChannelProxies)


class RpcOptions(Struct, frozen=True):
    """Whether methods are answered, and by which webhook."""

    proxy_enabled: bool = False
    proxy_name: str = DEFAULT_PROXY


class RpcWithoutNamespace(RpcOptions, frozen=True):
    """Methods without a namespace are answered as soon as there is a webhook for them."""

    proxy_enabled: bool = True


class RpcNamespace(RpcOptions, frozen=True):
    """Methods whose name begins with this one and the boundary."""

    name: Name = ""


class Rpc(Struct, frozen=True):
    """Who answers a client's ``rpc``. Without namespaces, a boundary in a method means nothing."""

    proxy: Proxy = field(default_factory=Proxy)
    without_namespace: RpcWithoutNamespace = field(default_factory=RpcWithoutNamespace)
    namespaces: list[RpcNamespace] = field(default_factory=list)
    namespace_boundary: Mark = ":"


class Engine(Struct, frozen=True):
    """Which engine carries messages, history and presence."""

    type: Literal["memory"] = "memory"


class OpenTelemetry(Struct, frozen=True):
    """Traces of API requests and webhooks. Where they go is in ``OTEL_…`` of the environment."""

    enabled: bool = False


class Shutdown(Struct, frozen=True):
    """How long a shutdown may take before connections are cut, and clients closed per second."""

    timeout: Seconds = 30.0
    close_rate: Annotated[int, Meta(ge=1, le=2**31 - 1)] = 5000


class Log(Struct, frozen=True):
    """What goes to stderr. "auto" is for people on a terminal and JSON lines elsewhere."""

    level: Literal["trace", "debug", "info", "warn", "warning", "error", "fatal", "none"] = "info"
    format: Literal["auto", "console", "json"] = "auto"


class Config(Struct, frozen=True):
    """The whole configuration; each field of a field is a key."""

    dev: bool = False
    http_server: HttpServer = field(default_factory=HttpServer)
    http_api: HttpApi = field(default_factory=HttpApi)
    admin: AdminPage = field(default_factory=AdminPage)
    websocket: WebSocket = field(default_factory=WebSocket)
    client: Client = field(default_factory=Client)
    channel: Channel = field(default_factory=Channel)
    rpc: Rpc = field(default_factory=Rpc)
    proxies: list[NamedProxy] = field(default_factory=list)
    engine: Engine = field(default_factory=Engine)
    opentelemetry: OpenTelemetry = field(default_factory=OpenTelemetry)
    shutdown: Shutdown = field(default_factory=Shutdown)
    log: Log = field(default_factory=Log)
