"""Runs a command on Linux 6.1 with cgroup v2, as most production hosts have it, on this machine's own files.

    python -m scripts.cgroup2_vm [--situation beside] -- .venv/bin/python -m pytest -q tests/worker/test_kernel_layer.py

A small machine is emulated (qemu without KVM: some twelve times slower than this one, up in eight seconds), with two
processors. It sees this machine's files under an overlay: what the command writes is kept in memory and gone
afterwards; only /var/tmp is on a disk. The command runs as root, in this directory, with PATH, HOME, LANG, TZ, PYTHON*,
VIRTUAL_ENV and RQMEM_* of the caller. Output and exit code come back. Debian's packages are installed where they are
missing, by apt-get.

Exit codes: the command's; 124: it took too long, or the machine did not come up; 125: the packages cannot be installed.
"""

from __future__ import annotations

import contextlib
import gzip
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import click

TOO_LONG, CANNOT = 124, 125
_PACKAGES = {"qemu-system-x86": "qemu-system-x86_64", "busybox-static": "busybox", "cpio": "cpio"}  # and their programs
_KERNEL = "linux-image-cloud-amd64"
_VIRTIOFSD = ("/usr/lib/qemu/virtiofsd", "/usr/libexec/virtiofsd")
_MODULES = (
    "virtio", "virtio_ring", "virtio_pci_modern_dev", "virtio_pci_legacy_dev", "virtio_pci", "fuse", "virtiofs",
    "overlay",
)  # fmt: skip
_PASSED_ON = re.compile(r"PATH|HOME|LANG|TZ|VIRTUAL_ENV|(PYTHON|RQMEM_).*")
_BEGINS, _ENDED = "=== begins", "=== ended "

# What bash does before the command, in which group it starts, and who else is there.
SITUATIONS = {
    "alone": "echo $$ >/sys/fs/cgroup/app/cgroup.procs",
    "beside": """
        echo +memory >/sys/fs/cgroup/app/cgroup.subtree_control; mkdir /sys/fs/cgroup/app/w
        echo $$ >/sys/fs/cgroup/app/w/cgroup.procs; (sleep 100000 &)""",
    "container": """
        echo $$ >/sys/fs/cgroup/app/cgroup.procs; (sleep 100000 &)
        set -- unshare --cgroup --mount bash -c \
            'umount /sys/fs/cgroup; mount -t cgroup2 cgroup2 /sys/fs/cgroup; exec "$@"' bash "$@" """,
}

_INIT = """#!/bin/busybox sh
b=/bin/busybox
$b mount -t proc proc /proc; $b mount -t sysfs sys /sys; $b mount -t devtmpfs dev /dev
for pass in 1 2 3 4; do for m in {modules}; do [ -f /modules/$m.ko ] && $b insmod /modules/$m.ko 2>/dev/null; done; done
$b mount -t virtiofs root /ro && $b mount -t tmpfs -o size=75% tmpfs /rw && $b mkdir -p /rw/upper /rw/work
$b mount -t overlay -o lowerdir=/ro,upperdir=/rw/upper,workdir=/rw/work overlay /new
$b mount --bind /ro{folder}/disk /new/var/tmp
for d in proc sys dev run; do $b mkdir -p /new/$d; done
$b mount -t proc proc /new/proc; $b mount -t sysfs sys /new/sys; $b mount --bind /dev /new/dev
$b mkdir -p /new/dev/shm /new/dev/pts; $b mount -t tmpfs -o size=50% shm /new/dev/shm
$b mount -t devpts pts /new/dev/pts; $b mount -t tmpfs run /new/run; $b ifconfig lo 127.0.0.1 up
$b mount -t cgroup2 cgroup2 /new/sys/fs/cgroup
echo +memory >/new/sys/fs/cgroup/cgroup.subtree_control; $b mkdir -p /new/sys/fs/cgroup/app
echo 0 >/proc/sys/kernel/printk
$b date -s @{now} >/dev/null
echo "{begins}"
$b chroot /new /bin/bash {command}
echo "{ended}$?"
$b poweroff -f
"""


@click.command(context_settings={"ignore_unknown_options": True})
@click.option("--situation", type=click.Choice(list(SITUATIONS)), default="alone", show_default=True,
              help="alone in a group; next to others below a group that hands the memory controller down; next to "
                   "others in a container's root group")  # fmt: skip
@click.option("--timeout", "timeout_seconds", type=int, default=1800, show_default=True, help="Seconds.")
@click.option("--memory", "memory_mb", type=int, default=3072, show_default=True, help="MB.")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def main(situation: str, timeout_seconds: int, memory_mb: int, command: tuple[str, ...]) -> None:
    """Run COMMAND on an emulated machine with cgroup v2."""
    if not _installed():
        click.echo(f"cgroup2_vm: needs qemu and a kernel, from Debian's packages: {', '.join(_missing())}", err=True)
        sys.exit(CANNOT)
    with tempfile.TemporaryDirectory(prefix="cgroup2-vm-") as name:
        folder = Path(name)
        (folder / "start").write_text(_start(situation, command))
        kernel = _kernels()[-1]
        initrd = _initrd(folder, kernel.name.removeprefix("vmlinuz-"))
        with _files(folder) as socket:
            sys.exit(_run(kernel, initrd, socket, timeout_seconds, memory_mb))


