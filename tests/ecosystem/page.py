#!/usr/bin/env python3
"""The page of `rhn serve` in a real browser, headless: it samples, scores, shows gates, and draws curves that grow.

Needs Chromium with its driver (Debian: chromium, chromium-driver), Python 3.11 and a network for pip; the packages are
pinned and go to a temporary folder. RHN is the program (target/release/rhn), CHECKPOINT what is served
(checkpoints/shakespeare), PICTURES where page.png goes (docs), VENV a virtual environment to keep between runs, KEEP
a folder for pictures of a phone and of the end, to look at.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PACKAGES = ["selenium==4.46.0", "pillow==13.0.0", "axe-core-python==0.1.0"]
ROOT = Path(__file__).resolve().parents[2]
CHECKPOINT = os.environ.get("CHECKPOINT", str(ROOT / "checkpoints/shakespeare"))
PICTURES = Path(os.environ.get("PICTURES", ROOT / "docs"))
FIRST_PICTURE_MS = 1000
MOST_BYTES = 200_000
HOSTILE = "<script>window.hacked = 1<" + "&'"

if len(sys.argv) > 1:  # run again, where the packages are
    from browser import RHN, Page, Server

RECIPE = """
[corpus]
name = "corpus.txt"
unit = "char"
split = [80, 10, 10]
[model.embedding]
kind = "word"
[model.core]
kind = "rhn"
layers = 1
hidden_size = 8
recurrence_depth = 2
transform_bias = -2.0
[model.output]
tied = false
[train]
epochs = 3
batch_size = 2
bptt_steps = 5
optimizer = "adam"
learning_rate = 0.01
max_grad_norm = 5.0
init_scale = 0.1
"""


def in_environment(folder):
    """Runs this script again where the packages are."""
    environment = Path(os.environ.get("VENV", folder / "venv"))
    python = environment / "bin/python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", environment], check=True)
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, *PACKAGES], check=True)
    return subprocess.run([python, __file__, folder], check=False).returncode


def first_picture(page, server):
    page.driver.get(server.url)
    mark = "return performance.getEntriesByName('first-picture')[0]?.startTime"
    took = page.until("first picture", lambda: page.js(mark))
    print(f"first picture after {took:.0f} ms; the server was ready after {1000 * server.ready:.0f} ms")
    assert took <= FIRST_PICTURE_MS, f"wanted at most {FIRST_PICTURE_MS} ms"
    assert page.count("#picture svg polyline") > 3 and "shakespeare" in page.text("#picture-caption")


def samples(page):
    page.type("#prompt", "JULIET:")
    page.type("#length", "120")
    page.find("#sample-start").click()
    status = page.until("sample", lambda: re.match(r"(\d+) tokens, (\d\.\d+) bits", page.text("#sample-status")))
    marks = page.js("return [...document.querySelectorAll('#sample-result .tokens [data-index]')].map(one => one.textContent)")
    assert int(status[1]) == len(marks) == 120 and 0.5 < float(status[2]) < 6, status[0]
    first = "".join(marks).replace("↵\n", "\n")
    command = [RHN, "sample", CHECKPOINT, "--prompt", "JULIET:", "--tokens", "120", "--seed", "1", "--temperature", "0.8", "--json"]
    wanted = json.loads(subprocess.run(command, check=True, capture_output=True).stdout.splitlines()[0])["text"]
    assert first == wanted, f"{first!r}, wanted that of rhn sample: {wanted!r}"
    colours = page.js("return new Set([...document.querySelectorAll('#sample-result .tokens [data-index]')]"
                      ".map(one => one.style.backgroundColor)).size")
    assert colours > 10, colours
    print("sample: the text of rhn sample,", status[0])


def stops(page):
    page.type("#length", "4096")
    # From within the page, since all are drawn before a driver's click arrives.
    page.js("const result = document.querySelector('#sample-result');"
            "new MutationObserver((_, own) => {"
            "  if (result.querySelectorAll('.tokens [data-index]').length <= 5) return;"
            "  own.disconnect();"
            "  document.querySelector('#sample-stop').click();"
            "}).observe(result, { childList: true, subtree: true })")
    page.find("#sample-start").click()
    page.until("stop", lambda: "stopped" in page.text("#sample-status"))
    drawn = page.count("#sample-result .tokens [data-index]")
    assert drawn < 4096 and page.js("return document.querySelector('#sample-stop').disabled"), drawn
    print("stopped after", drawn, "tokens")
    page.type("#length", "240")


def scores(page):
    text = page.js("return document.querySelector('#score-input').value")
    for per in ["word", "token"]:
        page.find(f"#per option[value={per}]").click()
        page.js("document.querySelector('#score-status').textContent = ''")
        page.find("#score-start").click()
        found = page.until("score", lambda: re.search(r"(\d+) tokens, ([\d.]+) bits", page.text("#score-status")))
        shown = page.text("#score-result .tokens").replace("↵\n", "\n")
        assert shown == text, f"{shown!r}, wanted {text!r}"
        command = [RHN, "score", CHECKPOINT, "--per", "document", "--json"]
        output = subprocess.run(command, input=text.encode(), check=True, capture_output=True).stdout
        wanted = json.loads(output.splitlines()[-1])["surprisal"]
        assert abs(float(found[2]) - wanted) < 0.006, (found[0], wanted)
    keys(page, "#score-result .tokens [tabindex='0']", "bits")
    page.find("#score-result summary").click()
    page.until("table", lambda: page.count("#score-result tbody tr") == int(found[1]))
    page.find("#score-result summary").click()
    print("score: the sum of rhn score,", found[0])


def gates(page):
    page.find("#gates-start").click()
    tokens = page.until("gates", lambda: re.match(r"(\d+) tokens; means", page.text("#gates-status")))
    text = page.js("return document.querySelector('#gates-input').value")
    cells = page.js("return [...document.querySelectorAll('#gates-result td[data-row]')].map(cell => Number(cell.textContent))")
    assert int(tokens[1]) == len(text) and len(cells) == 4 * len(text), (tokens[0], len(cells))
    assert all(0 <= cell <= 1 for cell in cells) and max(cells) > min(cells)
    keys(page, "#gates-result td[tabindex='0']", "sublayer 1")
    print("gates:", page.text("#gates-status"))


def keys(page, selector, part):
    """The arrow keys go on from where the tab key leads, and what is there is said."""
    from selenium.webdriver.common.keys import Keys

    at = page.find(selector)
    page.js("arguments[0].focus()", at)
    at.send_keys(Keys.ARROW_RIGHT)
    moved = page.driver.switch_to.active_element
    assert moved.id != at.id and page.count(selector) == 1
    readout = page.js("return arguments[0].closest('#gates-result, #score-result').querySelector('.readout').textContent", moved)
    assert part in readout, readout
    moved.send_keys(Keys.HOME)


def reaches_all(page):
    """The tab key alone leads to every control, and each shows that it has the focus."""
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.keys import Keys

    selector = "a[href], button:enabled, input:enabled, select, textarea, summary, [tabindex='0']"
    mark = """return [...document.querySelectorAll(arguments[0])].filter(one => one.checkVisibility())
        .map((one, index) => (one.dataset.control = index))"""
    wanted = set(page.js(mark, selector))
    page.js("document.activeElement.blur(); scrollTo(0, 0)")
    reached = set()
    for _ in range(2 * len(wanted) + 10):
        ActionChains(page.driver).send_keys(Keys.TAB).perform()
        found = page.js("""const one = document.activeElement, style = getComputedStyle(one);
            return [one.dataset.control, style.outlineStyle, parseFloat(style.outlineWidth)]""")
        if found[0] is not None:
            reached.add(int(found[0]))
            assert found[1] != "none" and found[2] >= 2, f"control {found} shows no focus"
    missing = page.js("return arguments[0].map(index => document.querySelector(`[data-control='${index}']`).outerHTML)",
                      sorted(wanted - reached))
    assert not missing, f"tab does not reach {missing}"
    print("tab reaches all of", len(wanted), "controls")


def accessible(page, where):
    from axe_core_python.selenium import Axe

    found = Axe().run(page.driver)["violations"]
    told = [(one["id"], [node["html"][:90] for node in one["nodes"][:4]]) for one in found]
    assert not told, f"{where}: {told}"
    print("axe finds nothing,", where)


def pictures(page):
    """Light and dark side by side, small enough to be kept."""
    import io

    from PIL import Image

    page.js("document.activeElement.blur(); document.querySelectorAll('.readout').forEach(one => (one.textContent = ''))")
    halves = []
    for dark in [False, True]:
        page.colors(dark)
        halves.append(Image.open(io.BytesIO(page.whole_picture())).convert("RGB"))
        accessible(page, "dark" if dark else "light")
    page.colors(False)
    whole = Image.new("RGB", (sum(half.width for half in halves), max(half.height for half in halves)), "white")
    whole.paste(halves[0], (0, 0))
    whole.paste(halves[1], (halves[0].width, 0))
    path = PICTURES / "page.png"
    whole.quantize(160, dither=Image.Dither.NONE).save(path, optimize=True)
    assert path.stat().st_size <= MOST_BYTES, path.stat().st_size
    print(path.name, whole.size, path.stat().st_size, "bytes")


def fits_a_phone(page, folder):
    page.size(360, 740, mobile=True)
    time.sleep(0.6)
    widths = page.js("return [document.documentElement.scrollWidth, innerWidth]")
    assert widths[0] <= widths[1] == 360, widths
    page.find("#gates-start").click()
    page.until("gates", lambda: "means" in page.text("#gates-status"))
    widths = page.js("return [document.documentElement.scrollWidth, innerWidth]")
    assert widths[0] <= 360, widths
    (folder / "phone.png").write_bytes(page.whole_picture(360))
    page.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def grows(page, folder):
    """A run that trains appears, and its curve gets new points without anybody doing anything."""
    command = [RHN, "train", "tiny.toml", "--out", "runs/live", "--set", "train.epochs=1000000", "--threads", "1"]
    training = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        page.driver.get(page.driver.current_url)
        state = "return [...document.querySelectorAll('#runs-table tbody tr')].find(row => row.cells[1].textContent === 'live')"
        page.until("live run", lambda: page.js(state + "?.cells[2].textContent") == "running" or page.driver.refresh())
        points = "return [...document.querySelectorAll('#picture polyline')].find(line => line.textContent === 'live')?.getAttribute('points').split(' ').length"
        before = page.until("live curve", lambda: page.js(points))
        page.until("growth", lambda: (page.js(points) or 0) > before)
    finally:
        training.terminate()
        training.wait()
    page.until("end of the live run", lambda: page.js(state + ".cells[2].textContent") == "stopped", 30)
    print("a live curve grows")


def chooses(page):
    """Who takes a run's mark away sees the others alone."""
    page.find("input[aria-label='Show live']").click()
    page.until("curves without it", lambda: page.text("#picture-caption").startswith("Learning curves of shakespeare:"))
    page.find("input[aria-label='Show shakespeare']").click()
    page.until("no curves", lambda: page.text("#picture-caption") == "No run is chosen.")
    assert page.count("#picture svg") == 0 and page.count("#comparison table") == 0
    page.find("input[aria-label='Show live']").click()
    page.find("#measure option[value=nats]").click()
    page.until("nats", lambda: page.text("#picture-caption") == "Learning curves of live: nats per token, validation split over epoch")
    page.driver.refresh()  # what nobody has chosen, the page chooses
    page.until("both curves", lambda: "shakespeare, live:" in page.text("#picture-caption"))


