"""Who runs together and who runs alone, when workers take turns."""

import fcntl
from pathlib import Path
from threading import Thread

from tests.turns import turn


def is_held(lock: Path) -> bool:
    with lock.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def test_those_who_share_do_not_wait(tmp_path: Path) -> None:
    with turn(tmp_path, alone=False), turn(tmp_path, alone=False):
        pass


def test_who_wants_to_be_alone_waits_for_those_before_and_is_waited_for_by_those_after(
    tmp_path: Path,
) -> None:
    order = []

    def take(name: str, *, alone: bool) -> None:
        with turn(tmp_path, alone=alone):
            order.append(name)

    threads = [
        Thread(target=take, args=("alone",), kwargs={"alone": True}),
        Thread(target=take, args=("after",), kwargs={"alone": False}),
    ]
    with turn(tmp_path, alone=False):
        threads[0].start()
        while not is_held(tmp_path / "queue"):
            pass
        threads[1].start()
        order.append("before")
    for thread in threads:
        thread.join()

    assert order == ["before", "alone", "after"]
