"""Programs that a model wrote run here and nowhere else.

Covered, for each program on its own: no network (seccomp, and an empty network namespace where the kernel allows one);
reads only below the Python installation and the system's libraries, writes only in a scratch folder that is deleted
afterwards (Landlock); no new processes, sessions, signals, tracing, mounts or device files, on any kernel (seccomp); no
capability, as root either; bounded CPU time, wall-clock time, memory, file size and output (rlimits and the
supervisor); an empty environment.

Not covered: the number of threads and, within the CPU limit, of files in the scratch folder; whether a path exists;
side channels.

It needs Linux 5.13 or newer with Landlock and seccomp, but neither root nor extra packages. A supervisor process
imports once what programs commonly use and then forks for each program, so a run takes a few milliseconds. Several
supervisors run several programs at the same time. A supervisor is this file, started as a script.
"""

import ast
import contextlib
import ctypes
import errno
import json
import os
import platform
import queue
import resource
import select
import signal
import struct
import subprocess
import sys
import tempfile
import time
import traceback
from typing import Any

DEFAULTS = {"cpu_seconds": 5, "wall_seconds": 10, "memory_mb": 512, "output_bytes": 10_000, "file_mb": 1}
PRELOAD = ("math", "fractions", "itertools", "datetime", "sympy")

# ---- Landlock: https://docs.kernel.org/userspace-api/landlock.html
LANDLOCK_CREATE, LANDLOCK_ADD, LANDLOCK_RESTRICT = 444, 445, 446
READ = 1 << 0 | 1 << 2 | 1 << 3  # execute (shared libraries), read_file, read_dir
MAKE_CHAR, MAKE_BLOCK = 1 << 6, 1 << 11  # device files
FILESYSTEM_RIGHTS = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 5: (1 << 16) - 1}
NETWORK_RIGHTS, SCOPES = 0b11, 0b11  # bind and connect; abstract sockets and signals

# ---- seccomp: system calls that a calculation never needs, with their numbers on (x86-64, aarch64)
DENIED = {
    "socket": (41, 198), "connect": (42, 203), "sendto": (44, 206), "bind": (49, 200), "listen": (50, 201),
    "socketpair": (53, 199), "fork": (57, None), "vfork": (58, None), "execve": (59, 221),
    "execveat": (322, 281), "kill": (62, 129), "tkill": (200, 130), "tgkill": (234, 131),
    "rt_sigqueueinfo": (129, 138), "rt_tgsigqueueinfo": (297, 240), "pidfd_open": (434, 434),
    "pidfd_send_signal": (424, 424), "pidfd_getfd": (438, 438), "ptrace": (101, 117),
    "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "mount": (165, 40), "umount2": (166, 39),
    "pivot_root": (155, 41), "chroot": (161, 51), "unshare": (272, 97), "setns": (308, 268),
    "open_tree": (428, 428), "move_mount": (429, 429), "fsopen": (430, 430), "mount_setattr": (442, 442),
    "bpf": (321, 280), "perf_event_open": (298, 241), "userfaultfd": (323, 282), "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426), "io_uring_register": (427, 427), "keyctl": (250, 219), "add_key": (248, 217),
    "request_key": (249, 218), "init_module": (175, 105), "finit_module": (313, 273),
    "delete_module": (176, 106), "kexec_load": (246, 104), "reboot": (169, 142), "swapon": (167, 224),
    "swapoff": (168, 225), "open_by_handle_at": (304, 265), "memfd_create": (319, 279), "setuid": (105, 146),
    "setgid": (106, 144), "setreuid": (113, 145), "setregid": (114, 143), "setresuid": (117, 147),
    "setresgid": (119, 149), "setgroups": (116, 159), "personality": (135, 92), "quotactl": (179, 60),
    "acct": (163, 89), "settimeofday": (164, 170), "clock_settime": (227, 112), "sethostname": (170, 161),
    "shmget": (29, 194), "msgget": (68, 186), "semget": (64, 190), "mq_open": (240, 180),
    "chmod": (90, None), "fchmod": (91, 52), "fchmodat": (268, 53), "fchmodat2": (452, 452), "chown": (92, None),
    "fchown": (93, 55), "lchown": (94, None), "fchownat": (260, 54), "setxattr": (188, 5), "lsetxattr": (189, 6),
    "fsetxattr": (190, 7), "removexattr": (197, 14), "lremovexattr": (198, 15), "fremovexattr": (199, 16),
    "utime": (132, None), "utimes": (235, None), "utimensat": (280, 88), "futimesat": (261, None),
    "setpriority": (141, 140), "sched_setaffinity": (203, 122), "sched_setscheduler": (144, 119),
    "sched_setparam": (142, 118), "sched_setattr": (314, 274), "ioprio_set": (251, 30),
    "truncate": (76, 45), "mknod": (133, None), "mknodat": (259, 33), "inotify_add_watch": (254, 27),
    "adjtimex": (159, 171), "clock_adjtime": (305, 266), "setdomainname": (171, 162), "setfsuid": (122, 151),
    "setfsgid": (123, 152), "setsid": (112, 157), "setpgid": (109, 154), "sync": (162, 81), "syncfs": (306, 267),
    "memfd_secret": (447, 447), "syslog": (103, 116), "setrlimit": (160, 164), "fanotify_init": (300, 262),
}  # fmt: skip
CLONE, CLONE3, PRLIMIT, FCNTL, IOCTL, PRCTL = (56, 220), (435, 435), (302, 261), (72, 25), (16, 29), (157, 167)
SIGNALLING = (8, 10, 15)  # fcntl: F_SETOWN, F_SETSIG and F_SETOWN_EX choose who gets a signal
HARMLESS = (0x5401, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451)  # ioctl: is it a terminal, how large, how many bytes; flags
PARENT_DEATH = (1,)  # prctl: PR_SET_PDEATHSIG, by which a program would outlive its supervisor
CAPSET = (126, 91)
MACHINES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}  # column above, AUDIT_ARCH_*
CLONE_THREAD = 0x10000
CLONE_NEWUSER, CLONE_NEWNET, CLONE_NEWIPC, CLONE_NEWUTS = 0x10000000, 0x40000000, 0x08000000, 0x04000000

