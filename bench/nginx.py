"""A local nginx that answers as neighbours, Service, ingress and API server do; needs Debian's package nginx-light."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_CONFIG = """
daemon off; worker_processes 1; pid {directory}/nginx.pid; error_log {directory}/error.log warn;
events {{ worker_connections 1024; }}
http {{
  access_log off; client_body_temp_path {directory}/body; proxy_temp_path {directory}/proxy;
  fastcgi_temp_path {directory}/fastcgi; uwsgi_temp_path {directory}/uwsgi; scgi_temp_path {directory}/scgi;
  # The record types of TLS 1.2 can be told apart in a capture, those of 1.3 cannot.
  ssl_protocols TLSv1.2; ssl_session_cache off; ssl_session_tickets off;
  ssl_certificate {certificate}; ssl_certificate_key {key};
  server {{ {plain} location = /alwayshappy {{ return 200 ""; }} }}
  server {{ {tls}
    location = /alwayshappy {{ return 200 ""; }}
    location = /version {{ default_type application/json; return 200 '{{"major":"1","minor":"31"}}'; }}
    location / {{ proxy_pass {api_server}; proxy_ssl_verify off; proxy_buffering off; proxy_read_timeout 600s; }}
  }}
}}
"""


@contextmanager
def nginx(
    directory: Path, *, plain: list[str], tls: list[str], certificate: Path, key: Path, api_server: str
) -> Iterator[None]:
    """Run nginx on the given ``address:port`` pairs until the block ends."""
    config = directory / "nginx.conf"
    config.write_text(
        _CONFIG.format(
            directory=directory,
            certificate=certificate,
            key=key,
            api_server=api_server,
            plain=" ".join(f"listen {where};" for where in plain),
            tls=" ".join(f"listen {where} ssl;" for where in tls),
        )
    )
    process = subprocess.Popen(["nginx", "-c", str(config), "-p", str(directory), "-e", str(directory / "error.log")])
    try:
        yield
    finally:
        process.terminate()
        process.wait(10)
