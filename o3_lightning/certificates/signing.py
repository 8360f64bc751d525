"""Signing a statement with Ed25519 in a DSSE envelope, and verifying it with the public key alone.

Source: https://github.com/secure-systems-lab/dsse. A certificate is one JSON file in a canonical form: a
change of any byte is detected, also where base64 or JSON would allow it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from o3_lightning.certificates.statement import PREDICATE, STATEMENT
from o3_lightning.common.errors import InputError
from o3_lightning.common.files import to_json

PAYLOAD_TYPE = "application/vnd.in-toto+json"
NEW_KEY = "openssl genpkey -algorithm ed25519 -out KEY"


def sign_statement(statement: dict[str, Any], key: Path) -> tuple[str, str]:
    """Returns the certificate as the text of a file, and the id of the key.

    Args:
        statement: as from `make_statement`.
        key: PEM file of an Ed25519 private key without a password.

    Raises:
        InputError: the key cannot be read, or is of another kind.
    """
    dsse, signers = library()
    private = read_key(key, "private")
    signer = signers.CryptoSigner(private)
    envelope = dsse.Envelope(to_json(statement).encode(), PAYLOAD_TYPE, {})
    envelope.sign(signer)
    return to_json(envelope.to_dict()) + "\n", str(signer.public_key.keyid)


def verify_certificate(path: Path, key: Path) -> tuple[dict[str, Any], str]:
    """Returns the statement of a certificate and the id of its key, after verifying the signature.

    Args:
        path: the certificate.
        key: PEM file of the signer's public key.

    Raises:
        InputError: a byte of the certificate was changed, another key signed it, or it is no certificate.
    """
    dsse, signers = library()
    public = signers.SSlibKey.from_crypto(read_key(key, "public"))  # its id is a digest of the key
    text = read_bytes(path)
    try:
        content = json.loads(text)
        envelope = dsse.Envelope.from_dict(content)
    except Exception as error:  # JSON, base64 and the library each have errors of their own
        raise InputError(f"damaged, no DSSE envelope: {error}", path=path) from error
    if envelope.payload_type != PAYLOAD_TYPE:
        raise InputError(
            f"expected '{PAYLOAD_TYPE}', got '{envelope.payload_type}'", path=path, field="payloadType"
        )
    if list(envelope.signatures) != [public.keyid]:
        signed = ", ".join(envelope.signatures) or "nobody"
        raise InputError(f"signed by {signed}, the given key is {public.keyid}", path=path, field="keyid")
    try:
        envelope.verify([public], 1)
    except Exception as error:
        message = "payload or signature was changed after signing"
        raise InputError(message, path=path, field="signature") from error
    if (to_json(envelope.to_dict()) + "\n").encode() != text:
        raise InputError("the envelope was changed after signing", path=path)
    statement: dict[str, Any] = json.loads(envelope.payload)
    if statement.get("_type") != STATEMENT or statement.get("predicateType") != PREDICATE:
        raise InputError(f"no certificate: a statement of type {statement.get('predicateType')}", path=path)
    return statement, str(public.keyid)


def library() -> tuple[Any, Any]:
    """Returns the modules of securesystemslib, or says how to install it."""
    try:
        from securesystemslib import dsse, signer
    except ImportError as error:
        raise InputError("certificates need: pip install 'o3-lightning[certificates]'") from error
    return dsse, signer


def read_key(path: Path, half: str) -> Any:
    """Returns an Ed25519 key from a PEM file; half is "private" or "public"."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ed25519

    content = read_bytes(path)
    try:
        if half == "private":
            key: Any = serialization.load_pem_private_key(content, None)
        else:
            key = serialization.load_pem_public_key(content)
    except (ValueError, TypeError) as error:
        raise InputError(f"no PEM file of a {half} key without a password: {error}", path=path) from error
    if not isinstance(key, ed25519.Ed25519PrivateKey | ed25519.Ed25519PublicKey):
        raise InputError(f"expected an Ed25519 key ({NEW_KEY}), got {type(key).__name__}", path=path)
    return key


def read_bytes(path: Path) -> bytes:
    """Returns the content of a file."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror or error}", path=path) from error
