"""`o3-lightning verify-certificate`: verifies a certificate without the store."""

import sys
from pathlib import Path

from o3_lightning.commands import COMMANDS
from o3_lightning.common.program import LightParser


def main(arguments: list[str]) -> None:
    """Prints the verdicts of a certificate, and writes its page if one is asked for.

    Raises:
        InputError: a byte was changed, another key signed it, or a file cannot be read.
    """
    parser = LightParser("verify-certificate", COMMANDS["verify-certificate"])
    parser.add_argument("file", type=Path, help="the certificate")
    parser.add_argument("--key", type=Path, required=True, help="PEM file of the signer's public key")
    parser.add_argument("--page", type=Path, help="HTML file to write, for people")
    options = parser.parse_args(arguments)
    from o3_lightning.certificates.page import as_lines, as_page
    from o3_lightning.certificates.signing import verify_certificate
    from o3_lightning.common.files import write_atomically

    statement, key_id = verify_certificate(options.file, options.key)
    if options.page:
        write_atomically(options.page, as_page(statement, key_id))
    sys.stdout.write("\n".join([f"{options.file}: signed by key {key_id}", *as_lines(statement)]) + "\n")
