"""Programs that attack the sandbox or its judge.

PROGRAMS: name -> program of the task "add two numbers"; none may pass, whatever it does. ESCAPES:
name -> program that prints ESCAPED if it reached something that is not its own.
"""

_LOOK = "print('ESCAPED')"

PROGRAMS = {
    "wrong": "def add(a, b): return 3",
    "exits_0": "import os\nos._exit(0)",
    "exits_in_call": "import os\ndef add(a, b): os._exit(0)",
    "sys_exit": "import sys\nsys.exit(0)",
    "raises_system_exit": "def add(a, b): raise SystemExit(0)",
    "prints_verdict": "print('[\"pass\", \"\"]')\ndef add(a, b):\n  print('[\"pass\", \"\"]')",
    "writes_all_fds": ("import os\nfor fd in range(64):\n  try:\n"
                       "    os.write(fd, b'[\"pass\", \"\"]\\n')\n  except OSError: pass"),
    "forges_answers": ("import json, os\ndata = json.dumps({'value': {'i': '0x3'}}).encode()\n"
                       "for fd in range(64):\n  for _ in range(9):\n"
                       "    try: os.write(fd, len(data).to_bytes(4, 'big') + data)\n"
                       "    except OSError: pass\ndef add(a, b): return 3"),
    "always_equal": ("class E:\n  def __eq__(self, o): return True\n"
                     "  def __hash__(self): return 0\ndef add(a, b): return E()"),
    "int_subclass_equal": ("class E(int):\n  def __eq__(self, o): return True\n"
                           "def add(a, b): return E(9)"),
    "patches_builtins": ("import builtins\nbuiltins.AssertionError = Exception\n"
                         "builtins.exec = lambda *a: None\nbuiltins.compile = lambda *a: None\n"
                         "def add(a, b): return 3"),
    "patches_json": ("import json\njson.dumps = lambda *a, **k: '[\"pass\", \"\"]'\n"
                     "def add(a, b): return 3"),
    "patches_os_write": ("import os\nwrite = os.write\n"
                         "os.write = lambda fd, d: write(fd, b'\\0\\0\\0\\2{}') and len(d)\n"
                         "def add(a, b): return 3"),
    "patches_main": ("import __main__, sys\n__main__.run_tests = lambda *a: [['pass', '']] * 2\n"
                     "__main__.encode = lambda x: True\ndef add(a, b): return 3"),
    "walks_frames": ("import gc, sys\ndef add(a, b):\n  f = sys._getframe()\n  while f:\n"
                     "    for k in list(f.f_locals):\n"
                     "      if k in ('payload', 'tests', 'test'): return f.f_locals[k]\n"
                     "    f = f.f_back\n  return [o for o in gc.get_objects()"
                     " if isinstance(o, dict) and 'tests' in o][0]"),
    "trace_function": "import sys\nsys.settrace(lambda *a: None)\ndef add(a, b): return 3",
    "reads_parent_memory": ("import os\ndef add(a, b):\n"
                            "  return len(open(f'/proc/{os.getppid()}/mem', 'rb').read(1)) + 2"),
    "writes_parent_fd": ("import os\np = os.getppid()\nfor n in range(32):\n"
                         "  try: open(f'/proc/{p}/fd/{n}', 'w').write('[\"pass\", \"\"]\\n' * 2)\n"
                         "  except OSError: pass\ndef add(a, b): return 3"),
    "writes_pid1_fd": ("for n in range(32):\n"
                       "  try: open(f'/proc/1/fd/{n}', 'w').write('[\"pass\", \"\"]\\n' * 2)\n"
                       "  except OSError: pass\ndef add(a, b): return 3"),
    "reads_the_tests": ("import glob, os\nfound = False\n"
                        "for p in glob.glob('/proc/[0-9]*/fd/*'):\n"
                        "  if f'/{os.getpid()}/' in p: continue\n  try:\n"
                        "    fd = os.open(p, os.O_RDONLY | os.O_NONBLOCK)\n"
                        "    found |= b'assert add' in os.pread(fd, 1 << 20, 0)\n"
                        "  except OSError: pass\ndef add(a, b): return a + b if found else 3"),
    "kills_and_forges": ("import glob, os\nos.kill(os.getppid(), 9)\n"
                         "for p in glob.glob('/proc/[0-9]*/fd/1'):\n  try:\n"
                         "    fd = os.open(p, os.O_WRONLY | os.O_NONBLOCK)\n"
                         "    os.write(fd, b'[\"pass\", \"\"]\\n' * 2)\n  except OSError: pass"),
    "copies_a_verdict": ("import glob, os\nn = 0\ndef add(a, b):\n  global n\n  n += 1\n"
                         "  if n == 1: return 3\n"
                         "  for p in glob.glob('/proc/[0-9]*/fd/*'):\n    try:\n"
                         "      r = os.open(p, os.O_RDONLY | os.O_NONBLOCK)\n"
                         "      line = os.read(r, 200)\n"
                         "      if line.startswith(b'[\"'):\n        os.kill(os.getppid(), 9)\n"
                         "        os.write(os.open(p, os.O_WRONLY), line * 2)\n"
                         "    except OSError: pass"),
    "ptraces_parent": ("import ctypes, os\nc = ctypes.CDLL(None)\n"
                       "if c.ptrace(16, os.getppid(), 0, 0) == 0:\n  def add(a, b): return a + b\n"
                       "else:\n  def add(a, b): return 3"),
    "kills_parent": "import os\nos.kill(os.getppid(), 9)\ndef add(a, b): return a + b",
    "stops_parent": "import os\nos.kill(os.getppid(), 19)\ndef add(a, b): return a + b",
    "kills_all": "import os\nos.kill(-1, 9)\ndef add(a, b): return a + b",
    "hangs": "def add(a, b):\n  while True: pass",
    "hangs_at_import": "while True: pass",
    "sleeps": "import time\ntime.sleep(100)",
    "ignores_signals": ("import signal, time\nfor s in range(1, 65):\n"
                        "  try: signal.signal(s, signal.SIG_IGN)\n"
                        "  except (OSError, ValueError): pass\n"
                        "while True: time.sleep(1)"),
    "fork_bomb": "import os\nwhile True:\n  try: os.fork()\n  except OSError: pass",
    "thread_bomb": ("import threading, time\nwhile True:\n"
                    "  try: threading.Thread(target=time.sleep, args=(99,)).start()\n"
                    "  except RuntimeError: time.sleep(1)"),
    "daemon": ("import os, time\nif os.fork() == 0:\n  os.setsid()\n  if os.fork() == 0:\n"
               "    time.sleep(77)\n  os._exit(0)\ndef add(a, b): return 3"),
    "memory_bomb": "x = []\nwhile True: x.append(bytearray(1 << 24))",
    "huge_answer": "def add(a, b): return 'x' * (1 << 28)",
    "huge_integer": "def add(a, b): return 10 ** 10 ** 8",
    "cyclic_answer": "x = []\nx.append(x)\ndef add(a, b): return x",
    "deep_answer": "def add(a, b):\n  x = []\n  for _ in range(10**5): x = [x]\n  return x",
    "deep_recursion": "import sys\nsys.setrecursionlimit(10**9)\ndef add(a, b): return add(b, a)",
    "endless_output": "while True: print('x' * 10000)",
    "segfault": "import ctypes\nctypes.string_at(0)",
    "syntax_error": "def add(a, b: return",
    "null_bytes": "def add(a, b): return 3\x00",
    "fake_exception": "class AssertionError(Exception): pass\ndef add(a, b): raise AssertionError",
    "is_not_there": "def ad(a, b): return a + b",
    "shadows_modules": ("open('json.py', 'w').write('dumps = lambda *a: 0')\n"
                        "open('/work/os.py', 'w').write('')\ndef add(a, b): return 3"),
    "atexit": ("import atexit, os\natexit.register(lambda: os.write(1, b'[\"pass\", \"\"]'))\n"
               "def add(a, b): return 3"),
}

