"""nginx with nchan: one worker, a channel that keeps the last message only, in memory."""

import os
from pathlib import Path
from tempfile import mkdtemp

from bench.peers._programs import NCHAN_MODULE
from bench.peers._run import BACKLOG, HOST, parse

_CONFIG = """
load_module {module};
daemon off;
master_process off;
worker_processes 1;
worker_rlimit_nofile 20000;
pid {folder}/nginx.pid;
error_log stderr error;
events {{ worker_connections 19900; use epoll; multi_accept on; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    nchan_shared_memory_size 256m;
    server {{
        listen {host}:{port} backlog={backlog};
        location / {{
            nchan_pubsub websocket;
            nchan_channel_id bench;
            nchan_subscriber_first_message newest;
            nchan_message_buffer_length 100;
            nchan_websocket_ping_interval {ping};
        }}
    }}
}}
"""

if __name__ == "__main__":
    options = parse()
    folder = Path(mkdtemp(prefix="bench-"))
    config = folder / "nginx.conf"
    told = {"folder": folder, "host": HOST, "port": options.port, "backlog": BACKLOG}
    config.write_text(_CONFIG.format(module=NCHAN_MODULE, ping=options.ping, **told))
    os.execvp("nginx", ["nginx", "-c", str(config), "-e", "stderr", "-p", str(folder)])
