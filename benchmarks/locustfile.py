"""What one of Locust's users does: it posts one JPEG after the other to /predict, over a connection that it keeps.

The folder of the JPEGs is in the variable IMAGES. `benchmarks.serving` starts Locust in a process of its own, because it replaces
parts of Python's standard library when it is imported.
"""

import itertools
import os
from pathlib import Path

from locust import FastHttpUser, task
from urllib3 import encode_multipart_formdata

JPEGS = sorted(Path(os.environ["IMAGES"]).iterdir())
FORMS = [encode_multipart_formdata({"files": ("a.jpg", path.read_bytes())}) for path in JPEGS]
FIRST = itertools.count()


class Client(FastHttpUser):
    """The next request follows the answer to the last one at once; each client begins at another JPEG."""

    def on_start(self) -> None:
        self.position = next(FIRST)

    @task
    def predict(self) -> None:
        body, content_type = FORMS[self.position % len(FORMS)]
        self.position += 1
        # Bytes are sent as they are, which Locust's types do not say.
        self.client.post("/predict", data=body, headers={"Content-Type": content_type})  # type: ignore[arg-type]
