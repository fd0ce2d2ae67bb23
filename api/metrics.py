"""What the API counts for Prometheus. Labels have a few fixed values: a client cannot add one."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, disable_created_metrics

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
IMAGES = (1, 2, 4, 8, 16, 32, 64)


class Metrics:
    """The counters of one application, in a registry of its own.

    in_work, queued : count requests in work and images that wait for the network. ready : whether requests are accepted.
    """

    def __init__(self, *, in_work: Callable[[], int], queued: Callable[[], int], ready: Callable[[], bool]) -> None:
        disable_created_metrics()  # a second series for each counter, with the time of its first value
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self.requests = Counter("skinlesion_requests", "Requests that were answered", ["route", "status"], registry=registry)
        self.seconds = Histogram(
            "skinlesion_request_seconds",
            "From the headers to the end of the answer",
            ["route"],
            buckets=SECONDS,
            registry=registry,
        )
        self.refused = Counter("skinlesion_refused_files", "Files that were refused", ["reason"], registry=registry)
        self.batch_images = Histogram(
            "skinlesion_batch_images", "Images in a pass of the network", buckets=IMAGES, registry=registry
        )
        self.network_seconds = Histogram(
            "skinlesion_network_seconds", "Passes of the network", buckets=SECONDS, registry=registry
        )
        self.map_seconds = Histogram("skinlesion_explanation_seconds", "Heat maps", buckets=SECONDS, registry=registry)
        Gauge(
            "skinlesion_requests_in_work", "Requests with images in work, and images left in work", registry=registry
        ).set_function(in_work)
        Gauge("skinlesion_queued_images", "Images that wait for the network", registry=registry).set_function(queued)
        Gauge("skinlesion_ready", "1 while requests are accepted, as /ready says", registry=registry).set_function(ready)
