"""Dockerfile.serving and compose.yaml as text: users, files, rights and networks (tests/operations runs them)."""

import re
from typing import Any

import pytest
import yaml

from tests.conftest import ROOT

pytestmark = pytest.mark.structure

LINES = (ROOT / "deploy/Dockerfile.serving").read_text(encoding="utf-8").splitlines()
SERVICES: dict[str, dict[str, Any]] = yaml.safe_load((ROOT / "deploy/compose.yaml").read_text(encoding="utf-8"))["services"]


def test_both_images_have_the_same_base_by_digest() -> None:
    other = (ROOT / "deploy/Dockerfile").read_text(encoding="utf-8").splitlines()
    bases = [[line for line in lines if line.startswith("FROM")] for lines in (LINES, other)]
    assert bases[0] == bases[1] != [] and all(re.fullmatch(r"FROM \S+:\S+@sha256:[0-9a-f]{64}", base) for base in bases[0])


def test_the_image_takes_the_code_and_what_the_hashes_name() -> None:
    text = "\n".join(LINES)
    copied = {name for line in LINES if line.startswith("COPY") for name in line.split()[1:-1]}
    ignored = (ROOT / "deploy/Dockerfile.serving.dockerignore").read_text(encoding="utf-8").splitlines()
    admitted = {line[1:] for line in ignored if line.startswith("!")}
    assert copied == admitted and all((ROOT / name).exists() for name in copied)
    assert [line for line in ignored if line and line[0] not in "#!"] == ["*", "**/__pycache__"]
    assert text.count("pip install") == text.count("--require-hashes") == 1
    assert "-r requirements/pipeline.lock -r requirements/app.lock" in text
    assert LINES[-2] == "USER 10001:10001"


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_can_write_nothing_and_has_no_rights(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True and service["user"] == "10001:10001"
    assert service["cap_drop"] == ["ALL"] and service["security_opt"] == ["no-new-privileges:true"]
    assert not service.keys() & {"privileged", "cap_add", "devices", "network_mode", "pid", "ipc"}
    assert all(mount["read_only"] for mount in service["volumes"])
    assert all(mount["bind"] == {"create_host_path": False} for mount in service["volumes"])
    assert [tmpfs.partition(":")[0] for tmpfs in service["tmpfs"]] == ["/tmp"] and "noexec" in service["tmpfs"][0]
    assert service["mem_limit"] and service["pids_limit"] and service["healthcheck"]["test"][0] == "CMD"
    assert service["cpus"] and service.get("environment", {}).get("OMP_NUM_THREADS", str(service["cpus"])) == str(service["cpus"])


def test_the_proxy_alone_is_reached_from_outside_and_it_alone_reaches_the_services() -> None:
    compose = yaml.safe_load((ROOT / "deploy/compose.yaml").read_text(encoding="utf-8"))
    proxy = SERVICES["proxy"]
    assert [name for name, service in SERVICES.items() if "ports" in service] == ["proxy"]
    assert proxy["ports"] == ["127.0.0.1:8000:8080", "127.0.0.1:8501:8501"]  # where deploy/proxy/nginx.conf listens
    for name in ("api", "app"):
        assert SERVICES[name]["networks"] == [name] and compose["networks"][name] == {"internal": True}
        assert [other for other, service in SERVICES.items() if name in service["networks"]] == ["proxy", name]
    assert re.fullmatch(r"nginx:[0-9.]+-alpine@sha256:[0-9a-f]{64}", proxy["image"])
    (mount,) = proxy["volumes"]
    assert (mount["source"], mount["target"]) == ("./proxy/nginx.conf", "/etc/nginx/nginx.conf")
