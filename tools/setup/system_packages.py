"""Check for what pip cannot install: headless OpenGL, the libraries OpenCV links to, and venv with pip.

Installs the missing Debian packages when run as root; otherwise says in one line which they are, and fails.
Called with "tests", it does so for Chromium, in which the operator's page is tested, and never fails: those tests skip.
Runs before anything is installed, so it needs the standard library only.
"""

import ctypes
import importlib.util
import os
import shutil
import subprocess
import sys

LIBRARIES = {"libEGL.so.1": "libegl1", "libGL.so.1": "libgl1", "libgthread-2.0.so.0": "libglib2.0-0"}
EGL_PLATFORM_DEVICE_EXT = 0x313F


def main() -> None:
    packages = missing()
    if not packages:
        return
    install(packages)
    if still := missing():
        sys.exit(f"Missing on this machine. Install, then call make again: sudo apt-get install {' '.join(still)}")


def install(packages: list[str]) -> None:
    """By apt-get, as root."""
    if os.geteuid() == 0 and shutil.which("apt-get"):
        print("Installing with apt-get:", *packages, flush=True)
        environ = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        for command in (["update"], ["install", "-y", "--no-install-recommends", *packages]):
            subprocess.run(["apt-get", "-qq", *command], env=environ, stdin=subprocess.DEVNULL)


def install_for_tests() -> None:
    if not any(map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))):
        install(["chromium"])


def missing() -> list[str]:
    """Debian's names of the packages that are needed and not there."""
    packages = [package for library, package in LIBRARIES.items() if not loads(library)]
    if not renders():
        packages += ["libgl1-mesa-dri"]
    if not shutil.which("uv") and not importlib.util.find_spec("ensurepip"):
        packages += [f"python{sys.version_info.major}.{sys.version_info.minor}-venv"]
    return packages


def loads(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


def renders() -> bool:
    """Can EGL open a display without a screen, on a GPU or in software? Asked in a process of its own, for every
    answer to be fresh and a driver's crash to be a no."""
    return subprocess.run([sys.executable, __file__, "egl"], capture_output=True).returncode == 0


def egl_opens() -> bool:
    if not loads("libEGL.so.1"):
        return False
    egl = ctypes.CDLL("libEGL.so.1")
    egl.eglGetProcAddress.restype = ctypes.c_void_p
    query_address = egl.eglGetProcAddress(b"eglQueryDevicesEXT")
    display_address = egl.eglGetProcAddress(b"eglGetPlatformDisplayEXT")
    if not query_address or not display_address:
        return False
    pointers, count = ctypes.POINTER(ctypes.c_void_p), ctypes.POINTER(ctypes.c_int)
    query_devices = ctypes.CFUNCTYPE(ctypes.c_uint, ctypes.c_int, pointers, count)(query_address)
    platform_display = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_uint, ctypes.c_void_p, ctypes.c_void_p)(
        display_address
    )
    devices, found = (ctypes.c_void_p * 16)(), ctypes.c_int()
    query_devices(16, devices, ctypes.byref(found))
    displays = [platform_display(EGL_PLATFORM_DEVICE_EXT, devices[i], None) for i in range(found.value)]
    return any(display and egl.eglInitialize(ctypes.c_void_p(display), None, None) for display in displays)


if __name__ == "__main__":
    if sys.argv[1:] == ["egl"]:
        sys.exit(not egl_opens())
    install_for_tests() if sys.argv[1:] == ["tests"] else main()
