"""Which proxy answers which method of ``rpc``: ``chat:history`` is of the namespace ``chat``."""

from __future__ import annotations

from gateway.codes import METHOD_NOT_FOUND, Refused
from gateway.config import Rpc, RpcOptions


class MethodRules:
    """Namespaces of methods, from the configuration."""

    def __init__(self, rpc: Rpc) -> None:
        self._boundary = rpc.namespace_boundary if rpc.namespaces else ""
        self._without: RpcOptions = rpc.without_namespace
        self._options: dict[str, RpcOptions] = {each.name: each for each in rpc.namespaces}

    def proxy(self, method: str) -> str:
        """The name of the proxy. Raises `Refused` (104) where none is to be asked."""
        options: RpcOptions | None = self._without
        if self._boundary and self._boundary in method:
            options = self._options.get(method.partition(self._boundary)[0])
        if options is None or not options.proxy_enabled:
            raise Refused(METHOD_NOT_FOUND)
        return options.proxy_name