ESCAPES = {
    "reads_passwd": f"open('/etc/passwd').read()\n{_LOOK}",
    "reads_shadow": f"open('/etc/shadow').read()\n{_LOOK}",
    "reads_home": f"import os\nassert [x for x in os.listdir('/root') if x != '.pyenv']\n{_LOOK}",
    "reads_repository": f"import os\nassert os.path.exists(REPOSITORY)\n{_LOOK}",
    "reads_environment": f"import os\nassert 'RLJAX_SECRET' in os.environ\n{_LOOK}",
    "reads_proc_environment": ("import glob\nfor p in glob.glob('/proc/[0-9]*/environ'):\n  try:\n"
                               "    if b'RLJAX_SECRET' in open(p, 'rb').read(): print('ESCAPED')\n"
                               "  except OSError: pass"),
    "sees_processes": ("import os\nif len([p for p in os.listdir('/proc') if p.isdigit()]) > 3:\n"
                       f"  {_LOOK}"),
    "network": ("import socket\nsocket.create_connection(('1.1.1.1', 53), timeout=2)\n" + _LOOK),
    "loopback": ("import socket\ns = socket.create_connection(('127.0.0.1', PORT), timeout=2)\n"
                 + _LOOK),
    "writes_usr": f"open('/usr/x', 'w').write('x')\n{_LOOK}",
    "writes_python": f"import json\nopen(json.__file__, 'a').write('#')\n{_LOOK}",
    "writes_root": f"open('/x', 'w').write('x')\n{_LOOK}",
    "writes_dev": f"open('/dev/x', 'w').write('x')\n{_LOOK}",
    "writes_shm": f"open('/dev/shm/x', 'w').write('x')\n{_LOOK}",
    "writes_proc_sys": f"open('/proc/sys/kernel/hostname', 'w').write('x')\n{_LOOK}",
    "proc_root": f"import os\nassert os.path.exists('/proc/1/root' + REPOSITORY)\n{_LOOK}",
    "proc_cwd": ("import os\nassert os.path.exists('/proc/1/cwd/../../..' + REPOSITORY)\n" + _LOOK),
    "symlink": ("import os\nos.symlink('/etc/passwd', 'a')\nopen('a').read()\n" + _LOOK),
    "symlink_up": ("import os\nos.symlink('../../../../root', 'b')\n"
                   "assert [x for x in os.listdir('b') if x != '.pyenv']\n" + _LOOK),
    "becomes_root": f"import os\nos.setuid(0)\n{_LOOK}",
    "raises_limits": ("import resource\nresource.setrlimit(resource.RLIMIT_NPROC, (9999, 9999))\n"
                      + _LOOK),
    "mounts": ("import ctypes\nmount = ctypes.CDLL(None).mount\n"
               "assert mount(b'none', b'/tmp', b'tmpfs', 0, 0) == 0\n" + _LOOK),
    "chroots": f"import os\nos.chroot('/tmp')\n{_LOOK}",
    "makes_devices": ("import os, stat\nos.mknod('sda', 0o600 | stat.S_IFBLK, os.makedev(8, 0))\n"
                      + _LOOK),
    "suid": ("import os, subprocess\nr = subprocess.run(['su', '-c', 'id -u'], input=b'',"
             " capture_output=True)\nassert r.stdout.strip() == b'0'\n" + _LOOK),
    "big_file": ("with open('big', 'wb') as f:\n"
                 "  for _ in range(64): f.write(b'x' * (1 << 20))\n" + _LOOK),
    "many_files": ("for i in range(99):\n"
                   "  with open(f'/tmp/{i}', 'wb') as f: f.write(b'x' * (1 << 23))\n" + _LOOK),
    "terminal": ("import fcntl, os, termios\nfd = os.open('/dev/tty', os.O_RDWR)\n"
                 "fcntl.ioctl(fd, termios.TIOCSTI, b'x')\n" + _LOOK),
}
