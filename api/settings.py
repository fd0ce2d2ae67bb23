"""The settings of the API: environment variables that begin with `SKINLESION_`; docs/serving.md has the table."""

import os
import re
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    IPvAnyNetwork,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from skinlesion.base.errors import PipelineError, brief, reason_of, suggest
from skinlesion.config.schema import Device
from skinlesion.serving.engines import Engine
from skinlesion.serving.predictor import BATCH, ENSEMBLE
from skinlesion.serving.uploads import MAX_BYTES

PREFIX = "SKINLESION_"
LOOPBACK = ("127.0.0.1", "::1", "localhost")


def _split(given: Any) -> Any:
    """A variable's text as the list of its parts; anything else unchanged."""
    return [each.strip() for each in given.split(",") if each.strip()] if isinstance(given, str) else given


def _shaped(pattern: str, hint: str) -> AfterValidator:
    """A validator of texts that match a pattern; `hint` completes the message about one that does not."""

    def check(given: str) -> str:
        if not re.fullmatch(pattern, given):
            raise ValueError(f"{brief(given, 100)} {hint}")
        return given

    return AfterValidator(check)


ORIGIN = _shaped(
    r"https?://([a-z0-9._-]+|\[[0-9a-f:.]+\])(:[0-9]{1,5})?",
    "is not an origin: write scheme, name and port as a browser sends them, in lower case, as https://a.example:8443",
)
HOST = _shaped(
    r"[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]",
    "is not a host name: write it without scheme, port and path, as a.example or [::1]",
)
Several = (NoDecode, BeforeValidator(_split))
Seconds = Annotated[float, Field(gt=0, le=3600)]
Count = Annotated[int, Field(ge=1, le=100_000)]


class Settings(BaseSettings):
    """Every setting, by the name of its variable in lower case without the prefix."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, allow_inf_nan=False, protected_namespaces=())

    root: Path = Field(default=Path(), description="workspace, where `models/` is")
    model: str = Field(default=ENSEMBLE, description="`ensemble`, or a member such as `base-0`")
    engine: Engine = Field(
        default="torch", description="what runs the network; the ONNX engines need the optional stage `export`"
    )
    device: Device = Field(default="auto", description="device of torch")
    host: str = Field(
        default="127.0.0.1", min_length=1, description="address to listen on; `0.0.0.0`: all addresses of the machine"
    )
    port: int = Field(default=8000, ge=0, le=65535, description="port to listen on; 0 takes a free one, which the log names")

    api_key: SecretStr | None = Field(default=None, description="key that requests must bring, at least 16 characters")
    api_key_file: Path | None = Field(default=None, description="file that holds the key, instead of the variable")
    rate_limit: int = Field(default=300, ge=0, le=1_000_000, description="requests a minute from one client; 0: no limit")
    cors_origins: Annotated[tuple[Annotated[str, ORIGIN], ...], *Several] = Field(
        default=(), description="origins whose pages may call the API, separated by commas"
    )
    hosts: Annotated[tuple[Annotated[str, HOST], ...], *Several] = Field(
        default=(), description="names by which requests may call the server, separated by commas"
    )
    trusted_proxies: Annotated[tuple[IPvAnyNetwork, ...], *Several] = Field(
        default=(), description="addresses and networks whose `X-Forwarded-For` is believed, separated by commas"
    )

    max_files: int = Field(default=16, ge=1, le=1000, description="files a request")
    max_file_bytes: int = Field(default=MAX_BYTES, ge=1, le=MAX_BYTES, description="bytes a file")
    max_requests: Count = Field(default=32, description="requests with images in work; more are answered 503")
    max_queue: Count = Field(default=256, description="images that wait for the network; more are answered 503")
    max_explanations: Count = Field(
        default=4, description="heat maps in work or waiting, drawn one at a time; more are answered 503"
    )
    request_seconds: Seconds = Field(default=30, description="time for a request with images; then 504")

    batch_wait_ms: float = Field(default=4, ge=0, le=1000, description="how long an image waits for others to share its pass")
    max_batch: int = Field(default=32, ge=1, le=BATCH, description="images a pass")

    drain_seconds: float = Field(
        default=1, ge=0, le=600, description="after SIGTERM, how long it still answers without being ready"
    )
    stop_seconds: int = Field(
        default=6, ge=1, le=600, description="after that, how long requests in work may take; the rest is cut off"
    )

    @model_validator(mode="before")
    @classmethod
    def _read_key(cls, given: dict[str, Any]) -> dict[str, Any]:
        """With `api_key_file`, the content of the file is the key."""
        path = given.get("api_key_file")
        if path is None:
            return given
        if given.get("api_key") is not None:
            raise ValueError(f"{PREFIX}API_KEY and {PREFIX}API_KEY_FILE are both set: keep one")
        try:
            return given | {"api_key": Path(path).read_text(encoding="ascii").strip()}
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(f"{PREFIX}API_KEY_FILE: {path} cannot be read ({reason_of(error)}): name a text file") from None

    @field_validator("api_key")
    @classmethod
    def _check_key(cls, given: SecretStr | None) -> SecretStr | None:
        key = "x" * 16 if given is None else given.get_secret_value()
        if len(key) < 16 or not key.isascii() or not key.isprintable() or " " in key:
            raise ValueError("the key needs at least 16 characters, all printable ASCII: make one with `openssl rand -hex 32`")
        return given

    @model_validator(mode="after")
    def _check_queue(self) -> Self:
        if self.max_queue < self.max_files:
            raise ValueError(f"{PREFIX}MAX_QUEUE is below {PREFIX}MAX_FILES, so a full request could never be accepted: raise it")
        return self

    @property
    def local(self) -> bool:
        """Whether it listens to this machine alone."""
        return self.host in LOOPBACK

    @property
    def names(self) -> list[str]:
        """Names by which requests may call the server: `hosts`; by default those of this machine if it is local, else any."""
        return list(self.hosts) or (["localhost", "127.0.0.1", "[::1]"] if self.local else ["*"])


def read_settings() -> Settings:
    """The settings in the environment of this process.

    Raises
    ------
    PipelineError
        A variable that begins with `SKINLESION_` is not a setting, is empty, or has a value that is not allowed. The message
        does not repeat the key.
    """
    known = [PREFIX + name.upper() for name in Settings.model_fields]
    for name, value in os.environ.items():
        if not name.upper().startswith(PREFIX):
            continue
        if name.upper() not in known:
            near = suggest(name, known)
            raise PipelineError(f"environment variable {name} is not a setting of the API{near}; docs/serving.md lists all")
        if not value.strip():
            raise PipelineError(f"environment variable {name} is empty: give it a value, or unset it")
    try:
        return Settings()
    except ValidationError as error:
        raise PipelineError(_describe(error)) from None


def _describe(error: ValidationError) -> str:
    """What is wrong with the first setting that is wrong. Our own messages quote the value where it may be shown."""
    first = error.errors(include_url=False)[0]
    message = first["msg"].removeprefix("Value error, ")
    if not first["loc"]:
        return message
    value = "" if first["type"] == "value_error" else f", not {brief(first['input'])}"
    return f"environment variable {PREFIX}{str(first['loc'][0]).upper()}: {message}{value}; docs/serving.md lists all settings"
