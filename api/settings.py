"""How the API is set up: by environment variables that begin with `SKINLESION_`; docs/serving.md has the table."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator, model_validator

from skinlesion.base.errors import PipelineError, brief, reason_of, suggest
from skinlesion.config.schema import Device
from skinlesion.serving.engines import Engine
from skinlesion.serving.predictor import BATCH, ENSEMBLE
from skinlesion.serving.uploads import MAX_BYTES

PREFIX = "SKINLESION_"
SECRETS = ("api_key",)  # whose values no message repeats

ORIGIN = re.compile(
    r"https?://([a-z0-9._-]+|\[[0-9a-f:.]+\])(:[0-9]{1,5})?"
)  # as a browser sends it: in lower case, without a path
HOST = re.compile(r"[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]")
LOOPBACK = ("127.0.0.1", "::1", "localhost")

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Seconds = Annotated[float, Field(gt=0, le=3600)]
Count = Annotated[int, Field(ge=1, le=100_000)]


class Settings(BaseModel):
    """Every setting, the name of its variable in lower case without the prefix."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, protected_namespaces=())

    root: Path = Field(Path(), description="workspace, where `models/` is")
    model: str = Field(ENSEMBLE, description="`ensemble`, or a member as `base-0`")
    engine: Engine = Field("torch", description="what runs the network; the ONNX engines need the optional stage `export`")
    device: Device = Field("auto", description="of torch")
    host: str = Field("127.0.0.1", min_length=1, description="address to listen on; `0.0.0.0`: all of the machine's")
    port: int = Field(8000, ge=0, le=65535, description="to listen on; 0 takes a free one, which the log names")

    api_key: SecretStr | None = Field(None, description="that requests must bring, 16 characters at least")
    api_key_file: Path | None = Field(None, description="file that holds it, in place of the variable")
    rate_limit: int = Field(300, ge=0, le=1_000_000, description="requests a minute from one client; 0: no limit")
    cors_origins: str = Field("", description="origins whose pages may call the API, with commas between")
    hosts: str = Field("", description="names that a request may call the server by, with commas between")
    trusted_proxies: str = Field(
        "", description="addresses and networks whose `X-Forwarded-For` is believed, with commas between"
    )

    max_files: int = Field(16, ge=1, le=1000, description="files a request")
    max_file_bytes: int = Field(MAX_BYTES, ge=1, le=MAX_BYTES, description="bytes a file")
    max_body_bytes: int = Field(32_000_000, ge=1, le=10**10, description="bytes a request")
    max_connections: Count = Field(256, description="connections; more are closed at once")
    max_client_connections: Count = Field(64, description="connections of one client, unless it is a trusted proxy")
    max_requests: Count = Field(32, description="requests with images in work; more are answered 503")
    max_queue: Count = Field(256, description="images that wait for the network; more are answered 503")
    max_explanations: Count = Field(4, description="heat maps in work or waiting, drawn one at a time; more are answered 503")
    head_seconds: Seconds = Field(10, description="for the headers of a request to arrive; then the connection is closed")
    body_seconds: Seconds = Field(20, description="for the body to arrive; then 408")
    request_seconds: Seconds = Field(
        30, description="for a request altogether, then 504; and for a client to read on, then it is cut off"
    )

    batch_wait_ms: float = Field(4, ge=0, le=1000, description="so long an image waits for others to share its pass")
    max_batch: int = Field(32, ge=1, le=BATCH, description="images a pass")

    drain_seconds: float = Field(1, ge=0, le=600, description="after SIGTERM: so long it is not ready, and still answers")
    stop_seconds: int = Field(6, ge=1, le=600, description="then: so long for requests in work; the rest is cut off")

    @field_validator("trusted_proxies")
    @classmethod
    def _check_proxies(cls, given: str) -> str:
        _networks(given)
        return given

    @field_validator("cors_origins")
    @classmethod
    def _check_origins(cls, given: str) -> str:
        for origin in _split(given):
            if not ORIGIN.fullmatch(origin):
                raise ValueError(
                    f"{brief(origin, 100)} is no origin: write scheme, name and port alone, as https://a.example:8443"
                )
        return given

    @field_validator("hosts")
    @classmethod
    def _check_hosts(cls, given: str) -> str:
        for name in _split(given):
            if not HOST.fullmatch(name):
                raise ValueError(f"{brief(name, 100)} is no name: write it without scheme, port and path, as a.example or [::1]")
        return given

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        if self.api_key is not None and self.api_key_file is not None:
            raise ValueError(f"{PREFIX}API_KEY and {PREFIX}API_KEY_FILE are both set: keep one")
        if self.max_queue < self.max_files:
            raise ValueError(
                f"{PREFIX}MAX_QUEUE is below {PREFIX}MAX_FILES, so that no full request could ever be taken: raise it"
            )
        if self.max_body_bytes < self.max_file_bytes:
            raise ValueError(
                f"{PREFIX}MAX_BODY_BYTES is below {PREFIX}MAX_FILE_BYTES, so that no such file could ever be sent: raise it"
            )
        if self.body_seconds > self.request_seconds:
            raise ValueError(
                f"{PREFIX}BODY_SECONDS is above {PREFIX}REQUEST_SECONDS, which ends a request before: lower it, or raise that"
            )
        return self

    @property
    def proxies(self) -> list[Network]:
        """`trusted_proxies` as networks."""
        return _networks(self.trusted_proxies)

    @property
    def origins(self) -> list[str]:
        """`cors_origins` as a list."""
        return _split(self.cors_origins)

    @property
    def names(self) -> list[str]:
        """`hosts` as a list. Where it is empty: the machine's own if it listens to nobody else, or none, and any will do."""
        return _split(self.hosts.lower()) or (["localhost", "127.0.0.1", "[::1]"] if self.local else [])

    @property
    def local(self) -> bool:
        """Whether it listens to this machine alone."""
        return self.host in LOOPBACK


