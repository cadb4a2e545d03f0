"""The stage's certificates, tried by OpenSSL's own handshake."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from pathlib import Path

import pytest

from infra.certificates import CertificatesProvider, authority, certified_names, issue
from infra.names import Names
from infra.settings import Settings

NAMES = {"postgres": ["postgres", "127.0.0.1"], "pgbouncer": ["pgbouncer", "127.0.0.1"]}


def handshake(tmp_path: Path, trusted: str, certificate: str, key: str, name: str) -> None:
    (tmp_path / "crt").write_text(certificate)
    (tmp_path / "key").write_text(key)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(tmp_path / "crt", tmp_path / "key")
    client = ssl.create_default_context(cadata=trusted)
    near, far = socket.socketpair()

    def serve() -> None:
        try:
            server.wrap_socket(far, server_side=True).close()
        except OSError:
            far.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        client.wrap_socket(near, server_hostname=name).close()
    finally:
        near.close()
        thread.join()


@pytest.mark.parametrize("name", ["postgres", "127.0.0.1"])
def test_a_client_that_trusts_the_authority_verifies_the_name(tmp_path: Path, name: str) -> None:
    trusted, signer = authority("staging")
    certificate, key, _ = issue(trusted, signer, NAMES["postgres"])
    handshake(tmp_path, trusted, certificate, key, name)


def test_another_name_or_another_authority_is_refused(tmp_path: Path) -> None:
    trusted, signer = authority("staging")
    certificate, key, _ = issue(trusted, signer, NAMES["postgres"])
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(tmp_path, trusted, certificate, key, "pgbouncer")
    other, _ = authority("staging")
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(tmp_path, other, certificate, key, "postgres")


def test_they_stay_until_they_are_due_and_keep_their_authority() -> None:
    provider = CertificatesProvider()
    inputs = {"stage": "staging", "names": NAMES, "version": "1"}
    made = provider.create(inputs).outs
    assert made is not None
    assert not provider.diff("id", made, inputs).changes
    assert provider.diff("id", {**made, "renew": time.time() - 1}, inputs).changes
    assert provider.diff("id", made, {**inputs, "version": "2"}).changes
    renewed = provider.update("id", {**made, "renew": time.time() - 1}, inputs).outs
    assert renewed is not None
    assert renewed["authority"] == made["authority"]
    assert renewed["servers"]["postgres"] != made["servers"]["postgres"]


def test_the_pooler_is_certified_by_the_name_that_the_connection_has_for_it(tmp_path: Path) -> None:
    settings = Settings.model_validate({"source": "a.db", "connectionHost": "db.example.org"})
    names = certified_names(settings, Names("radcase", "dev"))
    certificate, key = authority("dev")
    issued, issued_key, _ = issue(certificate, key, names["pgbouncer"])
    handshake(tmp_path, certificate, issued, issued_key, "db.example.org")
    handshake(tmp_path, certificate, issued, issued_key, settings.bind_address)
