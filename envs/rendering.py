"""Camera images of a MuJoCo simulation, drawn without a window.

One `Cameras` owns one OpenGL context for as long as the environment lives. Nothing is made anew at a reset: a context
freed late by the garbage collector is what turns other people's images to garbage.

    stock  as robosuite draws: full meshes, 4x multisampling, a 4096 x 4096 shadow map
    fast   the same picture without shadows, multisampling or reflections, and with coarse meshes
"""

import atexit
import copy
import itertools
import os
import sys
import weakref
from typing import Any

import numpy as np

from agent.options import nearest

SHAPES_GROUP, MESHES_GROUP = 0, 1  # robosuite's geom groups: what collides, what is seen
CELLS_PER_MESH = 14  # a coarse mesh keeps one vertex in each of at most 14 x 14 x 14 cells
LIGHT_ENOUGH = 60  # triangles; smaller meshes stay as they are

# (GL context, mujoco.MjrContext) of every Cameras that is not closed. Kept here, so that the garbage collector can't
# free one in the middle of another's drawing; `_forgotten` are those whose Cameras it took.
_open: dict[int, tuple[Any, Any]] = {}
_forgotten: list[int] = []
_numbers = itertools.count()


def choose_backend() -> None:
    """Set MUJOCO_GL to one that works without a window, where the user has not set it. Before mujoco's import."""
    if sys.platform.startswith("linux") and not os.environ.get("DISPLAY"):
        os.environ.setdefault("MUJOCO_GL", "egl")


NEEDS = {"egl": "libegl1 and libgl1-mesa-dri", "osmesa": "libosmesa6", "glfw": "a display"}  # Debian's names


def no_opengl(error: BaseException) -> ValueError | None:
    """The one line for an error that says that OpenGL is not there, as mujoco and PyOpenGL put it; None for others."""
    text = (str(error).splitlines() or [""])[0]
    if not any(word in text for word in ("MUJOCO_GL", "EGL", "OSMesa", "glGetError", "GLFW", "OpenGL")):
        return None
    backend = os.environ.get("MUJOCO_GL", "").lower()
    needs = f"{backend} needs {NEEDS[backend]}" if backend in NEEDS else f"it can be {', '.join(NEEDS)}"
    return ValueError(f"cannot draw without OpenGL (MUJOCO_GL={backend}): {text}; {needs}")


def gl_context(width: int, height: int) -> Any:
    """A new OpenGL context of the backend MUJOCO_GL names now, even if mujoco was imported under another.

    Raises ValueError, one line, when there is none.
    """
    hook, sys.unraisablehook = sys.unraisablehook, lambda unraisable: None  # mujoco frees what it could not make
    wrong = None
    try:
        return _new_context(os.environ.get("MUJOCO_GL", "").lower(), width, height)
    except Exception as error:
        if (wrong := no_opengl(error)) is None:
            raise
    finally:
        sys.unraisablehook = hook
    raise wrong


def _new_context(backend: str, width: int, height: int) -> Any:
    if backend == "egl":
        from mujoco.egl import GLContext
    elif backend == "osmesa":
        from mujoco.osmesa import GLContext
    else:
        from mujoco import GLContext
    return GLContext(width, height)


def camera_names(model: Any) -> list[str]:
    """Of an MjModel, in the order of their ids."""
    return [model.camera(number).name for number in range(model.ncam)]


def _free(number: int) -> None:
    if number not in _open:
        return
    gl, context = _open.pop(number)
    gl.make_current()
    if context is not None:
        context.free()
    gl.free()


def _free_forgotten() -> None:
    while _forgotten:
        _free(_forgotten.pop())


def _free_all() -> None:
    for number in list(_open):
        _free(number)


