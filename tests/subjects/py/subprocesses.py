"""subprocess.Popen with pipes: a process that answers, one that ended before, one that ends by a signal; new ones."""

import subprocess
import sys

import subject

ECHO = "import sys\nfor line in sys.stdin: print(line.strip()[::-1], flush=True)"


def body() -> None:
    echo = subprocess.Popen([sys.executable, "-c", ECHO], stdin=-1, stdout=-1, text=True)
    assert echo.stdin
    assert echo.stdout
    echo.stdin.write("before\n")
    echo.stdin.flush()
    subject.expect(echo.stdout.readline() == "erofeb\n", "setting up")
    ended = subprocess.Popen(["sh", "-c", "exit 3"])
    sleeper = subprocess.Popen(["sleep", "600"])
    subject.wait()
    echo.stdin.write("after\n")
    echo.stdin.flush()
    answer = echo.stdout.readline()
    subject.expect(answer == "retfa\n", f"the child answers {answer!r}")
    echo.stdin.close()
    subject.expect(echo.wait(20) == 0, f"the child's status is {echo.returncode}")
    subject.expect(ended.wait(20) == 3, f"the ended one's status is {ended.returncode}")
    subject.expect(sleeper.poll() is None, f"the sleeper's status is {sleeper.returncode}")
    sleeper.terminate()
    subject.expect(sleeper.wait(20) == -15, f"the sleeper's status is {sleeper.returncode}")
    out = subprocess.run(["echo", "new"], capture_output=True, text=True).stdout
    subject.expect(out == "new\n", f"a new process says {out!r}")


subject.main(body)
