"""The nginx configuration from deploy/, written to a folder and adapted to run there.

Addresses, paths and directives that an older nginx (Debian ships 1.22) lacks are adapted. Nothing else changes, except
what a test lists in `changes`."""

import os
import re
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from everstream.settings import PROJECT_ROOT

DEPLOY = PROJECT_ROOT / "deploy"
HTTP2_DIRECTIVE_SINCE = (1, 25, 1)
RESOLVE_SINCE = (1, 27, 3)


@dataclass(frozen=True)
class Layout:
    """With `tls_port` None there is no TLS server. `changes` maps further texts to replacements; each must occur."""

    folder: Path
    port: int
    upstream: str
    tls_port: int | None = None
    changes: dict[str, str] = field(default_factory=dict)

    def write(self) -> Path:
        """Write the files and return the path of the main one."""
        names = {"nginx.conf": "nginx.conf", "everstream-locations.conf": "everstream-locations.conf"}
        if self.tls_port:
            make_certificate(self.folder)
            names["nginx-tls.conf"] = "tls/everstream.conf"
        shipped = {path: (DEPLOY / name).read_text() for name, path in names.items()}
        for old in self.changes:
            assert any(old in text for text in shipped.values()), old
        (self.folder / "tls").mkdir(exist_ok=True)
        for path, text in shipped.items():
            (self.folder / path).write_text(self._adapt(text))
        main = self.folder / "nginx.conf"
        main.write_text(f"daemon off; pid {self.folder}/nginx.pid;\n" + main.read_text())
        return main

    def _adapt(self, text: str) -> str:
        replaced = {
            "server web:8000 resolve": f"server {self.upstream}",
            "listen 80;": f"listen 127.0.0.1:{self.port};",
            "listen 443 ssl;": f"listen 127.0.0.1:{self.tls_port} ssl;",
            "/var/log/nginx": str(self.folder),
            "/etc/nginx/certificates": str(self.folder),
        }
        for old, new in (self.changes | replaced).items():
            text = text.replace(old, new)
        if "http2 on;" in text and version() < HTTP2_DIRECTIVE_SINCE:
            text = text.replace("http2 on;", "").replace(" ssl;", " ssl http2;")
        return text


def nginx_executable():
    """The path of nginx, or None. NGINX_EXECUTABLE overrides the system's nginx."""
    return os.environ.get("NGINX_EXECUTABLE") or shutil.which(
        "nginx", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin"
    )


def version() -> tuple[int, ...]:
    output = subprocess.run([nginx_executable(), "-v"], check=True, capture_output=True, text=True, timeout=30).stderr
    return tuple(int(part) for part in re.search(r"nginx/(\d+)\.(\d+)\.(\d+)", output).groups())


def make_certificate(folder: Path) -> None:
    """A self-signed certificate for 127.0.0.1, with its key."""
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=127.0.0.1"
    files = ["-keyout", str(folder / "privkey.pem"), "-out", str(folder / "fullchain.pem")]
    arguments = [*command.split(), "-addext", "subjectAltName=IP:127.0.0.1", *files]
    subprocess.run(arguments, check=True, capture_output=True, timeout=60)
