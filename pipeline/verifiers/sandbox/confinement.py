"""What a process gives up before it runs what nobody vouches for. Standard library only: the runner of programs loads this file by itself.

Linux alone. Each function says whether the kernel agreed; none can be undone by the process, nor by what it starts.
"""

import ctypes
import errno
import os
import platform
import resource
import signal
import struct
import sys
from collections.abc import Iterable, Mapping

PR_SET_PDEATHSIG, PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS, SECCOMP_MODE_FILTER = (
    1,
    22,
    38,
    2,
)  # linux/prctl.h
CLONE_THREAD = 0x10000
CREATE_RULESET, ADD_RULE, RESTRICT_SELF, RULE_PATH_BENEATH = (
    444,
    445,
    446,
    1,
)  # linux/landlock.h; one number on every architecture
# by ABI: write to files, remove and make every kind of entry; then refer (2), truncate (3)
WRITE_FILE, READ_FILE = 2, 4
WRITING = {1: 0x1FF2, 2: 0x3FF2, 3: 0x7FF2}

AUDIT_ARCH_X86_64 = 0xC000003E
LOAD, EQUAL, AT_LEAST, BITS, RETURN = (
    0x20,
    0x15,
    0x35,
    0x45,
    0x06,
)  # linux/bpf_common.h, as classes and modes added up
ALLOW, KILL, ERRNO = 0x7FFF0000, 0x80000000, 0x00050000  # linux/seccomp.h
CLONE, CLONE3, X32 = 56, 435, 0x40000000
# names and numbers of system calls on x86-64
NETWORK = "socket 41 io_uring_setup 425"
PROCESSES = """fork 57 vfork 58 execve 59 execveat 322 kill 62 tkill 200 tgkill 234 rt_sigqueueinfo 129 rt_tgsigqueueinfo 297
    pidfd_send_signal 424 pidfd_open 434 pidfd_getfd 438 ptrace 101 prlimit64 302 process_vm_readv 310 process_vm_writev 311
    setpgid 109 setsid 112 setpriority 141"""
KERNEL = """unshare 272 setns 308 mount 165 umount2 166 chroot 161 pivot_root 155 keyctl 250 add_key 248 request_key 249 bpf 321
    perf_event_open 298 userfaultfd 323"""
LASTING = "shmget 29 semget 64 msgget 68 mq_open 240 memfd_create 319"  # what outlives a process, or is memory that no limit counts
UNOPENED = """truncate 76 chmod 90 fchmod 91 fchmodat 268 fchmodat2 452 chown 92 fchown 93 lchown 94 fchownat 260 utime 132 utimes 235
    futimesat 261 utimensat 280 setxattr 188 lsetxattr 189 fsetxattr 190 removexattr 197 lremovexattr 198 fremovexattr 199"""
WRITERS = """creat 85 openat2 437 unlink 87 unlinkat 263 rename 82 renameat 264 renameat2 316 mkdir 83 mkdirat 258 rmdir 84 link 86
    linkat 265 symlink 88 symlinkat 266 mknod 133 mknodat 259"""
OPENERS = {2: 24, 257: 32}  # open and openat, and where in the data their flags lie
FOR_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC


def end_with_parent(parent: int) -> None:
    """End, by SIGKILL, when the thread that started this process does; at once if it has gone already."""
    _libc().prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def limit_resources(limits: Mapping[int, int]) -> None:
    """Set resource limits, soft and hard, by resource's RLIMIT_ numbers; none above what is allowed already."""
    for which, most in limits.items():
        allowed = resource.getrlimit(which)[1]
        least = most if allowed == resource.RLIM_INFINITY else min(most, allowed)
        resource.setrlimit(which, (least, least))


def forbid_system_calls(allow_writing: bool) -> bool:
    """From now on no socket, no new process or program, no signal to another one, and unless `allow_writing` no file opened for writing, made,
    moved or removed: such system calls fail with EPERM (seccomp; x86-64)."""
    if platform.machine() != "x86_64" or sys.platform != "linux":
        return False
    program = b"".join(_instructions(allow_writing))
    held = ctypes.create_string_buffer(program, len(program))
    descriptor = struct.pack("HxxxxxxQ", len(program) // 8, ctypes.addressof(held))
    return (
        _no_new_rights()
        and _libc().prctl(
            PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.create_string_buffer(descriptor), 0, 0
        )
        == 0
    )


def restrict_files(writable: str, readable: Iterable[str]) -> bool:
    """From now on no file is written, made or removed but below one folder, and none read but there and below the others (Landlock)."""
    libc = _libc()
    version = libc.syscall(CREATE_RULESET, None, 0, 1)
    if version < 1:
        return False
    handled = READ_FILE | WRITING[min(version, 3)]
    rules = libc.syscall(CREATE_RULESET, struct.pack("Q", handled), 8, 0)
    rights = {
        **dict.fromkeys(readable, READ_FILE),
        "/dev/null": READ_FILE | WRITE_FILE,
        writable: handled,
    }
    for path in filter(os.path.exists, rights):
        at = os.open(path, os.O_PATH | os.O_CLOEXEC)
        libc.syscall(ADD_RULE, rules, RULE_PATH_BENEATH, struct.pack("=Qi", rights[path], at), 0)
        os.close(at)
    locked = _no_new_rights() and libc.syscall(RESTRICT_SELF, rules, 0) == 0
    os.close(rules)
    return locked


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _no_new_rights() -> bool:
    return _libc().prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0


def _instructions(writing: bool) -> list[bytes]:
    """The filter over (call number at 0, architecture at 4, arguments from 16 on, eight bytes each), as struct sock_filter."""

    def one(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
        return struct.pack("HBBI", code, if_true, if_false, value)

    def when(test: int, value: int, outcome: int) -> list[bytes]:
        return [one(test, value, 0, 1), one(RETURN, outcome)]

    def with_flags(number: int, at: int, flags: int, then: int, otherwise: int) -> list[bytes]:
        return [
            one(EQUAL, number, 0, 4),
            one(LOAD, at),
            one(BITS, flags, 0, 1),
            one(RETURN, then),
            one(RETURN, otherwise),
        ]

    refused = ERRNO | errno.EPERM
    opened = [
        line
        for number, at in OPENERS.items()
        for line in with_flags(number, at, FOR_WRITING, refused, ALLOW)
    ]
    refusals = [NETWORK, PROCESSES, KERNEL, LASTING, UNOPENED, *(() if writing else (WRITERS,))]
    numbers = [int(number) for calls in refusals for number in calls.split()[1::2]]
    return [
        *(one(LOAD, 4), one(EQUAL, AUDIT_ARCH_X86_64, 1, 0), one(RETURN, KILL), one(LOAD, 0)),
        *when(AT_LEAST, X32, KILL),
        *(line for number in numbers for line in when(EQUAL, number, refused)),
        # its flags lie in memory, where a filter cannot look; libc then takes clone
        *when(EQUAL, CLONE3, ERRNO | errno.ENOSYS),
        *with_flags(CLONE, 16, CLONE_THREAD, ALLOW, refused),
        *(() if writing else opened),
        one(RETURN, ALLOW),
    ]