def _networks(text: str) -> list[Network]:
    """Addresses and networks; ValueError where one is neither."""
    found = []
    for each in _split(text):
        try:
            found.append(ipaddress.ip_network(each))
        except ValueError:
            raise ValueError(f"{brief(each, 100)} is no address or network: write it as 10.0.0.1 or 10.0.0.0/8") from None
    return found


def _split(text: str) -> list[str]:
    return [each.strip() for each in text.split(",") if each.strip()]


def read_settings(environment: Mapping[str, str]) -> Settings:
    """The settings that an environment makes; with `api_key_file`, its content is the key.

    Raises
    ------
    PipelineError
        A variable that begins with `SKINLESION_` is no setting, is empty or has a value that cannot be.
    """
    given = {name: value for name, value in environment.items() if name.startswith(PREFIX)}
    known = [PREFIX + name.upper() for name in Settings.model_fields]
    for name, value in given.items():
        if name not in known:
            raise PipelineError(
                f"environment variable {name} is no setting of the API{suggest(name, known)}; docs/serving.md has all"
            )
        if not value.strip():
            raise PipelineError(f"environment variable {name} is empty: give it a value, or unset it")
    try:
        settings = Settings(**{name.removeprefix(PREFIX).lower(): value for name, value in given.items()})
    except ValidationError as error:
        raise PipelineError(_describe(error)) from None
    if settings.api_key_file is not None:
        key = SecretStr(_read_key(settings.api_key_file))
        settings = settings.model_copy(update={"api_key": key, "api_key_file": None})
    if settings.api_key is not None and not _is_key(settings.api_key.get_secret_value()):
        raise PipelineError(
            "the API key must have 16 characters at least, all of them printable ASCII: make one as `openssl rand -hex 32`"
        )
    return settings


def _describe(error: ValidationError) -> str:
    """What is wrong with the first setting that is wrong, without secrets."""
    first = error.errors(include_url=False)[0]
    said = first["msg"].removeprefix("Value error, ")
    if not first["loc"]:
        return said
    name = str(first["loc"][0])
    value = "" if name in SECRETS else f", not {brief(first['input'])}"
    return f"environment variable {PREFIX}{name.upper()}: {said}{value}; docs/serving.md has all settings"


def _read_key(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise PipelineError(f"{PREFIX}API_KEY_FILE: {path} cannot be read ({reason_of(error)}): name a text file") from None


def _is_key(key: str) -> bool:
    return len(key) >= 16 and key.isascii() and key.isprintable() and " " not in key
