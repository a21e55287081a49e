"""Python's signal handlers, its wake-up descriptor and itimer, a signal while blocked in a lock."""

import os
import signal
import threading
import time

import subject


def body() -> None:
    seen: list[int] = []
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer)
    signal.signal(signal.SIGUSR1, lambda number, frame: seen.append(number))
    signal.signal(signal.SIGALRM, lambda number, frame: seen.append(number))
    signal.setitimer(signal.ITIMER_REAL, 600, 60)
    subject.wait(lambda: signal.signal(signal.SIGUSR1, signal.SIG_IGN))
    os.kill(os.getpid(), signal.SIGUSR1)
    deadline = time.monotonic() + 10
    while not seen and time.monotonic() < deadline:
        time.sleep(0.001)
    subject.expect(seen == [signal.SIGUSR1], f"handlers saw {seen}")
    subject.expect(os.read(reader, 10) == bytes([signal.SIGUSR1]), "the wake-up descriptor")
    remains, interval = signal.getitimer(signal.ITIMER_REAL)
    subject.expect(400 < remains <= 600 and interval == 60, f"the timer: {remains}, {interval}")
    threading.Timer(0.05, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
    try:
        threading.Event().wait(10)
        subject.expect(False, "no KeyboardInterrupt")
    except KeyboardInterrupt:
        pass


subject.main(body)
