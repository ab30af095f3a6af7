"""What a process gives up before it runs untrusted code; Linux only.

Each function returns whether the kernel agreed. Neither the process nor what it starts can undo
them. Standard library only, since program_runner.py loads this file by itself.
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

# linux/prctl.h
PR_SET_PDEATHSIG = 1
PR_SET_NAME = 15
PR_GET_NAME = 16
PR_SET_SECCOMP = 22
PR_CAPBSET_DROP = 24
PR_SET_NO_NEW_PRIVS = 38
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_CLEAR_ALL = 4
PR_SET_VMA = 0x53564D41
SECCOMP_MODE_FILTER = 2
# linux/sched.h
CLONE_THREAD = 0x10000
# linux/capability.h
CAPABILITY_VERSION = 0x20080522
CAPABILITIES = 64  # bits of a set; more than any kernel has
# linux/landlock.h; system calls with one number on every architecture
CREATE_RULESET = 444
ADD_RULE = 445
RESTRICT_SELF = 446
RULE_PATH_BENEATH = 1
WRITE_FILE = 2
READ_FILE = 4
READ_FOLDER = 8
# write to files, remove and make every kind of entry; then refer (ABI 2), truncate (ABI 3),
# calls of a device's driver (ABI 5)
WRITING = {1: 0x1FF2, 2: 0x3FF2, 3: 0x7FF2, 4: 0x7FF2, 5: 0xFFF2}
BIND_AND_CONNECT = 3  # of TCP (ABI 4)
SOCKETS_AND_SIGNALS = 3  # to processes outside: abstract Unix sockets, signals (ABI 6)
# linux/audit.h
AUDIT_ARCH_X86_64 = 0xC000003E
# linux/bpf_common.h: class, mode and operation added up
LOAD = 0x20
EQUAL = 0x15
AT_LEAST = 0x35
BITS = 0x45
RETURN = 0x06
# linux/seccomp.h
ALLOW = 0x7FFF0000
KILL = 0x80000000
ERRNO = 0x00050000
# names and numbers of system calls on x86-64
CLONE, CLONE3, X32 = 56, 435, 0x40000000
SENDTO, LENGTH_OF_ADDRESS = 44, 56  # a pair of sockets is allowed; writing to any other is not
FIRST_UNKNOWN = 470  # later kernels may add calls that this list cannot judge
NETWORK = """socket 41 connect 42 accept 43 sendmsg 46 bind 49 listen 50 accept4 288
    sendmmsg 307 io_uring_setup 425"""
PROCESSES = """fork 57 vfork 58 execve 59 execveat 322 kill 62 tkill 200 tgkill 234
    rt_sigqueueinfo 129 rt_tgsigqueueinfo 297 pidfd_send_signal 424 pidfd_open 434 pidfd_getfd 438
    ptrace 101 prlimit64 302 process_vm_readv 310 process_vm_writev 311 setpgid 109 setsid 112
    setpriority 141 sched_setparam 142 sched_setscheduler 144 sched_setaffinity 203
    sched_setattr 314 ioprio_set 251 migrate_pages 256 move_pages 279 kcmp 312
    process_madvise 440 process_mrelease 448"""
# a process that changes its user or capabilities would no longer end with its parent
IDENTITY = """setuid 105 setgid 106 setreuid 113 setregid 114 setgroups 116 setresuid 117
    setresgid 119 setfsuid 122 setfsgid 123 capset 126 personality 135"""
KERNEL = """unshare 272 setns 308 mount 165 umount2 166 chroot 161 pivot_root 155 keyctl 250
    add_key 248 request_key 249 bpf 321 perf_event_open 298 userfaultfd 323 sethostname 170
    setdomainname 171 settimeofday 164 clock_settime 227 adjtimex 159 clock_adjtime 305
    reboot 169 swapon 167 swapoff 168 init_module 175 finit_module 313 delete_module 176
    kexec_load 246 kexec_file_load 320 iopl 172 ioperm 173 acct 163 quotactl 179
    quotactl_fd 443 syslog 103 vhangup 153 modify_ldt 154 name_to_handle_at 303
    open_by_handle_at 304 open_tree 428 move_mount 429 fsopen 430 fsconfig 431 fsmount 432
    fspick 433 mount_setattr 442 statmount 457 listmount 458 open_tree_attr 467"""
# tell what others do to files and folders
WATCHES = """inotify_init 253 inotify_add_watch 254 inotify_init1 294 fanotify_init 300
    fanotify_mark 301"""
# what outlives a process, or is memory that no limit counts
LASTING = """shmget 29 shmat 30 shmctl 31 semget 64 semop 65 semctl 66 semtimedop 220 msgget 68
    msgsnd 69 msgrcv 70 msgctl 71 mq_open 240 mq_unlink 241 memfd_create 319 memfd_secret 447"""
# what changes a file without opening it
UNOPENED = """truncate 76 chmod 90 fchmod 91 fchmodat 268 fchmodat2 452 chown 92 fchown 93
    lchown 94 fchownat 260 utime 132 utimes 235 futimesat 261 utimensat 280 setxattr 188
    lsetxattr 189 fsetxattr 190 removexattr 197 lremovexattr 198 fremovexattr 199
    setxattrat 463 removexattrat 466 file_setattr 469"""
WRITERS = """creat 85 openat2 437 unlink 87 unlinkat 263 rename 82 renameat 264 renameat2 316
    mkdir 83 mkdirat 258 rmdir 84 link 86 linkat 265 symlink 88 symlinkat 266 mknod 133
    mknodat 259"""
OPENERS = {2: 24, 257: 32}  # open and openat, and the offset of their flags
# Of some calls only these operations are allowed, by the call's number: the offset of the argument
# that names the operation, and the allowed ones. The others send signals (F_SETOWN, FIOSETOWN),
# tell of folders (F_NOTIFY), change what a file is, or let a process outlive its parent.
OPERATIONS = {
    72: (24, (0, 1, 2, 3, 4, 5, 6, 7, 36, 37, 38, 1030, 1032)),  # fcntl: copies, flags, locks
    16: (24, (0x5401, 0x802C542A, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451)),  # ioctl: questions
    157: (16, (PR_SET_NAME, PR_GET_NAME, PR_SET_VMA)),  # prctl
}
FOR_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC


def end_with_parent(parent: int) -> None:
    """Let the kernel kill this process when the thread that started it ends.

    Ends at once if the parent has ended already.
    """
    _libc().prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def limit_resources(limits: Mapping[int, int]) -> None:
    """Set soft and hard limits, by RLIMIT_ number; none exceeds what is allowed already."""
    for number, most in limits.items():
        allowed = resource.getrlimit(number)[1]
        limit = most if allowed == resource.RLIM_INFINITY else min(most, allowed)
        resource.setrlimit(number, (limit, limit))


def drop_capabilities() -> None:
    """Give up every capability of root, also for programs that could be started later."""
    libc = _libc()
    libc.prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
    for capability in range(CAPABILITIES):  # refused where there is none to give up
        libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)
    header = struct.pack("Ii", CAPABILITY_VERSION, 0)
    if libc.capset(header, bytes(24)) != 0:
        raise OSError(ctypes.get_errno(), "the capabilities cannot be dropped")


def forbid_system_calls(allow_writing: bool) -> bool:
    """Make system calls for network, processes and signals fail with EPERM (seccomp, x86-64).

    Unless `allow_writing`, also those that open files for writing, or make, move or remove them.
    """
    if platform.machine() != "x86_64" or sys.platform != "linux":
        return False
    program = b"".join(_instructions(allow_writing))
    buffer = ctypes.create_string_buffer(program, len(program))
    descriptor = struct.pack("HxxxxxxQ", len(program) // 8, ctypes.addressof(buffer))
    pointer = ctypes.create_string_buffer(descriptor)
    if not _forbid_new_privileges():
        return False
    return _libc().prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, pointer, 0, 0) == 0


def restrict_files(writable: str, readable: Iterable[str]) -> bool:
    """Allow writing only inside the folder `writable`, reading only there and inside `readable`.

    By Landlock. Reading includes the listing of folders. A kernel that can do so also refuses TCP
    (Linux 6.7) and signals to processes outside (6.12).
    """
    libc = _libc()
    version = libc.syscall(CREATE_RULESET, None, 0, 1)
    if version < 1:
        return False
    handled = READ_FILE | READ_FOLDER | WRITING[min(version, 5)]
    handles = [handled, *([BIND_AND_CONNECT] if version >= 4 else [])]
    if version >= 6:
        handles.append(SOCKETS_AND_SIGNALS)
    attributes = struct.pack(f"{len(handles)}Q", *handles)
    rules = libc.syscall(CREATE_RULESET, attributes, len(attributes), 0)
    rights = {
        **dict.fromkeys(readable, READ_FILE | READ_FOLDER),
        "/dev/null": READ_FILE | WRITE_FILE,
        writable: handled,
    }
    for path in filter(os.path.exists, rights):
        folder = os.open(path, os.O_PATH | os.O_CLOEXEC)
        allowed = rights[path] if os.path.isdir(path) else rights[path] & ~READ_FOLDER
        rule = struct.pack("=Qi", allowed, folder)
        libc.syscall(ADD_RULE, rules, RULE_PATH_BENEATH, rule, 0)
        os.close(folder)
    restricted = _forbid_new_privileges() and libc.syscall(RESTRICT_SELF, rules, 0) == 0
    os.close(rules)
    return restricted


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _forbid_new_privileges() -> bool:
    return _libc().prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0


def _instruction(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    """Return one struct sock_filter; the jumps count instructions to skip."""
    return struct.pack("HBBI", code, if_true, if_false, value)


def _return_if(test: int, value: int, outcome: int) -> list[bytes]:
    return [_instruction(test, value, 0, 1), _instruction(RETURN, outcome)]


def _return_unless_listed(number: int, offset: int, listed: tuple[int, ...]) -> list[bytes]:
    """Return EPERM for a call of this number whose argument is not listed, ALLOW for the others."""
    tests = [
        _instruction(EQUAL, value, len(listed) - place, 0) for place, value in enumerate(listed)
    ]
    refused = _instruction(RETURN, ERRNO | errno.EPERM)
    body = [_instruction(LOAD, offset), *tests, refused, _instruction(RETURN, ALLOW)]
    return [_instruction(EQUAL, number, 0, len(body)), *body]


def _return_by_flags(number: int, offset: int, flags: int, then: int, other: int) -> list[bytes]:
    """Return `then` for a call of this number with any of the flags, `other` for one without."""
    return [
        _instruction(EQUAL, number, 0, 4),
        _instruction(LOAD, offset),
        _instruction(BITS, flags, 0, 1),
        _instruction(RETURN, then),
        _instruction(RETURN, other),
    ]


def _instructions(allow_writing: bool) -> list[bytes]:
    """Return the BPF filter of system calls.

    It reads the call's number at offset 0, the architecture at 4, and the arguments from 16 on,
    eight bytes each.
    """
    refused = ERRNO | errno.EPERM
    program = [
        _instruction(LOAD, 4),
        _instruction(EQUAL, AUDIT_ARCH_X86_64, 1, 0),
        _instruction(RETURN, KILL),
        _instruction(LOAD, 0),
        *_return_if(AT_LEAST, X32, KILL),
    ]
    program += _return_if(AT_LEAST, FIRST_UNKNOWN, ERRNO | errno.ENOSYS)
    groups = [NETWORK, PROCESSES, IDENTITY, KERNEL, WATCHES, LASTING, UNOPENED]
    if not allow_writing:
        groups.append(WRITERS)
    for group in groups:
        for digits in group.split()[1::2]:
            program += _return_if(EQUAL, int(digits), refused)
    # clone3 keeps its flags in memory, where a filter cannot look; libc then calls clone
    program += _return_if(EQUAL, CLONE3, ERRNO | errno.ENOSYS)
    program += _return_by_flags(CLONE, 16, CLONE_THREAD, ALLOW, refused)
    program += _return_by_flags(SENDTO, LENGTH_OF_ADDRESS, 0xFFFFFFFF, refused, ALLOW)
    for number, (offset, allowed) in OPERATIONS.items():
        program += _return_unless_listed(number, offset, allowed)
    if not allow_writing:
        for number, offset in OPENERS.items():
            program += _return_by_flags(number, offset, FOR_WRITING, refused, ALLOW)
    return [*program, _instruction(RETURN, ALLOW)]
