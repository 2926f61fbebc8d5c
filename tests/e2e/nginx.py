"""The configuration that every nginx of the cluster has in common."""

from __future__ import annotations

from pathlib import Path

_FRAME = """
daemon off;
user root;
worker_processes 1;
pid {directory}/nginx.pid;
error_log stderr warn;
events {{ worker_connections 512; }}
http {{
  access_log off;
  client_body_temp_path {directory}/body;
  proxy_temp_path {directory}/proxy;
  fastcgi_temp_path {directory}/fastcgi;
  uwsgi_temp_path {directory}/uwsgi;
  scgi_temp_path {directory}/scgi;
{servers}
}}
"""


def write_configuration(directory: Path, servers: str) -> Path:
    """Write the configuration of an nginx with these ``server`` blocks, all in ``directory``; return the file."""
    file = directory / "nginx.conf"
    file.write_text(_FRAME.format(directory=directory, servers=servers.strip("\n")), encoding="ascii")
    return file
