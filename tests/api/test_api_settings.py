"""The settings of the API: read from the environment, refused by name, and documented."""

from pathlib import Path

import pytest

from api.settings import PREFIX, Settings, read_settings
from skinlesion.base.errors import PipelineError
from tests.conftest import ROOT

KEY = "0123456789abcdef"


def test_settings_come_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key = tmp_path / "key"
    key.write_text(KEY + "\n", encoding="utf-8")
    environment = {"PORT": "9000", "API_KEY_FILE": str(key), "BATCH_WAIT_MS": "2.5", "TRUSTED_PROXIES": "10.0.0.0/8, ::1"}
    for name, value in (environment | {"CORS_ORIGINS": "https://a.example:8443, http://[::1]:80"}).items():
        monkeypatch.setenv(f"SKINLESION_{name}", value)
    settings = read_settings()
    assert settings.cors_origins == ("https://a.example:8443", "http://[::1]:80")
    assert [str(each) for each in settings.trusted_proxies] == ["10.0.0.0/8", "::1/128"]
    assert (settings.port, settings.batch_wait_ms, settings.host) == (9000, 2.5, "127.0.0.1")
    assert settings.api_key is not None and settings.api_key.get_secret_value() == KEY


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"PORTS": "1"}, "SKINLESION_PORTS is not a setting of the API; did you mean 'SKINLESION_PORT'"),
        ({"PORT": "eighty"}, "SKINLESION_PORT: Input should be a valid integer.*not 'eighty'"),
        ({"ENGINE": "onnx-int4"}, "SKINLESION_ENGINE: Input should be 'torch', 'onnx' or 'onnx-int8'"),
        ({"API_KEY": ""}, "SKINLESION_API_KEY is empty"),
        ({"API_KEY": "short"}, "16 characters"),
        ({"API_KEY": KEY, "API_KEY_FILE": "key"}, "both set"),
        ({"API_KEY_FILE": "nowhere"}, "nowhere cannot be read"),
        ({"MAX_QUEUE": "3"}, "MAX_QUEUE is below"),
        ({"MAX_FILE_BYTES": "10000001"}, "less than or equal to 10000000"),
        ({"MAX_BODY_BYTES": "9999999"}, "SKINLESION_MAX_BODY_BYTES is not a setting"),
        ({"TRUSTED_PROXIES": "10.0.0.1, proxy"}, "SKINLESION_TRUSTED_PROXIES: .*not a valid IPv4 or IPv6 network, not 'proxy'"),
        ({"TRUSTED_PROXIES": "10.0.0.1/8"}, "not a valid IPv4 or IPv6 network"),
        ({"CORS_ORIGINS": "https://a.example/"}, "SKINLESION_CORS_ORIGINS: 'https://a.example/' is not an origin"),
        ({"CORS_ORIGINS": "a.example"}, "is not an origin"),
        ({"CORS_ORIGINS": "https://a.example, *"}, "is not an origin"),
        ({"HOSTS": "a.example:80"}, "SKINLESION_HOSTS: 'a.example:80' is not a host name"),
        ({"DRAIN_SECONDS": "nan"}, "finite"),
    ],
)
def test_a_forbidden_setting_stops_the_start(environment: dict[str, str], message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(f"SKINLESION_{name}", value)
    with pytest.raises(PipelineError, match=message) as raised:
        read_settings()
    assert "short" not in str(raised.value) and KEY not in str(raised.value)


@pytest.mark.structure
def test_the_documentation_has_every_setting_as_it_is() -> None:
    table = [
        f"| `{PREFIX}{name.upper()}` | {'' if field.default in (None, ()) else f'`{field.default}`'} | {field.description} |"
        for name, field in Settings.model_fields.items()
    ]
    text = (ROOT / "docs" / "serving.md").read_text(encoding="utf-8").splitlines()
    assert [line for line in text if line.startswith(f"| `{PREFIX}")] == table
