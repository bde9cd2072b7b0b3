"""Pushpin with its built-in test backend, which puts every client into the channel `test`.

It is published to through ZeroMQ, its fastest way in, on a port of its own.
"""

import os
from pathlib import Path
from tempfile import mkdtemp

from bench.dialects import port_beside
from bench.peers._run import HOST, parse

_CONFIG = """
[global]
include=/usr/lib/pushpin/internal.conf
rundir={folder}
ipc_prefix=bench-
port_offset=0
stats_connection_ttl=120
[runner]
services=condure,pushpin-proxy,pushpin-handler
http_port={host}:{port}
logdir={folder}
log_level=1
client_buffer_size=8192
client_maxconn=19000
condure_bin=condure
zurl_bin=zurl
[proxy]
routesfile={folder}/routes
debug=false
updates_check=off
log_from=false
log_user_agent=false
sig_iss=pushpin
sig_key=bench
message_rate_limit=0
[handler]
push_in_spec=tcp://{host}:{push}
push_in_http_addr={host}
push_in_http_port={control}
ipc_file_mode=777
message_rate=1000000
message_hwm=1000000
stats_report_interval=0
"""

if __name__ == "__main__":
    options = parse()
    folder = Path(mkdtemp(prefix="bench-"))
    config = folder / "pushpin.conf"
    (folder / "routes").write_text("* test\n")
    port, push, control = (port_beside(options.port, index) for index in range(3))
    ports = {"port": port, "push": push, "control": control}
    config.write_text(_CONFIG.format(folder=folder, host=HOST, **ports))
    os.execvp("pushpin", ["pushpin", "--config", str(config), "--merge-output"])
