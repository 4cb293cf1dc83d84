"""What certificates are checked with: botocore's choice, and a wrong one said at once."""

from __future__ import annotations

from pathlib import Path

import boto3
import pytest
import trustme
from botocore.httpsession import get_cert_path

from osml_tasks.aws.certificates import ca_context, ca_file
from osml_tasks.errors import ExtensionConfigurationError


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    path = tmp_path / "ca.pem"
    trustme.CA().cert_pem.write_to_path(str(path))
    return path


def test_without_any_choice_it_is_what_botocore_brings() -> None:
    assert ca_file(boto3.Session()) == Path(str(get_cert_path(True)))
    assert ca_context(boto3.Session()).cert_store_stats()["x509_ca"] > 50


@pytest.mark.parametrize("name", ["AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE"])
def test_a_variable_names_it(monkeypatch: pytest.MonkeyPatch, bundle: Path, name: str) -> None:
    monkeypatch.setenv(name, str(bundle))
    assert ca_file(boto3.Session()) == bundle
    assert ca_context(boto3.Session()).cert_store_stats()["x509_ca"] == 1


def test_a_profile_names_it(tmp_path: Path, bundle: Path) -> None:
    (tmp_path / "config").write_text(f"[profile private]\nca_bundle = {bundle}\n")
    assert ca_file(boto3.Session(profile_name="private")) == bundle


@pytest.mark.parametrize(
    ("content", "complaint"),
    [(None, "No such file or directory"), (b"", "no certificates"), (b"\x30\x82 not PEM", "no certificates")],
)
def test_one_that_cannot_be_used_is_said_with_the_variable(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: bytes | None, complaint: str
) -> None:
    path = tmp_path / "wrong.pem"
    if content is not None:
        path.write_bytes(content)
    monkeypatch.setenv("AWS_CA_BUNDLE", str(path))
    with pytest.raises(ExtensionConfigurationError, match=rf"^AWS_CA_BUNDLE is '.*wrong\.pem': .*{complaint}"):
        ca_file(boto3.Session())


@pytest.mark.parametrize("name", ["AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE"])
def test_an_empty_one_is_said_too_for_botocore_refuses_it(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, " ")
    with pytest.raises(ExtensionConfigurationError, match=f"^{name} is empty: unset it"):
        ca_file(boto3.Session())
