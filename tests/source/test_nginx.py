"""A web server as people run it, behind a proxy that breaks connections."""

import shutil
import socket
import subprocess

import pytest

import streampipe as sp
from streampipe.source import Network, Source
from streampipe.testing import ChaosProxy, LimitData, ResetPeer, Slicer, Timeout
from tests.source.conftest import DATA, bounded, until, whole

NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
pytestmark = pytest.mark.skipif(NGINX is None, reason="nginx is not installed (apt-get install nginx-light)")

SETTINGS = """
daemon off; master_process off; pid {folder}/pid; error_log {folder}/errors.log;
events {{ worker_connections 64; }}
http {{
  access_log off; keepalive_timeout 1s; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  server {{
    listen 127.0.0.1:{port}; root {folder}/data; types {{ }} default_type application/x-tar;
    location /gzip/ {{ alias {folder}/data/; gzip on; gzip_types *; gzip_min_length 1; gzip_proxied any; }}
    location /noranges/ {{ alias {folder}/data/; max_ranges 0; }}
    location /busy/ {{ return 503; }}
  }}
}}
"""


@pytest.fixture(scope="module")
def nginx(tmp_path_factory):
    folder = tmp_path_factory.mktemp("nginx")
    (folder / "data").mkdir()
    (folder / "data" / "a.tar").write_bytes(DATA)
    (folder / "data" / "empty.tar").write_bytes(b"")
    folder.chmod(0o755)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = folder / "nginx.conf"
    settings.write_text(SETTINGS.format(folder=folder, port=port))
    process = subprocess.Popen([NGINX, "-c", settings, "-p", folder, "-e", folder / "errors.log"])

    def answers():
        assert process.poll() is None, (folder / "errors.log").read_text()
        with socket.socket() as sock:
            return sock.connect_ex(("127.0.0.1", port)) == 0

    try:
        until(answers)
        yield port, folder / "data"
    finally:
        process.terminate()
        process.wait(10)


@pytest.fixture
def url(nginx):
    return f"http://127.0.0.1:{nginx[0]}/a.tar"


def test_it_is_read_in_windows_and_ranges(url, source):
    assert whole(source, url) == DATA
    assert source.read(url, 10, 20) == DATA[10:20]
    assert whole(source, url.replace("a.tar", "empty.tar")) == b""
    with pytest.raises(sp.ShardMissing):
        whole(source, url.replace("a.tar", "none.tar"))


def test_it_does_not_compress_for_us(url, source):
    assert whole(source, url.replace("/a.tar", "/gzip/a.tar")) == DATA


def test_without_ranges_it_is_read_as_a_stream(url, source):
    assert whole(source, url.replace("/a.tar", "/noranges/a.tar")) == DATA


def test_its_503_is_tried_again_and_given_up(url, source):
    with pytest.raises(sp.SourceUnavailable, match="HTTP 503"):
        bounded(whole, source, url.replace("/a.tar", "/busy/a.tar"))


def test_broken_and_stalled_connections_are_resumed(nginx, source):
    with ChaosProxy(nginx[0]) as proxy:
        toxics = [ResetPeer(1000), LimitData(60_000), Timeout(30_000), ResetPeer(0), Slicer(7_000), LimitData(200)]
        for _ in range(3):
            proxy.next(*toxics)
            assert bounded(whole, source, proxy.url("a.tar")) == DATA
            toxics.append(toxics.pop(0))


def test_a_file_replaced_while_it_is_read_is_never_mixed(nginx, url):
    path = nginx[1] / "b.tar"
    path.write_bytes(DATA)
    chunks = Source(network=Network(window=128 << 10, memory=1)).chunks(url.replace("a.tar", "b.tar"))
    got = [next(chunks)]
    path.with_suffix(".new").write_bytes(DATA[::-1] + b"x")
    path.with_suffix(".new").replace(path)
    with pytest.raises(sp.ShardChanged):
        for chunk in chunks:
            got.append(chunk)
    assert DATA.startswith(b"".join(got))
