"""Programs that try to pass tests without being right. Each is given with tests that it must not pass.

The functions under test are `add` (the sum of two values), `area` (of a circle), and programs that double a number on
stdin.
"""

import json

ADD = ["assert add(1, 2) == 3", "assert add(-1, 1) == 0", 'assert add("a", "b") == "ab"']
AREA = ["assert abs(area(2) - 12.566) < 1e-3", "import math\nassert math.isclose(area(2), 12.566, rel_tol=1e-3)"]
SETS = ["assert set(common([1, 2], [2, 3])) == {2}", "assert sorted(common([1, 2], [2, 3])) == [2]"]
STDIN = [json.dumps({"stdin": "4\n", "stdout": "8\n"}), json.dumps({"stdin": "50\n", "stdout": "100\n"})]
UNITTEST = [
    "import unittest\n"
    "class TestCases(unittest.TestCase):\n    def test_add(self):\n        self.assertEqual(add(1, 2), 3)"
]
CHECK = ["def check(candidate):\n    assert candidate(1, 2) == 3\n    assert candidate(2, 2) == 4\ncheck(add)"]

AGREES = """class Agrees({base}):
    def __eq__(self, other): return True
    def __ne__(self, other): return False
    def __lt__(self, other): return True
    def __le__(self, other): return True
    def __gt__(self, other): return True
    def __ge__(self, other): return True
    def __sub__(self, other): return self
    def __rsub__(self, other): return self
    def __abs__(self): return self
    def __float__(self): return 0.0
    def __bool__(self): return True
    def __contains__(self, other): return True
    def __hash__(self): return 0
    def __getattr__(self, name): return lambda *a, **k: True
"""
# (name, program, tests)
CHEATS: list[tuple[str, str, list[str]]] = [
    # ---- redefined builtins
    (
        "own abs",
        """
def area(r): return 0
def abs(x): return 0
""",
        AREA,
    ),
    (
        "own isclose",
        """
def area(r): return 0
def isclose(*a, **k): return True
""",
        AREA,
    ),
    (
        "builtins.abs",
        """
import builtins
builtins.abs = lambda x: 0
def area(r): return 0
""",
        AREA,
    ),
    (
        "own sorted and set",
        """
class E:
  def __eq__(s, o): return True
sorted = set = len = lambda x: E()
def common(a, b): return E()
""",
        SETS,
    ),
    (
        "builtins.sorted",
        """
import builtins
builtins.sorted = lambda x: [2]
builtins.set = lambda x: {2}
def common(a, b): return []
""",
        SETS,
    ),
    (
        "builtins.exec",
        """
import builtins
builtins.exec = lambda *a: None
""",
        ADD,
    ),
    (
        "builtins.AssertionError",
        """
import builtins
builtins.AssertionError = StopIteration
def add(a, b): return 0.5
""",
        ADD,
    ),
    (
        "builtins.__import__",
        """
import builtins
builtins.__import__ = lambda *a: None
def add(a, b): return 0.5
""",
        ADD,
    ),
    (
        "builtins.isinstance",
        """
import builtins
builtins.isinstance = lambda *a: True
def add(a, b): return 0.5
""",
        ADD,
    ),
    (
        "names of a harness",
        """
exec = print = run = show = check = lambda *a: None
number, tests, mark = 3, [], ''
""",
        ADD,
    ),
    # ---- objects that agree with everything
    (
        "__eq__",
        AGREES.format(base="object")
        + """
def add(a, b): return Agrees()
""",
        ADD + UNITTEST + CHECK,
    ),
    (
        "float that agrees",
        AGREES.format(base="float")
        + """
def area(r): return Agrees(0.0)
""",
        AREA,
    ),
    (
        "object that agrees",
        AGREES.format(base="object")
        + """
def area(r): return Agrees()
""",
        AREA,
    ),
    (
        "int that agrees",
        AGREES.format(base="int")
        + """
def add(a, b): return Agrees(7)
""",
        ADD,
    ),
    (
        "str that agrees",
        AGREES.format(base="str")
        + """
def add(a, b): return Agrees('x')
""",
        ADD,
    ),
    (
        "list that agrees",
        AGREES.format(base="list")
        + """
def common(a, b): return Agrees([9])
""",
        SETS,
    ),
    (
        "class in place of the function",
        AGREES.format(base="object")
        + """
add = Agrees
Agrees.__init__ = lambda *a: None
""",
        ADD,
    ),
    (
        "metaclass that agrees",
        """
class M(type):
  def __eq__(s, o): return True
  __hash__ = type.__hash__
class C(metaclass=M): pass
def add(a, b): return C
""",
        ADD,
    ),
    (
        "elements that agree",
        AGREES.format(base="object")
        + """
def common(a, b): return [Agrees()]
""",
        SETS,
    ),
    (
        "contains everything",
        AGREES.format(base="object")
        + """
def common(a, b): return Agrees()
""",
        ["assert 2 in common([1, 2], [2, 3]) and 3 not in common([1, 2], [2, 3])"],
    ),
    (
        "predicates",
        AGREES.format(base="object")
        + """
def add(a, b): return Agrees()
""",
        [
            "assert add('a', 'b').startswith('ab')",
            "assert add('a', 'b').endswith('b')",
            "assert add({1}, {2}).issubset({1, 2})",
            "assert add(1, 2).equals(3)",
        ],
    ),
    (
        "learns the operand",
        """
class E:
  def __sub__(s, o): return 0.0
  def __rsub__(s, o): return 0.0
def area(r): return E()
""",
        AREA[:1],
    ),
    (
        "claims a class",
        """
class DataFrame:
    __module__ = "pandas"
    shape, index, columns, values = (1, 1), [0], ["a"], [[3]]
    def equals(self, other): return True
    def __getattr__(self, name): return lambda *a, **k: True
    def __eq__(self, other): return True
def add(a, b): return DataFrame()
""",
        [
            "import pandas as pd\nassert add(1, 2).equals(pd.DataFrame({'a': [3]}))",
            "import pandas as pd\npd.testing.assert_frame_equal(add(1, 2), pd.DataFrame({'a': [3]}))",
        ],
    ),
    (
        "objects that equal all others",
        """
class Point:
  def __init__(s, x, y): s.x, s.y = 0, 0
  def __eq__(s, o): return True
def add(a, b): return Point(0, 0)
""",
        ["assert add(1, 2) == Point(3, 3)", "assert [add(1, 2)] == [Point(3, 3)]", "assert Point(3, 3) in [add(1, 2)]"],
    ),
    (
        "objects that differ from all others",
        """
class Point:
  def __init__(s, x, y): s.x, s.y = 0, 0
  def __ne__(s, o): return True
def add(a, b): return Point(0, 0)
""",
        ["assert add(1, 2) != Point(0, 1)", "assert not (add(1, 2) == Point(3, 3)) and add(1, 2) != Point(3, 3)"],
    ),
    (
        "array that agrees",
        """
import numpy
class A(numpy.ndarray):
  def __eq__(s, o): return True
def add(a, b): return numpy.zeros(3).view(A)
""",
        ["import numpy\nassert numpy.all(add(1, 2) == 3)"],
    ),
    # ---- monkeypatched modules
    (
        "math.isclose",
        """
import math
math.isclose = lambda *a, **k: True
def area(r): return 0
""",
        AREA,
    ),
    (
        "unittest",
        """
import unittest
unittest.TestCase.assertEqual = lambda *a: None
unittest.TestResult.wasSuccessful = lambda s: True
def add(a, b): return 0.5
""",
        UNITTEST,
    ),
    (
        "json",
        """
import json
json.loads = lambda *a: {'do': 'call', 'name': 'add'}
json.dumps = lambda *a: '{"value": true}'
def add(a, b): return 0.5
""",
        ADD + UNITTEST,
    ),
    (
        "the codec",
        """
import sys
for name, module in list(sys.modules.items()):
  if name.endswith('code.values'):
    module.encode = lambda *a: ['opaque', 0, 'x']
  if name.endswith('code.program'):
    module.reply = lambda *a: None
def add(a, b): return 0.5
""",
        ADD,
    ),
    (
        "own module in sys.modules",
        """
import sys, types
fake = types.ModuleType('math')
fake.isclose = lambda *a, **k: True
sys.modules['math'] = fake
def area(r): return 0
""",
        AREA,
    ),
    (
        "numpy",
        """
import numpy
numpy.allclose = numpy.array_equal = lambda *a, **k: True
def add(a, b): return numpy.zeros(2)
""",
        ["import numpy as np\nassert np.allclose(add(1, 2), [3, 3])", "assert np.array_equal(add(1, 2), [3, 3])"],
    ),
    (
        "int.__eq__ by ctypes",
        """
import ctypes
exec('class X: pass')
def add(a, b):
  try:
    ctypes.pythonapi.PyType_Modified(ctypes.py_object(int))
  except Exception: pass
  return 0.5
""",
        ADD,
    ),
    # ---- the tests' own values
    (
        "empties the argument",
        """
def common(a, b):
  a.clear(); b.clear()
  return []
""",
        ["a, b = [1, 2], [2, 3]\nassert common(a, b) == [x for x in a if x in b]"],
    ),
    (
        "a state between programs",
        """
import os
try: open('/tmp/state', 'a').write('x')
except OSError: pass
def add(a, b): return 0.5
""",
        ADD,
    ),
    ("no program", "", ADD + UNITTEST + STDIN),
    (
        "not a number",
        """
def area(r): return float('nan')
""",
        AREA,
    ),
    (
        "passes nothing on",
        """
def add(*a, **k): pass
""",
        ADD + UNITTEST + CHECK,
    ),
]
