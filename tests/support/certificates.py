"""Certificates that nobody signed but themselves."""

import ssl
from pathlib import Path

from tests.support import program, ran

#: The file's name.
CERTIFICATE = "certificate.pem"


def write_certificate(folder: Path, *hosts: str) -> Path:
    """A file with a certificate for *hosts*, names or IPv4 addresses, and its key."""
    path, key = folder / CERTIFICATE, folder / "key.pem"
    kinds = ["IP" if host.replace(".", "").isdecimal() else "DNS" for host in hosts]
    names = ",".join(f"{kind}:{host}" for kind, host in zip(kinds, hosts, strict=True))
    ran(
        *(program("openssl", "openssl"), "req", "-x509", "-days", "2", "-nodes"),
        *("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-subj", f"/CN={hosts[0]}"),
        *("-addext", f"subjectAltName={names}", "-keyout", key, "-out", path),
    )
    path.write_bytes(path.read_bytes() + key.read_bytes())
    return path


def make_certificate(folder: Path, *hosts: str) -> ssl.SSLContext:
    """A server's TLS context with a self-signed certificate for *hosts*."""
    file = write_certificate(folder, *hosts)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    return context
