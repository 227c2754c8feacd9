"""The page of recorded episodes: see them, mark them, cut them, drop them (tools.edit)."""

from __future__ import annotations

import asyncio
import functools
from pathlib import Path
from typing import Any

from aiohttp import web

from agent.data.episode_file import SUFFIX, EpisodeFileError, read_episode
from agent.spec import UserError
from tools import edit
from tools.common.video import jpeg
from tools.inspect import sheet_row

DEEDS = ("success", "failure", "cut", "drop", "undo")


@functools.lru_cache(10_000)
def _figures(path: Path, changed_ns: int, size: int) -> dict[str, Any]:
    """What is shown of the episode in `path`, read once for each state of the file."""
    try:
        episode = read_episode(path)
    except EpisodeFileError as error:
        return {"error": str(error)}
    figures = {"steps": len(episode), "success": episode.succeeded, "return": round(episode.episode_return, 3)}
    return {**figures, "marked": episode.meta.get("marked", ""), "hand": int(episode.interventions.sum())}


def listed(folder: Path) -> list[dict[str, Any]]:
    """Every episode of `folder`, also those that were dropped; a damaged one has an "error"."""
    names = {path.name for place in (folder, folder / edit.ORIGINALS) for path in place.glob(f"[!.]*{SUFFIX}")}
    found = []
    for name in sorted(names):
        path, original = folder / name, folder / edit.ORIGINALS / name
        entry: dict[str, Any] = {"name": name, "edited": original.exists(), "dropped": not path.exists()}
        there = original if entry["dropped"] else path
        state = there.stat()
        found.append({**entry, **_figures(there, state.st_mtime_ns, state.st_size)})
    return found


def strip(folder: Path, name: str) -> bytes:
    """JPEG of its contact sheet. Raises EpisodeFileError."""
    path = edit.find(folder, name)
    episode = read_episode(path if path.exists() else folder / edit.ORIGINALS / path.name)
    return jpeg(sheet_row(path.name, episode)) if episode.spec.cameras else b""


def act(folder: Path, asked: object) -> None:
    """{"name", "do": of DEEDS, "first", "end": of a cut}. Raises UserError."""
    if not isinstance(asked, dict) or asked.get("do") not in DEEDS or not isinstance(asked.get("name"), str):
        raise UserError("a name, and one of " + ", ".join(DEEDS))
    with edit.claimed(folder):
        path, deed = edit.find(folder, asked["name"]), asked["do"]
        if deed == "cut":
            if not all(type(asked.get(end)) is int for end in ("first", "end")):
                raise UserError("a cut has two numbers")
            edit.cut(path, asked["first"], asked["end"])
        elif deed == "drop":
            edit.drop(path)
        elif deed == "undo":
            edit.undo(path)
        else:
            edit.mark(path, deed)


def routes(folder: Path, same_site: Any) -> list[web.RouteDef]:
    one_at_a_time = asyncio.Lock()

    async def episodes(request: web.Request) -> web.Response:
        return web.json_response(await asyncio.to_thread(listed, folder))

    async def picture(request: web.Request) -> web.Response:
        try:
            image = await asyncio.to_thread(strip, folder, request.match_info["name"])
        except UserError:
            raise web.HTTPNotFound from None
        return web.Response(body=image, content_type="image/jpeg")

    async def change(request: web.Request) -> web.Response:
        if not same_site(request):
            raise web.HTTPForbidden(text="this page comes from another server")
        try:
            asked = await request.json()
            async with one_at_a_time:
                await asyncio.to_thread(act, folder, asked)
        except (UserError, ValueError, RecursionError) as error:
            return web.json_response({"error": str(error)}, status=400)
        return web.json_response(await asyncio.to_thread(listed, folder))

    return [
        web.get("/api/episodes", episodes),
        web.get("/api/episodes/{name}", picture),
        web.post("/api/episodes", change),
    ]
