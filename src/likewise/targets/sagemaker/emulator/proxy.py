"""An HTTPS proxy that keeps requests to AWS's own addresses in the rehearsal, and passes all others on unread.

SageMaker's SDK (version 2) calls STS at AWS's address, which takes precedence over AWS_ENDPOINT_URL.
"""

from __future__ import annotations

import base64
import select
import socket
import ssl
import urllib.request
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import unquote, urlsplit

from botocore.httpsession import DEFAULT_CA_BUNDLE
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

AWS_DOMAINS = (".amazonaws.com", ".amazonaws.com.cn")
CONNECT_S = 30.0
_USES = ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "encipher_only")


def tls_context(folder: Path, region: str) -> tuple[ssl.SSLContext, Path]:
    """TLS for AWS's addresses in a region, and a file of certificates with which clients trust it besides real ones.

    folder: where the file is written; private, because the key is there for a moment.
    """
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "likewise rehearsal")])
    prefixes = ("", f"{region}.", *(f"{service}.{region}." for service in ("s3", "sagemaker", "ecr")))
    hosts = [x509.DNSName(f"*.{prefix}{domain[1:]}") for prefix in prefixes for domain in AWS_DOMAINS]
    usage = x509.KeyUsage(
        digital_signature=True, key_cert_sign=True, crl_sign=True, decipher_only=False, **dict.fromkeys(_USES, False)
    )
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=30))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.SubjectAlternativeName(hosts), critical=False)
        .sign(key, SHA256())
        .public_bytes(Encoding.PEM)
    )
    pair, trusted = folder / "pair.pem", folder / "trusted.pem"
    pair.write_bytes(certificate + key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair)
    pair.unlink()
    trusted.write_bytes(Path(DEFAULT_CA_BUNDLE).read_bytes() + certificate)
    return context, trusted


def tunnel(client: socket.socket, address: str) -> None:
    """Connect `client` with HOST:PORT, by the user's own proxy if there is one, until one side ends.

    Raises OSError, before anything is sent to the client, if there is no connection.
    """
    host, _, port = address.rpartition(":")
    proxy = urllib.request.getproxies().get("https")
    if proxy and not urllib.request.proxy_bypass(host):
        parts = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
        login = base64.b64encode(f"{unquote(parts.username or '')}:{unquote(parts.password or '')}".encode()).decode()
        headers = f"Host: {address}\r\n" + (f"Proxy-Authorization: Basic {login}\r\n" if parts.username else "")
        server = socket.create_connection((str(parts.hostname), parts.port or 80), CONNECT_S)
        server.sendall(f"CONNECT {address} HTTP/1.1\r\n{headers}\r\n".encode())  # its response goes to the client
    else:
        server = socket.create_connection((host.strip("[]"), int(port)), CONNECT_S)
        client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
    other = {client: server, server: client}
    with server:
        while True:
            for readable in select.select(list(other), [], [])[0]:
                if not (data := readable.recv(65536)):
                    return
                other[readable].sendall(data)
