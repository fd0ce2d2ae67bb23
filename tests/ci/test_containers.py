"""Dockerfile.serving and compose.yaml as text: what they promise of users, files and rights (tests/operations runs them)."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml

from tests.conftest import ROOT

LINES = (ROOT / "deploy/Dockerfile.serving").read_text(encoding="utf-8").splitlines()
SERVICES: dict[str, dict[str, Any]] = yaml.safe_load((ROOT / "deploy/compose.yaml").read_text(encoding="utf-8"))["services"]


def test_both_images_have_the_same_base_by_digest() -> None:
    other = (ROOT / "deploy/Dockerfile").read_text(encoding="utf-8").splitlines()
    bases = [[line for line in lines if line.startswith("FROM")] for lines in (LINES, other)]
    assert bases[0] == bases[1] and re.fullmatch(r"FROM \S+:\S+@sha256:[0-9a-f]{64}", bases[0][0])


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


@pytest.mark.parametrize("name", ["api", "app"])
def test_a_service_can_write_nothing_and_has_no_rights(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True and service["user"] == "10001:10001"
    assert service["cap_drop"] == ["ALL"] and service["security_opt"] == ["no-new-privileges:true"]
    assert not service.keys() & {"privileged", "cap_add", "devices", "network_mode", "pid", "ipc"}
    assert [mount["read_only"] for mount in service["volumes"]] == [True, True]
    assert all(mount["bind"] == {"create_host_path": False} for mount in service["volumes"])
    assert [tmpfs.partition(":")[0] for tmpfs in service["tmpfs"]] == ["/tmp"] and "noexec" in service["tmpfs"][0]
    assert all(port.startswith("127.0.0.1:") for port in service["ports"])
    assert service["mem_limit"] and service["pids_limit"] and service["healthcheck"]["test"][0] == "CMD"
    assert service["environment"]["OMP_NUM_THREADS"] == str(service["cpus"])
