"""Read all Pods once, as a list or as a watch from its begin, and print the most memory that it took, in MB.

    .venv/bin/python -m bench.reading list|watch PODS PORT ACCOUNT_DIRECTORY

``bench.discovery`` runs it as a process of its own, against the sandbox's API server.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from bench.processes import most_rss_megabytes
from checks.kube.client import KubeApi
from checks.kube.credentials import ServiceAccount
from sandbox.objects import NAMESPACE

PATH = f"/api/v1/namespaces/{NAMESPACE}/pods"


def main() -> None:
    """Read and print."""
    verb, pods, port, directory = sys.argv[1:]
    api = KubeApi(ServiceAccount("127.0.0.1", int(port), Path(directory)))
    count = 0
    if verb == "list":
        for page in api.list_pages(PATH, {}):
            count += sum(1 for _ in page.items)
    else:
        with api.watch(PATH, {}, "") as events:
            while count < int(pods) and next(events, None):
                count += 1
    print(f"{count} Pods, most RSS {most_rss_megabytes(os.getpid()):.1f} MB")


if __name__ == "__main__":
    main()