def coarse(model: Any, cells: int = CELLS_PER_MESH) -> Any:
    """A copy of an MjModel, to draw from: each mesh keeps one vertex per cell of a grid laid over it.

    Only the faces change, so every frame, material and index of the original still fits. Not for physics.
    """
    drawn = copy.deepcopy(model)
    for mesh in range(model.nmesh):
        vertices = slice(model.mesh_vertadr[mesh], model.mesh_vertadr[mesh] + model.mesh_vertnum[mesh])
        first, count = model.mesh_faceadr[mesh], model.mesh_facenum[mesh]
        if count <= LIGHT_ENOUGH:
            continue
        position = model.mesh_vert[vertices]  # (V, 3)
        face = model.mesh_face[first : first + count]  # (F, 3)
        cell_m = np.ptp(position, axis=0).max() / cells
        cell = np.floor((position - position.min(axis=0)) / cell_m).astype(np.int64)  # (V, 3)
        _, kept, cell_of = np.unique(cell, axis=0, return_index=True, return_inverse=True)
        face = kept[cell_of.reshape(-1)[face]]  # (F, 3)
        whole = (face[:, 0] != face[:, 1]) & (face[:, 1] != face[:, 2]) & (face[:, 2] != face[:, 0])
        _, once = np.unique(np.sort(face, axis=1), axis=0, return_index=True)
        rows = np.intersect1d(np.flatnonzero(whole), once)
        if not len(rows):
            continue
        for name, values in (
            ("mesh_face", face),
            ("mesh_facenormal", model.mesh_facenormal[first : first + count]),
            ("mesh_facetexcoord", model.mesh_facetexcoord[first : first + count]),
        ):
            getattr(drawn, name)[first : first + len(rows)] = values[rows]
        drawn.mesh_facenum[mesh] = len(rows)
    return drawn


class Cameras:
    """Draws square images of an MjModel's cameras. `close()` frees the OpenGL context; it is safe to call twice."""

    def __init__(self, model: Any, names: list[str], size: int, quality: str = "fast"):
        """model: mujoco.MjModel that is simulated. names: its cameras. size: pixels a side.

        Raises ValueError for a camera that the model doesn't have.
        """
        import mujoco

        self._mujoco, self._model, self._size = mujoco, model, size
        known = camera_names(model)
        for name in names:
            if name not in known:
                raise ValueError(f"unknown camera '{name}'{nearest(name, known)}; cameras: {', '.join(known)}")
        self._camera_ids = {name: known.index(name) for name in names}
        drawn = copy.deepcopy(model) if quality == "stock" else coarse(model)
        drawn.vis.global_.offwidth = drawn.vis.global_.offheight = size
        if quality != "stock":
            drawn.vis.quality.offsamples = 0
            drawn.vis.quality.shadowsize = 0

        _free_forgotten()
        self._gl = gl_context(size, size)
        self._number = next(_numbers)
        _open[self._number] = self._gl, None
        atexit.unregister(_free_all)
        atexit.register(_free_all)  # after the backend's own, so before it: theirs shuts OpenGL down
        weakref.finalize(self, _forgotten.append, self._number).atexit = False
        try:
            self._gl.make_current()
            self._context = mujoco.MjrContext(drawn, mujoco.mjtFontScale.mjFONTSCALE_50)
        except BaseException:
            self.close()
            raise
        _open[self._number] = self._gl, self._context
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, self._context)
        self._scene = mujoco.MjvScene(model, maxgeom=model.ngeom + model.nsite + 100)
        if quality != "stock":
            for flag in (mujoco.mjtRndFlag.mjRND_SHADOW, mujoco.mjtRndFlag.mjRND_REFLECTION):
                self._scene.flags[flag] = 0
        self._option = mujoco.MjvOption()
        self._option.geomgroup[SHAPES_GROUP] = False
        self._option.geomgroup[MESHES_GROUP] = True
        self._camera = mujoco.MjvCamera()
        self._camera.type = mujoco.mjtCamera.mjCAMERA_FIXED
        self._view = mujoco.MjrRect(0, 0, size, size)
        self._pixels = np.empty((size, size, 3), np.uint8)

    def images(self, data: Any) -> dict[str, np.ndarray]:
        """{camera: uint8 (size, size, 3)} of the state in data (mujoco.MjData), upright. New arrays each time."""
        mujoco = self._mujoco
        self._gl.make_current()
        images = {}
        for name, camera_id in self._camera_ids.items():
            self._camera.fixedcamid = camera_id
            mujoco.mjv_updateScene(
                self._model, data, self._option, None, self._camera, mujoco.mjtCatBit.mjCAT_ALL, self._scene
            )
            mujoco.mjr_render(self._view, self._scene, self._context)
            mujoco.mjr_readPixels(self._pixels, None, self._view, self._context)
            images[name] = self._pixels[::-1].copy()  # OpenGL counts rows from below
        return images

    def close(self) -> None:
        _free(self._number)
