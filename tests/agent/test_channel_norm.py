"""The encoder's CPU kernel: what it computes, and that whatever happens to its build costs speed alone."""

import os
import re
import shutil
import subprocess
import time

import forked
import pytest
import torch
import torch.nn.functional as F

from agent import channel_norm
from agent.networks import ChannelNorm

needs_compiler = pytest.mark.skipif(not any(map(shutil.which, channel_norm.COMPILERS)), reason="no C compiler")
SHAPES = [(1, 1, 1, 1), (1, 32, 5, 7), (3, 17, 4, 1), (2, 16, 9, 9), (5, 64, 3, 2), (2, 100, 6, 5), (0, 32, 4, 4)]


@pytest.fixture
def fresh_build(monkeypatch, tmp_path):
    """The kernel isn't loaded, and the cache is empty; returns the cache's folder."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    channel_norm.kernel.cache_clear()
    yield tmp_path / "calql" / "kernels"
    channel_norm.kernel.cache_clear()


@pytest.fixture
def three_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


def layer(channels):
    norm = ChannelNorm(channels)
    with torch.no_grad():
        norm.weight += 0.3 * torch.randn(channels)
        norm.bias += 0.3 * torch.randn(channels)
    return norm


def values_and_gradients(maps, norm, of_out):
    maps = maps.detach().requires_grad_()
    out = norm(maps)
    return [out.detach(), *torch.autograd.grad(out, [maps, norm.weight, norm.bias], of_out)]


def check(maps):
    """ChannelNorm of maps (B, C, H, W), with and without gradient, against plain layers in float64."""
    norm = layer(maps.shape[1])
    exact, of_out = layer(maps.shape[1]).double(), torch.randn(maps.shape)
    exact.load_state_dict(norm.state_dict())
    before_relu = F.layer_norm(maps.double().movedim(1, -1), norm.normalized_shape, exact.weight, exact.bias)
    of_out[before_relu.movedim(-1, 1).abs() < 1e-5] = 0  # ReLU's kink: rounding decides
    assert channel_norm.usable(maps, norm.weight)
    found = values_and_gradients(maps, norm, of_out)
    plain = values_and_gradients(maps.double(), exact, of_out.double())
    for one, other in zip(found, plain, strict=True):
        scale = max(1, other.abs().max()) if other.numel() else 1
        torch.testing.assert_close(one.double() / scale, other / scale, rtol=0, atol=1e-6)
    with torch.inference_mode():
        assert torch.equal(norm(maps.clone(memory_format=torch.preserve_format)), found[0])


@needs_compiler
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_it_is_layer_norm_and_relu_with_their_gradients(shape):
    torch.manual_seed(0)
    maps = 2 * torch.randn(shape) + 1
    check(maps.to(memory_format=torch.channels_last))
    check(maps)
    check((2 * torch.randn(*shape[:3], 2 * shape[3]))[..., ::2])


@needs_compiler
def test_several_threads_share_the_rows(three_threads):
    torch.manual_seed(0)
    maps = torch.randn(3, 32, 41, 43).to(memory_format=torch.channels_last)
    assert channel_norm._threads(maps) == 3
    check(maps)


@needs_compiler
@pytest.mark.parametrize("channels", [5, 32])
def test_nan_and_infinity_are_not_hidden(channels):
    maps, norm = torch.randn(3, channels, 1, 1), layer(channels)
    maps[0, 1], maps[1, 2] = float("nan"), float("inf")
    out, of_maps, of_weight, _ = values_and_gradients(maps, norm, torch.ones_like(maps))
    assert out[:2].isnan().all() and not out[2].isnan().any()
    assert of_maps[:2].isnan().all() and not of_maps[2].isnan().any() and of_weight.isnan().all()


@needs_compiler
def test_with_a_gradient_the_maps_are_left_alone():
    maps, norm = torch.randn(2, 32, 4, 4), layer(32)
    before = maps.clone()
    norm(maps)
    assert torch.equal(maps, before)


@needs_compiler
def test_other_numbers_take_the_plain_layers(monkeypatch):
    monkeypatch.setattr(channel_norm, "norm_relu", None)
    maps, norm = torch.randn(2, 32, 4, 4), layer(32)
    assert norm.double()(maps.double()).dtype == torch.float64
    assert norm.bfloat16()(maps.bfloat16()).dtype == torch.bfloat16
    assert norm.float().to("meta")(maps.to("meta")).shape == maps.shape


@needs_compiler
def test_the_kernel_is_built_once_and_then_needs_no_compiler(fresh_build, monkeypatch, logged):
    assert channel_norm.kernel()
    (built,) = fresh_build.iterdir()
    assert [str(built) in line for line in logged()] == [True]
    channel_norm.kernel.cache_clear()
    monkeypatch.setenv("CC", "no-such-compiler")
    assert channel_norm.kernel() and logged() == []


@needs_compiler
@pytest.mark.parametrize("planted", ["half of a file", "writable by others", "another user's"])
def test_a_damaged_file_or_one_of_somebody_else_is_not_loaded_but_built_anew(fresh_build, monkeypatch, logged, planted):
    assert channel_norm.kernel()
    (built,) = fresh_build.iterdir()
    assert built.stat().st_mode & 0o077 == 0
    before = built.stat().st_ino
    if planted == "half of a file":
        built.write_bytes(b"\x7fELF")
    elif planted == "writable by others":
        built.chmod(0o722)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: built.stat().st_uid + 1)
    channel_norm.kernel.cache_clear()
    logged()
    library = channel_norm.kernel()
    (line,) = logged()
    if planted == "another user's":
        assert library is None and str(built.parent) in line and "another user's" in line
    else:
        assert library and "built" in line and built.stat().st_ino != before and built.stat().st_mode & 0o077 == 0


@needs_compiler
def test_another_processor_gets_a_file_of_its_own(fresh_build, monkeypatch):
    assert channel_norm.kernel()
    monkeypatch.setattr(channel_norm, "_processor", lambda: "model name: another")
    channel_norm.kernel.cache_clear()
    assert channel_norm.kernel() and len(list(fresh_build.iterdir())) == 2


@needs_compiler
def test_it_brings_no_openmp_of_its_own(fresh_build):
    assert channel_norm.kernel()
    (built,) = fresh_build.iterdir()
    needed = [name for name in (b"libgomp", b"libomp", b"libc.so") if name in built.read_bytes()]
    assert not needed


@needs_compiler
def test_a_large_offset_costs_no_more_digits_than_in_pytorch():
    torch.manual_seed(0)
    maps, norm = 100 + 0.1 * torch.randn(4, 32, 5, 5), layer(32)
    exact = F.layer_norm(maps.double().movedim(1, -1), (32,), norm.weight.double(), norm.bias.double()).relu()
    assert (norm(maps) - exact.movedim(-1, 1)).abs().max() < 1e-3


@needs_compiler
def test_a_scale_with_strides_is_read_as_it_is():
    maps, norm, other = torch.randn(2, 32, 4, 4), layer(32), layer(32)
    with torch.no_grad():
        for name in ("weight", "bias"):
            strided = torch.nn.Parameter(torch.zeros(64)[::2])
            strided.copy_(getattr(norm, name))
            setattr(other, name, strided)
    assert not other.weight.is_contiguous() and torch.equal(other(maps), norm(maps))


def script(path, body):
    path.write_text(f"#!/bin/sh\nfor last; do :; done  # the output\n{body}\n")
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize(
    ("compiler", "reason"),
    [
        ("", "no C compiler"),
        ("no-such-compiler", "no-such-compiler"),
        ("echo 'cc1: unknown -march' >&2; exit 1", "unknown -march"),
        ("exit 0", "failed"),
        ("echo half > $last", "invalid ELF|too short"),
        ("exec sleep 60", "timed out"),
    ],
)
def test_without_a_kernel_the_layers_are_plain_and_one_line_says_why(
    fresh_build, monkeypatch, tmp_path, logged, compiler, reason
):
    monkeypatch.setattr(channel_norm, "BUILD_TIMEOUT_S", 0.5 if "sleep" in compiler else 60)
    if not compiler:
        monkeypatch.setattr(channel_norm, "COMPILERS", ())
    else:
        named = compiler if compiler.startswith("no-such") else script(tmp_path / "cc", compiler)
        monkeypatch.setenv("CC", named)
    norm, maps = layer(32), torch.randn(2, 32, 4, 4)
    plain = F.relu(F.layer_norm(maps.movedim(1, -1), (32,), norm.weight, norm.bias)).movedim(-1, 1)
    for _ in range(2):
        torch.testing.assert_close(norm(maps), plain)
    (line,) = logged()
    assert "without its own CPU kernel" in line
    assert re.search(reason, line)
    assert not list(fresh_build.parent.rglob("*.so"))


def test_a_cache_that_cannot_be_written_costs_the_kernel_alone(fresh_build, monkeypatch, logged):
    fresh_build.parent.parent.joinpath("calql").write_text("a file")
    assert channel_norm.kernel() is None
    assert len(logged()) == 1


@needs_compiler
def test_a_build_that_was_killed_blocks_none_after_it(fresh_build, tmp_path):
    begun = tmp_path / "begun"
    compiler = script(
        tmp_path / "cc", f"echo half > $last; echo $$ > {begun}.part; mv {begun}.part {begun}; exec sleep 60"
    )
    environ = {**os.environ, "CC": compiler}
    program = forked.Program("-c", "from agent import channel_norm; channel_norm.kernel()", environ=environ)
    deadline = time.monotonic() + 60
    while not begun.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    program.kill()
    program.wait(60)
    subprocess.run(["kill", begun.read_text().strip()], check=True)
    assert channel_norm.kernel()


@needs_compiler
def test_processes_that_build_at_once_each_get_it(fresh_build, tmp_path):
    source = "from agent import channel_norm; assert channel_norm.kernel()"
    programs = [forked.Program("-c", source, out=tmp_path / f"{number}") for number in range(3)]
    assert [program.wait(60) for program in programs] == [0] * 3, [program.said() for program in programs]
    assert [path.suffix for path in fresh_build.iterdir()] == [".so"]