def stays_text(page, folder):
    (folder / "runs/live").rename(folder / "runs" / HOSTILE)
    row = "return [...document.querySelectorAll('#runs-table tbody tr')].find(row => row.cells[1].textContent === arguments[0])"
    page.until("new name", lambda: page.js(row, HOSTILE))
    assert page.js(row, "live") is None
    page.until("hostile name", lambda: HOSTILE in page.text("#picture-caption") and HOSTILE in page.text("#comparison"))
    assert HOSTILE in page.text("#runs-table") and HOSTILE in page.text("#picture")
    page.js("document.querySelector('#score-input').value = '<img src=x onerror=\"window.hacked = 1\">'")
    page.find("#score-start").click()
    page.until("score", lambda: "<img" in page.text("#score-result .tokens"))
    assert page.js("return window.hacked ?? document.querySelectorAll('#main img, #main script').length") == 0
    print("names and texts stay text")


def asks_for_a_token(page, folder):
    (folder / "token").write_text("a-secret\n")
    server = Server(CHECKPOINT, "--token-file", folder / "token")
    page.driver.get(server.url)
    page.until("form", lambda: page.find("#token-form").is_displayed())
    assert page.js("return document.activeElement.id") == "token"
    page.type("#token", "wrong\n")
    page.until("refusal", lambda: "not this server's token" in page.text("#alert"))
    page.type("#token", "a-secret\n")
    page.until("runs", lambda: page.count("#picture svg") == 1)
    assert not page.find("#token-form").is_displayed() and not page.find("#alert").is_displayed()
    assert page.js("return [sessionStorage.length, localStorage.length, document.cookie]") == [1, 0, ""]
    print("a token is asked for, once")
    server.stop()


def main(folder):
    (folder / "tiny.toml").write_text(RECIPE)
    (folder / "corpus.txt").write_text("To be , or not to be :\nthat is the question\n" * 12)
    (folder / "runs").mkdir()
    server = Server(CHECKPOINT, "--runs", folder / "runs")
    page = Page(folder)
    try:
        first_picture(page, server)
        samples(page)
        stops(page)
        page.find("#sample-start").click()
        page.until("sample", lambda: re.match(r"240 tokens", page.text("#sample-status")))
        scores(page)
        gates(page)
        reaches_all(page)
        pictures(page)
        fits_a_phone(page, folder)
        grows(page, folder)
        chooses(page)
        stays_text(page, folder)
        page.has_no_complaint("all of this")
        server.stop()
        asks_for_a_token(page, folder)
    finally:
        if os.environ.get("KEEP"):
            (folder / "last.png").write_bytes(page.picture())
            for picture in folder.glob("*.png"):
                shutil.copy(picture, os.environ["KEEP"])
        page.driver.quit()
        if server.process.poll() is None:
            server.process.kill()
    print("page: all as wanted")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as name:
            sys.exit(in_environment(Path(name)))