def _missing() -> list[str]:
    missing = [package for package, program in _PACKAGES.items() if not shutil.which(program)]
    return missing if _kernels() else [*missing, _KERNEL]


def _installed() -> bool:
    missing = _missing()
    if missing and shutil.which("apt-get"):
        as_root = [] if os.geteuid() == 0 else ["sudo", "-n"]
        environ = ["env", "DEBIAN_FRONTEND=noninteractive"]
        for step in (["update"], ["install", "-y", "--no-install-recommends", *missing]):
            with contextlib.suppress(subprocess.TimeoutExpired):
                subprocess.run([*as_root, *environ, "apt-get", *step], stdin=subprocess.DEVNULL, capture_output=True,
                               timeout=600, check=False)  # fmt: skip
    return not _missing()


def _kernels() -> list[Path]:
    return sorted(
        Path("/boot").glob("vmlinuz-*-cloud-amd64"), key=lambda path: [*map(int, re.findall(r"\d+", path.name))]
    )


def _start(situation: str, command: tuple[str, ...]) -> str:
    """For bash, in the machine."""
    environ = [
        f"export {name}={shlex.quote(value)}" for name, value in os.environ.items() if _PASSED_ON.fullmatch(name)
    ]
    return "\n".join([*environ, f"set -- {shlex.join(command)}", SITUATIONS[situation],
                      f"cd {shlex.quote(str(Path.cwd()))}", 'exec "$@"', ""])  # fmt: skip


def _initrd(folder: Path, release: str) -> Path:
    """The first root: busybox, the modules that mount this machine's files, and what to do then."""
    root = folder / "root"
    for each in ("bin", "modules", "ro", "rw", "new", "proc", "sys", "dev"):
        (root / each).mkdir(parents=True)
    shutil.copy(shutil.which("busybox") or "", root / "bin/busybox")
    for module in _MODULES:
        for file in Path("/lib/modules", release).rglob(f"{module}.ko"):
            shutil.copy(file, root / "modules")
    (folder / "disk").mkdir(mode=0o1777)
    init = root / "init"
    init.write_text(_INIT.format(modules=" ".join(_MODULES), now=int(time.time()), begins=_BEGINS, ended=_ENDED,
                                 command=folder / "start", folder=folder))  # fmt: skip
    init.chmod(0o755)
    names = "\n".join(str(path.relative_to(root)) for path in sorted(root.rglob("*")))
    packed = subprocess.run(["cpio", "-o", "-H", "newc", "--quiet"], cwd=root, input=names.encode(), check=True,
                            capture_output=True).stdout  # fmt: skip
    initrd = folder / "initrd"
    initrd.write_bytes(gzip.compress(packed, 1))
    return initrd


@contextlib.contextmanager
def _files(folder: Path) -> Iterator[Path]:
    """Serve this machine's files to the other, over a socket."""
    socket = folder / "files"
    program = next(path for path in _VIRTIOFSD if Path(path).exists())
    options = [f"--socket-path={socket}", "-o", "source=/", "-o", "cache=auto", "-o", "sandbox=chroot"]
    with subprocess.Popen([program, *options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            while not socket.exists() and server.poll() is None:
                time.sleep(0.05)
            yield socket
        finally:
            server.terminate()


def _run(kernel: Path, initrd: Path, socket: Path, timeout_seconds: int, memory_mb: int) -> int:
    """Run the machine, print what the command prints, and return the command's exit code."""
    options = [
        "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", str(memory_mb), "-nographic", "-no-reboot",
        "-object", f"memory-backend-memfd,id=memory,size={memory_mb}M,share=on", "-numa", "node,memdev=memory",
        "-chardev", f"socket,id=files,path={socket}", "-device", "vhost-user-fs-pci,chardev=files,tag=root",
        "-kernel", str(kernel), "-initrd", str(initrd), "-append", "console=ttyS0 panic=1 quiet",
    ]  # fmt: skip
    code, begun = TOO_LONG, False
    limited = ["timeout", str(timeout_seconds), "qemu-system-x86_64"]
    with subprocess.Popen([*limited, *options], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as machine:
        assert machine.stdout is not None
        for line in machine.stdout:
            text = line.decode(errors="replace").replace("\r", "").rstrip("\n")
            if text.startswith(_ENDED):
                code = int(text.removeprefix(_ENDED))
            elif begun:
                print(text, flush=True)
            begun = begun or _BEGINS in text  # the boot loader leaves something before it
    return code


if __name__ == "__main__":
    main()