libc = ctypes.CDLL(None, use_errno=True)


class Sandbox:
    """Runs programs: `with Sandbox() as run: run("print(1 + 1)")["output"]`. Identical programs run once.

    Several threads may call it at the same time: `processes` supervisors share the programs.
    """

    def __init__(self, isolate: bool = True, processes: int = 1, **limits: int):
        self.isolate = isolate
        self.processes = processes
        self.limits = DEFAULTS | limits
        self.cache: dict[str, dict[str, Any]] = {}  # results by program
        self.supervisors: list[subprocess.Popen[str]] = []
        self.free: queue.SimpleQueue[subprocess.Popen[str]] = queue.SimpleQueue()

    def __enter__(self):
        if self.isolate and (missing := missing_isolation()):
            from workflow_scripts.core.errors import BadInput  # imported here because this file also runs alone

            raise BadInput(
                f"programs that a model wrote cannot be isolated here: {'; '.join(missing)}. Use a machine with Linux "
                "5.13 or newer and Landlock enabled, or set `sandbox: off` in the config to run them unprotected."
            )

        self.start(self.processes)
        return self

    def start(self, count: int) -> None:
        """Start supervisors until there are so many. A supervisor ends with the thread that calls this."""
        while len(self.supervisors) < count:
            supervisor = subprocess.Popen(
                [sys.executable, "-I", __file__, "isolate" if self.isolate else "off"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env={"PATH": "/usr/bin:/bin"},
            )
            self.supervisors.append(supervisor)
            self.free.put(supervisor)

    def __exit__(self, *_):
        for supervisor in self.supervisors:
            supervisor.stdin.close()  # type: ignore[union-attr]
        for supervisor in self.supervisors:
            supervisor.wait()

    def __call__(self, code: str) -> dict[str, Any]:
        """Run a program and return {"output": str, "error": str or None}. A fault of the program is no exception."""
        if code not in self.cache:
            supervisor = self.free.get()
            try:
                self.cache[code] = self._run(supervisor, code)
            finally:
                self.free.put(supervisor)

        return self.cache[code]

    def _run(self, supervisor: Any, code: str) -> dict[str, Any]:
        try:
            supervisor.stdin.write(json.dumps({"code": code, "limits": self.limits}) + "\n")
            supervisor.stdin.flush()
            answer = supervisor.stdout.readline()
        except BrokenPipeError:
            answer = ""
        if not answer:
            raise RuntimeError(f"the sandbox's supervisor ended (exit status {supervisor.wait()})")

        result = json.loads(answer)
        if fault := result.get("fault"):
            raise RuntimeError(
                f"the sandbox could not run a program, for no fault of the program: {fault}. "
                "Its answer was not graded; make room (disk, processes, memory) and run again"
            )
        return result


def missing_isolation() -> list[str]:
    """Return what this kernel lacks of the two mechanisms that are required."""
    missing = []
    if platform.machine() not in MACHINES:
        missing.append(f"no system call table for {platform.machine()}")
    if landlock_version() < 1:
        missing.append("Landlock is not available")
    if libc.prctl(21, 0, 0, 0, 0) < 0:  # PR_GET_SECCOMP
        missing.append("seccomp is not available")
    return missing


def landlock_version() -> int:
    """Return the version of Landlock's interface; negative if there is none."""
    return libc.syscall(LANDLOCK_CREATE, None, 0, 1)


# ---------------------------------------------------------------- the supervisor


def supervise(isolate: bool) -> None:
    """Run the programs that arrive on stdin, one JSON request per line, and write one JSON result per line."""
    libc.prctl(1, signal.SIGKILL, 0, 0, 0)  # PR_SET_PDEATHSIG: end with the caller
    for module in PRELOAD:
        with contextlib.suppress(ImportError):
            __import__(module)
    if isolate:
        enter_namespaces()
    for line in sys.stdin:
        request = json.loads(line)
        print(json.dumps(run_or_fault(request, isolate)), flush=True)


def run_or_fault(request: dict[str, Any], isolate: bool) -> dict[str, Any]:
    """Run a program. Return {"fault": str} if the machine has no room for it, several times in a row."""
    for seconds in (0.1, 1.0, 5.0, None):
        try:
            return run_once(request["code"], request["limits"], isolate)
        except OSError as error:  # no space for a scratch folder, no more processes, no memory
            fault = str(error)
        if seconds:
            time.sleep(seconds)
    return {"fault": fault}


def enter_namespaces() -> bool:
    """Enter a user, network, IPC and UTS namespace of its own, if the kernel allows it."""
    uid, gid = os.getuid(), os.getgid()
    if libc.unshare(CLONE_NEWUSER | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS) < 0:
        return False
    with contextlib.suppress(OSError):
        for name, text in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
            with open(f"/proc/self/{name}", "w") as file:
                file.write(text)
    return True


def run_once(code: str, limits: dict[str, int], isolate: bool) -> dict[str, Any]:
    """Run a program in a child process with a scratch folder of its own."""
    scratch = tempfile.mkdtemp(prefix="sandbox-")
    read_end, write_end = os.pipe()
    ready, setup = os.pipe()

    try:
        pid = os.fork()
        if pid == 0:
            os.close(read_end)
            run_child(code, limits, isolate, scratch, write_end, setup)

        os.close(setup)
        setup = None
        if fault := os.read(ready, 1000):  # nothing once the program starts
            os.waitpid(pid, 0)
            raise OSError(fault.decode(errors="replace"))

        os.close(write_end)
        write_end = None
        return collect(pid, read_end, limits)
    finally:
        for descriptor in (read_end, write_end, ready, setup):
            if descriptor is not None:
                os.close(descriptor)
        remove_scratch(scratch)


def remove_scratch(scratch: str) -> None:
    """Remove a folder, however deep the program nested it and whatever it may not be listed by."""
    command = ["rm", "-rf", scratch]
    if subprocess.run(command, stderr=subprocess.DEVNULL).returncode:
        subprocess.run(["chmod", "-R", "u+rwX", scratch], stderr=subprocess.DEVNULL)
        subprocess.run(command, stderr=subprocess.DEVNULL)


def collect(pid: int, pipe: int, limits: dict[str, int]) -> dict[str, Any]:
    """Read the child's output until it ends, prints too much or takes too long; then make sure that it is gone."""
    deadline = time.monotonic() + limits["wall_seconds"]
    output = b""
    error = None
    ended = (0, 0)

    while True:
        ready, _, _ = select.select([pipe], [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            error = f"took more than {limits['wall_seconds']} s"
            break
        chunk = os.read(pipe, 65536)
        if not chunk:
            break
        output += chunk
        if len(output) > limits["output_bytes"]:
            output, error = output[: limits["output_bytes"]], f"printed more than {limits['output_bytes']} bytes"
            break
    while not error and not (ended := os.waitpid(pid, os.WNOHANG))[0]:  # it may have closed its output and go on
        if time.monotonic() > deadline:
            error = f"took more than {limits['wall_seconds']} s"
        time.sleep(0.001)
    if error:
        os.kill(pid, signal.SIGKILL)
        ended = os.waitpid(pid, 0)
    status = ended[1]
    text, _, trace = output.decode(errors="replace").partition("\0")
    if error is None and os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        cpu = number in (signal.SIGXCPU, signal.SIGKILL)
        error = f"used more than {limits['cpu_seconds']} s of CPU" if cpu else f"died of signal {number}"
    elif error is None and os.WEXITSTATUS(status):
        error = trace.strip() or f"exit status {os.WEXITSTATUS(status)}"
    return {"output": text, "error": error}


# ---------------------------------------------------------------- the program's own process


def run_child(code: str, limits: dict[str, int], isolate: bool, scratch: str, pipe: int, setup: int) -> None:
    """Run the program and end the process. What follows a NUL byte in the output is the error's last line.

    A fault before the program starts is written to `setup`, which is closed then.
    """
    status = 0
    try:
        enclose(limits, isolate, scratch, pipe, setup)
    except BaseException as fault:
        os.write(setup, f"{type(fault).__name__}: {fault}"[:500].encode())
        os._exit(1)

    try:
        os.close(3)  # where `enclose` put `setup`
        exec(compile(last_expression_printed(code), "<program>", "exec"), {"__name__": "__main__"})
        sys.stdout.flush()
    except SystemExit as stop:
        status = 0 if stop.code in (None, 0) else 1
        with contextlib.suppress(BaseException):
            sys.stdout.flush()
    except BaseException as fault:
        status = 1
        with contextlib.suppress(BaseException):
            sys.stdout.flush()
        with contextlib.suppress(BaseException):
            os.write(1, b"\0" + traceback.format_exception_only(fault)[-1].strip()[:500].encode())
    os._exit(status)


def enclose(limits: dict[str, int], isolate: bool, scratch: str, pipe: int, setup: int) -> None:
    """Leave this process nothing but its scratch folder, its output, `setup` as descriptor 3, and its limits."""
    libc.prctl(1, signal.SIGKILL, 0, 0, 0)  # PR_SET_PDEATHSIG
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(pipe, 1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    os.dup2(setup, 3)
    os.closerange(4, 256)

    os.chdir(scratch)
    os.environ.clear()
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    set_limits(limits)
    if isolate:
        restrict_files(scratch)
        drop_capabilities()
        restrict_calls()
    sys.stdout = open(1, "w", buffering=65536, closefd=False)


def last_expression_printed(code: str) -> ast.Module:
    """Return the program; a final bare expression is printed unless it is None, as at a Python prompt."""
    tree = ast.parse(code)
    if tree.body and isinstance(tree.body[-1], ast.Expr):
        value = tree.body[-1].value
        prints = isinstance(value, ast.Call) and getattr(value.func, "id", "") == "print"
        if not prints:
            show: Any = ast.parse("(lambda value: value is None or print(value))(None)").body[0]
            show.value.args = [value]
            tree.body[-1] = ast.fix_missing_locations(ast.copy_location(show, tree.body[-1]))
    return tree


def set_limits(limits: dict[str, int]) -> None:
    """Set the resource limits of this process."""
    cpu, memory = limits["cpu_seconds"], limits["memory_mb"] << 20
    resource.setrlimit(resource.RLIMIT_CPU, (cpu, cpu + 1))
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_FSIZE, (limits["file_mb"] << 20, limits["file_mb"] << 20))
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def check(result: int, what: str) -> int:
    """Return the result of a system call; raise OSError if it failed."""
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def restrict_files(scratch: str) -> None:
    """Allow, by Landlock, reading below the Python installation and system libraries and writing below `scratch`."""
    version = landlock_version()
    rights = FILESYSTEM_RIGHTS[max(v for v in FILESYSTEM_RIGHTS if v <= version)]
    attributes = struct.pack("=QQQ", rights, NETWORK_RIGHTS if version >= 4 else 0, SCOPES if version >= 6 else 0)
    size = 24 if version >= 6 else 16 if version >= 4 else 8
    ruleset = check(libc.syscall(LANDLOCK_CREATE, attributes, size, 0), "landlock_create_ruleset")
    readable = {sys.prefix, sys.base_prefix, "/usr/lib", "/lib", "/lib64", "/usr/share/zoneinfo"}
    devices = ("/dev/null", "/dev/urandom", "/dev/zero")
    own = rights & ~(MAKE_CHAR | MAKE_BLOCK)
    grants = [(path, READ) for path in readable] + [(path, 1 << 2) for path in devices] + [(scratch, own)]
    for path, access in grants:
        if os.path.exists(path):
            descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
            rule = struct.pack("=Qi", access, descriptor)
            check(libc.syscall(LANDLOCK_ADD, ruleset, 1, rule, 0), f"landlock_add_rule {path}")
            os.close(descriptor)
    check(libc.prctl(38, 1, 0, 0, 0), "no_new_privs")  # PR_SET_NO_NEW_PRIVS
    check(libc.syscall(LANDLOCK_RESTRICT, ruleset, 0), "landlock_restrict_self")
    os.close(ruleset)


def drop_capabilities() -> None:
    """Give up the rights of root, which are many in a user namespace, and all without one."""
    header = struct.pack("=Ii", 0x20080522, 0)  # _LINUX_CAPABILITY_VERSION_3, this process
    column, _ = MACHINES[platform.machine()]
    check(libc.syscall(CAPSET[column], header, bytes(24)), "capset")


def restrict_calls() -> None:
    """Let, by seccomp, the calls in DENIED fail with EPERM. Threads stay possible, processes do not."""
    column, architecture = MACHINES[platform.machine()]
    load, equal, greater, masked, answer = 0x20, 0x15, 0x35, 0x45, 0x06
    allow, refuse, no_such = 0x7FFF0000, 0x50000 | errno.EPERM, 0x50000 | errno.ENOSYS
    kill = 0x80000000
    program = [
        (load, 0, 0, 4), (equal, 1, 0, architecture), (answer, 0, 0, kill), (load, 0, 0, 0),
        (greater, 0, 1, 0x40000000), (answer, 0, 0, kill),  # the x32 numbers
        (equal, 0, 1, CLONE3[column]), (answer, 0, 0, no_such),  # glibc then uses clone
        (equal, 0, 4, CLONE[column]), (load, 0, 0, 16), (masked, 0, 1, CLONE_THREAD),
        (answer, 0, 0, allow), (answer, 0, 0, refuse),
        (equal, 0, 6, PRLIMIT[column]), (load, 0, 0, 32), (equal, 0, 3, 0), (load, 0, 0, 36),
        (equal, 0, 1, 0), (answer, 0, 0, allow), (answer, 0, 0, refuse),  # reading limits is fine
    ]  # fmt: skip

    def by_argument(call: tuple[int, int], offset: int, values: tuple[int, ...], listed: int, others: int) -> list:
        checks = [(load, 0, 0, offset)]
        for value in values:
            checks += [(equal, 0, 1, value), (answer, 0, 0, listed)]
        checks.append((answer, 0, 0, others))
        return [(equal, 0, len(checks), call[column]), *checks, (load, 0, 0, 0)]

    program += by_argument(FCNTL, 24, SIGNALLING, refuse, allow)
    program += by_argument(IOCTL, 24, HARMLESS, allow, refuse)
    program += by_argument(PRCTL, 16, PARENT_DEATH, refuse, allow)
    for numbers in DENIED.values():
        if numbers[column] is not None:
            program += [(equal, 0, 1, numbers[column]), (answer, 0, 0, refuse)]
    program.append((answer, 0, 0, allow))
    code = b"".join(struct.pack("=HBBI", op, yes, no, value) for op, yes, no, value in program)
    buffer = ctypes.create_string_buffer(code, len(code))
    filter_program = struct.pack("@HxxxxxxP", len(program), ctypes.addressof(buffer))
    check(libc.prctl(22, 2, filter_program, 0, 0), "seccomp")  # PR_SET_SECCOMP, filter mode


if __name__ == "__main__":
    supervise(isolate=sys.argv[1] == "isolate")
