"""An S3 service in its own process, which delays its answers and counts requests."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

KEY = "testing"


class Service:
    """The parent's end: address and request count of the service."""

    def __init__(self, child: subprocess.Popen[str]) -> None:
        self._child = child
        told = json.loads(self._line())
        self.bucket = str(told["bucket"])
        self.environment = {
            "FSSPEC_S3_ENDPOINT_URL": told["endpoint"],
            "FSSPEC_S3_KEY": KEY,
            "FSSPEC_S3_SECRET": KEY,
            "AWS_DEFAULT_REGION": "us-east-1",
        }

    def _line(self) -> str:
        assert self._child.stdout is not None
        return self._child.stdout.readline()

    def requests(self) -> int:
        """Return the number of requests since the last call."""
        assert self._child.stdin is not None
        self._child.stdin.write("\n")
        self._child.stdin.flush()
        return int(self._line())


@contextmanager
def slow_service(latency: float) -> Iterator[Service]:
    """Run the service of the tests behind a proxy that delays each request by ``latency`` seconds."""
    command = [sys.executable, __file__, str(latency)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        try:
            yield Service(child)
        finally:
            child.kill()


def main() -> None:
    """Run the service until stdin ends."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    warnings.simplefilter("ignore")  # DataJoint has no settings here
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # a line for each request
    from faulty import Fault, faulty_proxy
    from services import s3_service

    with s3_service() as service, faulty_proxy(service.endpoint) as proxy:
        proxy.faults.append(Fault("slow", "", seconds=float(sys.argv[1])))
        print(json.dumps({"endpoint": proxy.endpoint, "bucket": service.new_bucket()}), flush=True)
        for _ in sys.stdin:
            print(len(proxy.requests), flush=True)
            proxy.requests.clear()


if __name__ == "__main__":
    main()
