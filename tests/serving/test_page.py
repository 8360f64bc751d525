"""The inspector page in headless Chromium: narrow and wide, light and dark, by keyboard and with a token."""

import base64
import json
import os
import shutil
import subprocess
from contextlib import contextmanager

import pytest

from tests.serving.conftest import TOKEN
from tests.serving.test_server import FORGOTTEN, REFUSAL

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(not CHROMIUM, reason="needs Chromium")]
OVERFLOW = "document.documentElement.scrollWidth - innerWidth"


class Browser:
    """Chromium behind a pipe of its DevTools protocol: messages of JSON, each ended by a zero byte."""

    def __init__(self, reader, writer):
        self.reader, self.writer, self.number, self.session = reader, writer, 0, None
        self.problems = []
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.send(f"{domain}.enable")

    def send(self, method, **params):
        self.number += 1
        session = {"sessionId": self.session} if self.session else {}
        message = json.dumps({"id": self.number, "method": method, "params": params, **session})
        self.writer.write(message.encode() + b"\0")
        while (found := self.receive()).get("id") != self.number:
            pass
        assert "error" not in found, found
        return found["result"]

    def receive(self):
        found = json.loads(b"".join(iter(lambda: self.reader.read(1), b"\0")))
        method = found.get("method")
        if method == "Runtime.exceptionThrown" or (
            method == "Log.entryAdded" and found["params"]["entry"]["level"] == "error"
        ):
            self.problems.append(found["params"])
        return found

    def evaluate(self, expression):
        found = self.send("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def show(self, url, width, scheme):
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
        self.send("Emulation.setDeviceMetricsOverride", **size)
        self.send("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self.send("Page.navigate", url=url)
        while self.receive().get("method") != "Page.loadEventFired":
            pass

    def ask(self, question, token=""):
        self.evaluate(
            f"at('prompt').value = {json.dumps(question)}; at('token').value = {json.dumps(token)};"
            "ask(new Event('submit'))"
        )

    def text(self, id):
        return self.evaluate(f"at('{id}').innerText")


@contextmanager
def browser(folder):
    """A browser with an empty profile; nothing but the loopback is asked for."""
    out_read, out_write = os.pipe()
    in_read, in_write = os.pipe()
    flags = "--headless --no-sandbox --disable-gpu --disable-background-networking --remote-debugging-pipe"
    command = f"exec {CHROMIUM} {flags} --user-data-dir={folder} 3<&{out_read} 4>&{in_write} 2>/dev/null"
    process = subprocess.Popen(["bash", "-c", command], pass_fds=(out_read, in_write))
    os.close(out_read), os.close(in_write)
    with open(in_read, "rb", buffering=0) as reader, open(out_write, "wb", buffering=0) as writer:
        try:
            yield Browser(reader, writer)
        finally:
            process.terminate()
            process.wait(20)


def test_the_page_answers_and_fits_its_window(served, tmp_path):
    shots = os.environ.get("O3_SCREENSHOTS")
    with browser(tmp_path) as page:
        for width in (390, 1280):
            for scheme in ("light", "dark"):
                page.show(served.url, width, scheme)
                page.ask(FORGOTTEN)
                assert (page.text("gated"), page.text("decision")) == (REFUSAL, "refused")
                assert page.evaluate("at('base-box').hidden && at('requests-box').hidden")
                page.ask(FORGOTTEN, TOKEN)
                assert page.text("gated") == REFUSAL != page.text("base") != ""
                assert "winters" in page.text("requests")
                assert "winters" in page.text("weights")
                assert page.evaluate(OVERFLOW) <= 0
                back = page.evaluate("getComputedStyle(document.body).backgroundColor")
                assert (back == "rgb(255, 255, 255)") == (scheme == "light")
                if shots:
                    image = page.send("Page.captureScreenshot", captureBeyondViewport=True)["data"]
                    with open(f"{shots}/{width}-{scheme}.png", "wb") as file:
                        file.write(base64.b64decode(image))
        assert page.problems == []
        page.ask(FORGOTTEN, "wrong")
        assert page.text("problem") == "expected the bearer token"
