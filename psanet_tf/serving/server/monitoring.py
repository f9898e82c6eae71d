"""What is known of the requests: metrics for Prometheus, and the access log."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Iterator, Sequence

from psanet_tf.extras import needs_extra
from psanet_tf.runtimes.errors import ServingError

with needs_extra("serving", "the model server"):
    import prometheus_client
    from aiohttp.http_exceptions import HttpProcessingError
    from prometheus_client.core import GaugeMetricFamily

access_logger = logging.getLogger("psanet_tf.serving.access")
http_logger = logging.getLogger("psanet_tf.serving.http")

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)


def _senders_errors_in_a_line(record):
    """What is no HTTP is its sender's fault, which no traceback explains."""
    error = record.exc_info[1] if record.exc_info else None
    if isinstance(error, HttpProcessingError):
        record.msg, record.args = "%s: %s", (record.getMessage(), " ".join(str(error).split())[:200])
        record.exc_info, record.levelno, record.levelname = None, logging.INFO, "INFO"
    return True


http_logger.addFilter(_senders_errors_in_a_line)


class Monitoring:
    """Counts and times requests. One per server.

    Args:
        queue_length: tells how many requests wait.
        versions: tells which versions take requests.
    """

    def __init__(self, queue_length: Callable[[], int], versions: Callable[[], Sequence[int]]) -> None:
        self._registry = prometheus_client.CollectorRegistry()
        self._requests = prometheus_client.Counter(
            "psanet_serving_requests",
            "Requests, by what their senders got: OK or the code of an error.",
            ["protocol", "method", "code"],
            registry=self._registry,
        )
        self._seconds = prometheus_client.Histogram(
            "psanet_serving_request_seconds",
            "Time from a request's head to its answer.",
            ["protocol", "method"],
            buckets=_SECONDS,
            registry=self._registry,
        )
        length = prometheus_client.Gauge(
            "psanet_serving_queue_length", "Requests that wait for the model.", registry=self._registry
        )
        length.set_function(queue_length)
        self._registry.register(_Versions(versions))

    @contextlib.contextmanager
    def request(self, protocol: str, method: str, peer: str | None) -> Iterator[None]:
        """Watches the block that answers one request; exceptions go on.

        Args:
            protocol: "REST" or "gRPC".
            method: what is asked for, one of few.
            peer: the sender's address.
        """
        start, code = time.monotonic(), "OK"
        try:
            yield
        except ServingError as error:
            code = error.code
            raise
        except (asyncio.CancelledError, ConnectionError):
            code = "CANCELLED"  # the sender has hung up
            raise
        except BaseException:
            code = "INTERNAL"
            raise
        finally:
            seconds = time.monotonic() - start
            self._requests.labels(protocol, method, code).inc()
            self._seconds.labels(protocol, method).observe(seconds)
            access_logger.info("%s %s %s %s %.1f ms", peer or "-", protocol, method, code, 1000 * seconds)

    def exposition(self) -> bytes:
        """All metrics, as Prometheus reads them."""
        return prometheus_client.generate_latest(self._registry)


class _Versions:
    """A metric whose labels are the versions of the moment."""

    def __init__(self, versions):
        self._versions = versions

    def collect(self):
        family = GaugeMetricFamily(
            "psanet_serving_version_available", "1 for each version that takes requests.", labels=["version"]
        )
        for version in self._versions():
            family.add_metric([str(version)], 1)
        yield family
