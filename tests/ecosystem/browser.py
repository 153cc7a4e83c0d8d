"""`rhn serve`, and a browser without a window that shows its page. For page.py."""

import base64
import os
import re
import shutil
import subprocess
import time
from pathlib import Path

from selenium import webdriver
from selenium.webdriver.chrome.service import Service

ROOT = Path(__file__).resolve().parents[2]
RHN = str(Path(os.environ.get("RHN", ROOT / "target/release/rhn")).resolve())


class Server:
    """`rhn serve ARGS… --port 0`."""

    def __init__(self, *args):
        start = time.monotonic()
        command = [RHN, "serve", *args, "--port", "0", "--device", "cpu"]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        for line in self.process.stderr:
            if found := re.search(r"http://\S+", line):
                self.url = found.group()
                break
        else:
            raise SystemExit("the server did not start")
        self.ready = time.monotonic() - start

    def stop(self):
        self.process.terminate()
        assert self.process.wait(60) == 0, "the server did not end as asked"


class Page:
    """The page in a browser."""

    def __init__(self, folder):
        options = webdriver.ChromeOptions()
        for argument in ["--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--force-device-scale-factor=1",
                         "--window-size=1000,900", "--force-prefers-reduced-motion", "--hide-scrollbars", f"--user-data-dir={folder}/browser"]:
            options.add_argument(argument)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        options.binary_location = shutil.which("chromium") or shutil.which("google-chrome")
        self.driver = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))

    def js(self, code, *args):
        return self.driver.execute_script(code, *args)

    def find(self, selector):
        return self.driver.find_element("css selector", selector)

    def text(self, selector):
        return self.js("return document.querySelector(arguments[0])?.textContent ?? ''", selector)

    def count(self, selector):
        return self.js("return document.querySelectorAll(arguments[0]).length", selector)

    def type(self, selector, text):
        field = self.find(selector)
        field.clear()
        field.send_keys(text)

    def until(self, what, done, seconds=60):
        end = time.monotonic() + seconds
        while not (value := done()):
            assert time.monotonic() < end, f"{what}: not within {seconds} s; alert: {self.text('#alert')!r}"
            time.sleep(0.02)
        return value

    def colors(self, dark):
        value = "dark" if dark else "light"
        features = [{"name": "prefers-color-scheme", "value": value}]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})

    def size(self, width, height, mobile=False):
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": mobile}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)

    def picture(self):
        answer = self.driver.execute_cdp_cmd("Page.captureScreenshot", {"captureBeyondViewport": True, "format": "png"})
        return base64.b64decode(answer["data"])

    def whole_picture(self, width=900):
        self.size(width, 900)
        time.sleep(0.6)  # the curves are drawn for the new width
        self.size(width, self.js("return document.documentElement.scrollHeight"))
        time.sleep(0.3)
        return self.picture()

    def complaints(self):
        """What the console shows, but for a favicon that is not asked for."""
        return [entry["message"] for entry in self.driver.get_log("browser") if entry["level"] != "INFO"]

    def has_no_complaint(self, where):
        found = self.complaints()
        assert not found, f"{where}: the console shows {found}"
