"""A page as a real browser shows it: Chromium, without a window, told what to do over its DevTools protocol."""

import asyncio
import base64
import itertools
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from tests.waiting import PATIENCE, wait_for

CHROMIUM = shutil.which("chromium")
FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--remote-debugging-port=0", "--hide-scrollbars",
]  # fmt: skip
SETTLE_SECONDS = 0.3


@dataclass
class Seen:
    """What a page did.

    Attributes:
        complaints: errors and warnings of its console, uncaught exceptions, and what its policy refused.
        requests: the addresses that it asked for, itself left out.
        answers: what expressions gave.
        picture: PNG.
    """

    complaints: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    answers: list[Any] = field(default_factory=list)
    picture: bytes = b""


def look(
    page: Path,
    profile: Path,
    width: int,
    dark: bool,
    expressions: tuple[str, ...] = (),
    clip: str = "",
    scale: float = 1.0,
) -> Seen:
    """Opens a file.

    Args:
        page: the file.
        profile: an empty folder for the browser's own files.
        width: of its window, in pixels.
        dark: whether the person prefers dark pages.
        expressions: JavaScript to evaluate once it has loaded.
        clip: JavaScript that gives `{x, y, width, height}` of what to picture, in pixels of the page; without it no picture.
        scale: pixels of the picture for each of the page.
    """
    return asyncio.run(_look(page, profile, width, dark, expressions, clip, scale))


async def _look(
    page: Path, profile: Path, width: int, dark: bool, expressions: tuple[str, ...], clip: str, scale: float
) -> Seen:
    seen = Seen()
    async with _tab(profile) as tab:
        numbers = itertools.count(1)

        async def ask(method: str, **parameters: Any) -> dict[str, Any]:
            number = next(numbers)
            await tab.send_json({"id": number, "method": method, "params": parameters})
            while True:
                said = await tab.receive_json(timeout=PATIENCE)
                if said.get("id") == number:
                    assert "error" not in said, said
                    found: dict[str, Any] = said["result"]
                    return found
                note(said.get("method"), said.get("params", {}))

        def note(event: str, told: dict[str, Any]) -> None:
            match event:
                case "Runtime.exceptionThrown":
                    seen.complaints.append(str(told["exceptionDetails"]))
                case "Runtime.consoleAPICalled":
                    seen.complaints.append(str(told["args"]))
                case "Log.entryAdded":
                    seen.complaints.append(told["entry"]["text"])
                case "Network.requestWillBeSent":
                    address = told["request"]["url"]
                    if address != page.as_uri() and not address.startswith("data:"):
                        seen.requests.append(address)

        async def value(expression: str) -> Any:
            answer = await ask("Runtime.evaluate", expression=expression, returnByValue=True)
            assert "exceptionDetails" not in answer, answer
            return answer["result"].get("value")

        for domain in ("Runtime", "Log", "Network", "Page"):
            await ask(f"{domain}.enable")
        await ask("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        await ask("Emulation.setEmulatedMedia", features=[scheme])
        await ask("Page.navigate", url=page.as_uri())
        for _ in range(round(PATIENCE * 10)):
            if await value("document.readyState === 'complete' && location.protocol === 'file:'"):
                break
            await asyncio.sleep(0.1)
        await asyncio.sleep(SETTLE_SECONDS)
        seen.answers = [await value(expression) for expression in expressions]
        if clip:
            area = {**await value(clip), "scale": scale}
            shot = await ask("Page.captureScreenshot", clip=area, captureBeyondViewport=True)
            seen.picture = base64.b64decode(shot["data"])
    return seen


@asynccontextmanager
async def _tab(profile: Path) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
    assert CHROMIUM
    command = [CHROMIUM, *FLAGS, f"--user-data-dir={profile}", "about:blank"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        port = await asyncio.to_thread(_port, profile / "DevToolsActivePort")
        async with aiohttp.ClientSession() as session:
            async with session.get(f"http://127.0.0.1:{port}/json/list") as answer:
                tabs = await answer.json()
            address = next(tab["webSocketDebuggerUrl"] for tab in tabs if tab["type"] == "page")
            async with session.ws_connect(address, max_msg_size=0) as socket:
                yield socket
    finally:
        process.terminate()
        process.wait()


def _port(written: Path) -> str:
    """The port that the browser chose; it writes it down once it listens."""
    wait_for(lambda: written.exists() and written.read_text().splitlines(), "the port of Chromium")
    return written.read_text().splitlines()[0]
