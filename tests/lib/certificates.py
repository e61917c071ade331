"""Certificates for tests: an authority, and files in PEM of what it vouches for."""

import pathlib

import trustme


class Authority:
    """One that clients and brokers are told to trust. Its certificate is `ca` in `folder`."""

    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.made = trustme.CA()
        self.ca = self.folder / "ca.pem"
        self.made.cert_pem.write_to_path(str(self.ca))

    def certify(self, label, *names):
        """The files of a certificate for these names and addresses, and of its private key."""
        issued = self.made.issue_cert(*names)
        certificate, key = self.folder / f"{label}.pem", self.folder / f"{label}.key"
        chain = b"".join(part.bytes() for part in issued.cert_chain_pems)
        # what a broker that looks for changes reads is whole
        for path, content in ((certificate, chain), (key, issued.private_key_pem.bytes())):
            path.with_suffix(".new").write_bytes(content)
            path.with_suffix(".new").replace(path)
        return certificate, key
