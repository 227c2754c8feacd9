"""The page of recorded episodes in a browser, and what it asks its server for."""

import asyncio

import aiohttp
from browsing import SECONDS, until

from tools import edit
from tools.panel.episode_version import version_now


def names(page):
    return page.locator(".episode .name").all_text_contents()


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.glob("*.hdf5")}


def opened(page, name):
    page.wait_for_selector(f"#name:text-is('{name}')")
    shown = "[...document.querySelectorAll('#views canvas')].map((canvas) => Number(canvas.dataset.step ?? -1))"
    until(lambda: page.evaluate(shown) and min(page.evaluate(shown)) >= 0 and page.locator(".curve").count())


def drag(page, first, end):
    """On the bar, from one share of its width to another."""
    box = page.locator("#track").bounding_box()
    page.mouse.move(box["x"] + first * box["width"] + 1, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.move(box["x"] + end * box["width"] - 1, box["y"] + box["height"] / 2, steps=3)
    page.mouse.up()


def ask(url, *requests):
    """(status, JSON or bytes) of each (method, path, JSON, Origin)."""

    async def all_of_them():
        found = []
        async with aiohttp.ClientSession() as session:
            for method, path, asked, origin in requests:
                headers = {"Origin": origin} if origin else {}
                async with session.request(method, url + path, json=asked, headers=headers) as answer:
                    plain = answer.content_type == "application/json"
                    found.append((answer.status, await answer.json() if plain else await answer.read()))
        return found

    return asyncio.run(asyncio.wait_for(all_of_them(), SECONDS))


def asked(folder, names, do, **more):
    """Of somebody who has just looked at the episodes."""
    versions = [version_now(edit.find(folder, name)) for name in names]
    return {"names": names, "versions": versions, "do": do, **more}
