"""Chromium shows the page: a clip is chosen, and one recorded from a fake microphone."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import matplotlib.image
import numpy as np
import pytest
import soundfile

from features.audio.pitch import bin_to_hz
from pipeline.serve.gate import Access
from pipeline.serve.limits import Limits
from tests.conftest import RATE
from tests.pipeline.serve.conftest import HEARD, Builder, Server, served, write_tone
from tests.support.machines.chromium import CHROMIUM, Tab, chromium
from tests.system.test_browser import axe

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium found: apt-get install chromium"),
]
READY = "document.getElementById('text').maxLength > 0"
ANSWERED = "!document.getElementById('answer').hidden"
RECORDED = "document.getElementById('chosen').textContent === 'recorded clip'"
MAY = "!document.getElementById('predict').disabled"
# A tone of 300 Hz, recorded by the browser itself and chosen as a file.
RECORD_WEBM = """(async () => {
  const context = new AudioContext(), to = context.createMediaStreamDestination();
  const from = context.createOscillator(), parts = [], files = new DataTransfer();
  from.frequency.value = 300;
  from.connect(to);
  from.start();
  const recorder = new MediaRecorder(to.stream);
  recorder.ondataavailable = ({ data }) => parts.push(data);
  recorder.start();
  await new Promise((done) => setTimeout(done, 1500));
  await new Promise((done) => { recorder.onstop = done; recorder.stop(); });
  files.items.add(new File(parts, "a.webm"));
  const input = document.getElementById("file");
  input.files = files.files;
  input.dispatchEvent(new Event("change"));
  return recorder.mimeType;
})()"""
# Holds the next answer on its way to the page, until `go` is called.
HOLD = """(() => {
  const own = fetch;
  fetch = async (...given) => {
    fetch = own;
    const found = await own(...given), text = await found.text();
    await new Promise((done) => { go = done; });
    return new Response(text, found);
  };
  go = null;
})()"""
SOON = "new Promise((done) => setTimeout(done, 200))"
DROP = """(() => {
  const files = new DataTransfer();
  files.items.add(new File(["RIFF"], "dropped.wav"));
  dispatchEvent(new DragEvent("drop", { dataTransfer: files, cancelable: true }));
})()"""
# Counts what a screen reader is told.
TOLD = """told = [];
new MutationObserver(() => told.push(document.getElementById("status").textContent))
  .observe(document.getElementById("status"), { childList: true });"""
# Rules of WCAG 2.2, levels A and AA, that the page breaks.
FAULTS = """axe.run({ runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"] }).then(
  (found) => found.violations.map((each) => each.id + ": " + each.nodes.map((n) => n.html)))"""
HOSTILE = "<img src=x onerror=alert(1)>.wav"


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    """A browser whose microphone hears a tone of 220 Hz."""
    folder = tmp_path_factory.mktemp("browser")
    heard = write_tone(folder / "heard.wav", 20.0, 220.0)
    fake = ("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")
    with chromium(folder, *fake, f"--use-file-for-fake-audio-capture={heard}") as found:
        yield found


def click(tab: Tab, id: str) -> None:
    tab.run(f"document.getElementById('{id}').click()")


def text_of(tab: Tab, id: str) -> str:
    return str(tab.run(f"document.getElementById('{id}').innerText"))


def check_quiet(tab: Tab, url: str) -> None:
    """Nothing was complained of, and nothing was asked of anybody else."""
    assert tab.said == []
    hosts = {urlsplit(each).netloc for each in tab.asked if each.startswith("http")}
    assert hosts == {urlsplit(url).netloc}


def hertz(tab: Tab) -> tuple[float, float]:
    """Range of the pitch that the page names."""
    found = re.search(r", (\d+) to (\d+) Hz", text_of(tab, "wave"))
    assert found
    return float(found[1]), float(found[2])


def focus(tab: Tab) -> str:
    return str(tab.run("document.activeElement.id"))


def predict(tab: Tab) -> None:
    tab.until(MAY)
    tab.run("document.getElementById('answer').hidden = true")
    click(tab, "predict")
    tab.until(f"{ANSWERED} || document.getElementById('problem').textContent")
    assert text_of(tab, "problem") == ""


def test_a_chosen_clip(tab: Tab, server: Server, tmp_path: Path) -> None:
    """Wide and narrow; a hostile file name and hostile words stay text."""
    tab.open(server.url, until=READY)
    tab.choose("#file", write_tone(tmp_path / HOSTILE, 1.5))
    tab.until(MAY)
    assert text_of(tab, "chosen") == HOSTILE
    click(tab, "recognise")
    predict(tab)
    shown = text_of(tab, "answer")
    found = server.predict(tmp_path / HOSTILE, recognise="true")
    (row,), pitch = found["rows"], found["clip"]["pitch"]
    assert f"{row['prediction']}, {100 * row['p_' + row['prediction']]:.0f} %" in shown
    assert HEARD in shown
    assert "without text" in shown
    assert "without speech" in shown
    assert f"{row['v_arousal']:.2f} of 1 to 5" in shown
    track = np.array(pitch["tracks"][0])
    ends = np.array([track[track > 0].min(), track.max()])
    low, high = bin_to_hz(ends, bins=256, f_min=50, f_max=1100)
    assert (
        f"F0 in bins {ends[0]} to {ends[1]} of 256, {low:.0f} to {high:.0f} Hz, estimated for the "
        "eye: no slot of the model reads these bins." in shown
    )
    for width in (1280, 390):
        tab.widen(width)
        assert tab.run("document.documentElement.scrollWidth") == width
        tab.picture(tmp_path / "page.png")
        pixels = matplotlib.image.imread(tmp_path / "page.png")[..., :3]
        assert pixels.shape[1] == width
        for colour in ((0x1F, 0x5F, 0xA8), (0xC2, 0x5E, 0x00)):  # bars and waveform; pitch
            assert (np.abs(pixels - np.array(colour) / 255).max(-1) < 0.02).sum() > 100
    check_quiet(tab, server.url)


def test_a_recorded_clip(tab: Tab, server: Server) -> None:
    """It is sent as the microphone gave it: its pitch is that of the tone."""
    tab.open(server.url, until=READY)
    tab.run(TOLD)
    tab.run("document.getElementById('record').focus()")
    tab.run("for (let i = 0; i < 3; i++) document.getElementById('record').click()")
    tab.until("parseFloat(document.getElementById('elapsed').textContent) > 2.5")
    assert text_of(tab, "record") == "Stop"  # one recording has begun, of three clicks
    assert tab.run("told") == ["Recording."]
    click(tab, "record")
    tab.until(RECORDED)
    assert (focus(tab), text_of(tab, "elapsed")) == ("record", "")
    tab.run("document.getElementById('window').value = '3'")
    predict(tab)
    assert hertz(tab) == pytest.approx((220, 220), rel=0.02)  # half a bin is 0.8 %
    check_quiet(tab, server.url)
    tab.run("document.getElementById('forget').focus()")
    click(tab, "forget")
    assert tab.run(ANSWERED) is False
    assert focus(tab) == "record"


def test_a_recording_ends_before_it_is_too_large(tab: Tab, server: Server) -> None:
    """0.1 MB are a second; the whole of it is kept and answered."""
    with served(server.model, limits=Limits(megabytes=0.1, seconds=10.0)) as small:
        tab.open(small.url, until=READY)
        click(tab, "record")
        tab.until(f"{RECORDED} || document.getElementById('problem').textContent")
        predict(tab)
    count = tab.until("document.getElementById('player').duration")
    count *= tab.run("new AudioContext().sampleRate")
    assert 97_500 < 2 * count <= 100_000


def test_an_answer_to_what_was_changed_is_dropped(tab: Tab, server: Server, tmp_path: Path) -> None:
    tab.open(server.url, until=READY)
    tab.choose("#file", write_tone(tmp_path / "first.wav", 1.0))
    tab.until(MAY)
    tab.run(HOLD)
    tab.run("document.getElementById('predict').focus()")
    click(tab, "predict")
    tab.until("go !== null")
    assert (focus(tab), text_of(tab, "status")) == ("predict", "Computing.")
    tab.choose("#file", write_tone(tmp_path / "second.wav", 2.0))
    tab.until("document.getElementById('chosen').textContent === 'second.wav'")
    tab.run(f"go(); {SOON}")
    assert (tab.run(ANSWERED), text_of(tab, "status")) == (False, "")
    predict(tab)
    assert "Waveform, 2.0 s" in text_of(tab, "wave")
    tab.run("document.getElementById('text').dispatchEvent(new Event('input'))")
    assert (tab.run(ANSWERED), text_of(tab, "status")) == (False, "")


def test_a_model_that_reads_only(tab: Tab, build: Builder, tmp_path: Path) -> None:
    """It is given recognised words of windows; nothing is dropped where no clip is taken."""
    with served(build("concat", {"text": "words"})) as reader:
        tab.open(reader.url, until=READY)
        tab.run(f"document.getElementById('clip').hidden = true; {DROP}; {SOON}")
        assert tab.run(MAY) is False
        tab.run(f"document.getElementById('clip').hidden = false; {DROP}")
        tab.until("document.getElementById('chosen').textContent === 'dropped.wav'")
        tab.choose("#file", write_tone(tmp_path / "long.wav", 8.0))
        tab.until("document.getElementById('chosen').textContent === 'long.wav'")
        assert text_of(tab, "windows").startswith("Divide a clip")
        tab.run("document.getElementById('window').value = '3'")
        click(tab, "recognise")
        predict(tab)
        assert tab.run("document.querySelectorAll('.pieces button').length") == 3


def test_a_long_clip_over_time(tab: Tab, server: Server, tmp_path: Path) -> None:
    tab.open(server.url, until=READY)
    tab.choose("#file", write_tone(tmp_path / "long.wav", 8.0))
    tab.run("document.getElementById('window').value = '3'")
    predict(tab)
    assert tab.run("document.querySelectorAll('#time rect').length") == 9  # windows and classes
    buttons = "[...document.querySelectorAll('.pieces button')]"
    assert [each[:10] for each in tab.run(f"{buttons}.map(each => each.innerText)")] == [
        "0.0 to 2.7",
        "2.7 to 5.3",
        "5.3 to 8.0",
    ]
    tab.run(f"{buttons}[2].click()")
    assert tab.run(f"{buttons}.map(each => each.ariaPressed)") == ["false", "false", "true"]


def test_the_browser_decodes_what_the_server_does_not(tab: Tab, server: Server) -> None:
    """WebM, which browsers record by themselves, arrives as WAV of the same pitch."""
    tab.open(server.url, until=READY)
    assert "webm" in tab.run(RECORD_WEBM)
    predict(tab)
    assert text_of(tab, "chosen") == "a.webm"
    assert hertz(tab) == pytest.approx((300, 300), rel=0.02)


def test_what_nobody_reads_is_said_before_it_is_sent(
    tab: Tab, server: Server, tmp_path: Path
) -> None:
    tab.open(server.url, until=READY)
    (tmp_path / "no.mp4").write_bytes(b"no audio")
    tab.choose("#file", tmp_path / "no.mp4")
    tab.until("document.getElementById('problem').textContent")
    assert text_of(tab, "problem").startswith("no.mp4: neither the server nor this browser")
    assert tab.run(MAY) is False


def test_refusals_are_shown(tab: Tab, server: Server, tmp_path: Path) -> None:
    tab.open(server.url, until=READY)
    soundfile.write(tmp_path / "long.flac", np.zeros(11 * RATE), RATE)
    tab.choose("#file", tmp_path / "long.flac")
    tab.until(MAY)
    click(tab, "predict")
    tab.until("document.getElementById('problem').textContent")
    assert text_of(tab, "problem").startswith("a clip of 11.0 s. Expected: at most 10 s.")


def test_the_token_of_the_address_is_kept_and_not_shown(tab: Tab, server: Server) -> None:
    with served(server.model, access=Access("a-token-of-a-test")) as guarded:
        tab.open(guarded.url, until="document.getElementById('problem').textContent")
        assert "ends with the token" in text_of(tab, "problem")
        tab.open("about:blank")
        tab.open(f"{guarded.url}#token=a-token-of-a-test", until=READY)
        assert tab.run("location.href") == guarded.url
        tab.open("about:blank")
        tab.open(guarded.url, until=READY)


@pytest.mark.slow
def test_the_page_has_no_fault_of_accessibility(tab: Tab, server: Server, tmp_path: Path) -> None:
    """axe-core finds none, before and after an answer, in both themes."""
    tab.open(server.url, until=READY)
    tab.run(f"{axe(tmp_path)}; true")
    found = []
    for theme in ("light", "dark"):
        features = [{"name": "prefers-color-scheme", "value": theme}]
        tab.send("Emulation.setEmulatedMedia", features=features)
        found += tab.run(FAULTS)
        tab.choose("#file", write_tone(tmp_path / "long.wav", 8.0))
        tab.run("document.getElementById('window').value = '3'")
        predict(tab)
        found += tab.run(FAULTS)
        tab.run("document.getElementById('answer').hidden = true")
    assert found == []
