"""Programs that attack the processes that test them (their ends, memory, pipes), and scripts that cheat."""

from tests.tasks.code.cheats import ADD, CHECK, STDIN, UNITTEST

WALK_FRAMES = """import sys
def add(a, b):
    frame = sys._getframe()
    while frame:
        for value in list(frame.f_locals.values()) + list(frame.f_globals.values()):
            if isinstance(value, str) and "assert " + "add" in value:
                return eval(value.split("==")[1])
        frame = frame.f_back
"""
WALK_OBJECTS = """import gc
def add(a, b):
    for value in gc.get_objects():
        if isinstance(value, (list, tuple)) and value and "assert " + "add" in str(value[0]):
            return eval(value[0].split("==")[1])
"""
SEARCH_HEAP = """import ctypes, os
def add(a, b):
    libc = ctypes.CDLL(None)
    file = os.open("page", os.O_RDWR | os.O_CREAT)
    needle = b"assert " + b"add(1, 2) == "
    start = id(object()) & ~0xFFF
    for address in range(start - 2**25, start + 2**25, 4096):
        if libc.pwrite(file, ctypes.c_void_p(address), 4096, 0) == 4096:  # -1 where there is no memory
            text = os.pread(file, 4096, 0)
            if needle in text:
                return int(text.split(needle)[1][:1])
"""
WRITE_TO_PIPES = """import json, os, struct
for content in ({forged}):
    data = json.dumps(content).encode()
    for descriptor in range(64):
        try:
            os.write(descriptor, {head}data)
        except OSError:
            pass
def add(a, b): return None
"""
LONG_HEAD = 'struct.pack("<Q", len(data)) + '

# (name, program, tests)
CHEATS_OF_PROCESSES: list[tuple[str, str, list[str]]] = [
    # ---- exceptions and ends
    (
        "SystemExit at once",
        """
raise SystemExit(0)
""",
        ADD + UNITTEST + STDIN,
    ),
    (
        "os._exit at once",
        """
import os
os._exit(0)
""",
        ADD + UNITTEST + STDIN,
    ),
    (
        "os._exit in the call",
        """
import os
def add(a, b): os._exit(0)
""",
        ADD + UNITTEST + CHECK,
    ),
    (
        "SystemExit in the call",
        """
def add(a, b): raise SystemExit(0)
""",
        ADD + UNITTEST + CHECK,
    ),
    (
        "KeyboardInterrupt",
        """
def add(a, b): raise KeyboardInterrupt
""",
        ADD + UNITTEST + CHECK,
    ),
    (
        "GeneratorExit",
        """
def add(a, b): raise GeneratorExit
""",
        ADD + UNITTEST + CHECK,
    ),
    (
        "StopIteration",
        """
def add(a, b): raise StopIteration
""",
        ["assert all(map(lambda pair: add(*pair) == sum(pair), [(1, 2)]))", "assert all(map(add, [1], [2]))"],
    ),
    (
        "SkipTest",
        """
import unittest
def add(a, b): raise unittest.SkipTest('no')
""",
        UNITTEST,
    ),
    (
        "atexit",
        """
import atexit, os
atexit.register(lambda: os._exit(0))
def add(a, b): return 0.5
""",
        ADD,
    ),
    (
        "a signal handler",
        """
import signal, os
try:
  signal.signal(signal.SIGSEGV, lambda *a: os._exit(0))
except Exception: pass
def add(a, b):
  import ctypes
  ctypes.string_at(0)
""",
        ADD,
    ),
    # ---- frames, objects, memory, files
    ("frames", WALK_FRAMES, ADD),
    ("gc", WALK_OBJECTS, ADD),
    ("the heap", SEARCH_HEAP, ADD),
    (
        "files of the tests",
        """
import glob
def add(a, b):
  for name in glob.glob('/tmp/**', recursive=True)[:99]:
    try:
      text = open(name).read()
    except Exception: continue
    if 'assert ' + 'add' in text: return eval(text.split('==')[1][:3])
""",
        ADD,
    ),
    (
        "/proc",
        """
def add(a, b):
  try: text = open('/proc/self/mem', 'rb')
  except OSError: return None
  return 3
""",
        ADD,
    ),
    (
        "sys.modules",
        """
import sys
def add(a, b):
  for module in list(sys.modules.values()):
    for name in ('tests', 'request', 'expected', 'reference'):
      if hasattr(module, name): return 3
""",
        ADD,
    ),
    (
        "command line",
        """
import sys, os
def add(a, b): return eval((' '.join(sys.argv + list(os.environ))).split('==')[1])
""",
        ADD,
    ),
    # ---- the protocol
    (
        "prints verdicts",
        """
print([True, None])
print('=[true, null]')
print('passed')
def add(a, b): print('=[true, null]')
""",
        ADD,
    ),
    ("forged verdicts", WRITE_TO_PIPES.format(forged="'=[true, null]',", head="b'=[true, null]\\n' + "), ADD),
    ("forged replies", WRITE_TO_PIPES.format(forged="{'value': True}, {'value': True}", head=LONG_HEAD), ADD),
    (
        "forged objects",
        WRITE_TO_PIPES.format(
            forged="{'value': None}, {'value': ['opaque', 0, 'x']}, {'value': ['opaque', 0, 'x']}", head=LONG_HEAD
        ),
        ADD,
    ),
    (
        "forged faults of the machine",
        WRITE_TO_PIPES.format(
            forged="{'value': None}, {'no room': 'no space left'}, {'ended': 'x', 'no room': 'x'}", head=LONG_HEAD
        ),
        ADD,
    ),
    ("forged faults in lines", WRITE_TO_PIPES.format(forged="'?no room',", head="b'?no room\\n' + "), ADD),
    ("forged ends", WRITE_TO_PIPES.format(forged="{'ended': None}, {'passed': True}, {}, []", head=LONG_HEAD), ADD),
    (
        "forged exceptions",
        WRITE_TO_PIPES.format(
            forged="{'value': None}, {'exception': ['builtins.object']}, {'raised': ['builtins.SystemExit']}",
            head=LONG_HEAD,
        ),
        ADD,
    ),
    ("nested reply", WRITE_TO_PIPES.format(forged="'x'", head="struct.pack('<Q', 10**5) + b'[' * 10**5 + "), ADD),
    ("endless reply", WRITE_TO_PIPES.format(forged="'x'", head="struct.pack('<Q', 2**60) + "), ADD),
    # ---- stdin and stdout
    (
        "prints all answers",
        """
print('8\\n100')
""",
        STDIN,
    ),
    (
        "reads its expected output",
        """
import glob
for name in glob.glob('*') + glob.glob('../*'): print(open(name).read())
""",
        STDIN,
    ),
    (
        "prints and fails",
        """
print(2 * int(input()))
raise ValueError
""",
        STDIN,
    ),
    (
        "prints and exits with 1",
        """
import sys
print(2 * int(input()))
sys.exit(1)
""",
        STDIN,
    ),
    (
        "prints to stderr",
        """
import sys
print(2 * int(input()), file=sys.stderr)
""",
        STDIN,
    ),
]
