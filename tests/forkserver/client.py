"""What runs instead of Python: it asks the server for a forked process, and lives and ends as that one does.

Carried over: arguments, environment, working folder, umask, open files, signals ignored and blocked, and (the server
takes them from this process) resource limits, CPU affinity, mount and host name. Signals are handed on; SIGKILL of
this process kills the group of the forked one. Only the built-in `_socket` and friends are imported: the standard
library's `socket` would double the time.
"""

import _signal
import _socket
import marshal  # noqa: TID251  between processes of one test session
import os
import sys

FOLDER = REAL = PREFIX = None

FORWARDED = (1, 2, 3, 10, 12, 14, 15)  # HUP INT QUIT USR1 USR2 ALRM TERM


# It names its files after its process id, which is this program's for its parent.
KNOWN_BY_PID = "submitit.local._local"


def understood(words):
    """Whether the server can run these arguments of Python: -u and -B, then a script, -m or -c."""
    rest = [word for word in words[:4] if word not in ("-u", "-B")]
    if rest[:2] == ["-m", KNOWN_BY_PID]:
        return False
    return bool(rest) and (rest[0] in ("-c", "-m") or not rest[0].startswith("-"))


def connect():
    connection = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    try:
        connection.connect(FOLDER + "/socket")
    except OSError:
        if os.path.exists(FOLDER + "/log"):
            sys.stderr.write("the fork server of the tests ended; its log: " + FOLDER + "/log\n")
        return None
    return connection


def open_files(own):
    found = []
    for name in os.listdir("/proc/self/fd"):
        number = int(name)
        try:
            if (number != own and os.get_inheritable(number)) or number <= 2:
                os.fstat(number)
                found.append(number)
        except OSError:  # the folder that was listed
            pass
    return found


def send(connection, words):
    numbers = open_files(connection.fileno())
    ignored = [
        one for one in range(1, 32) if _signal.getsignal(one) == _signal.SIG_IGN and one != 13 and one != 25
    ]
    blocked = [int(one) for one in _signal.pthread_sigmask(_signal.SIG_BLOCK, ())]
    umask = os.umask(0)
    os.umask(umask)
    request = marshal.dumps((words, dict(os.environ), os.getcwd(), umask, numbers, ignored, blocked))
    files = b"".join(number.to_bytes(4, sys.byteorder) for number in numbers)
    head = len(request).to_bytes(4, "big")
    connection.sendmsg([head], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, files)])
    while request:
        request = request[connection.send(request) :]


def main():
    words = PREFIX + sys.argv[1:]
    connection = connect() if understood(words) else None
    if connection is None:
        os.execv(REAL, [REAL, *words])  # noqa: S606  the words it was given itself
    connection.setblocking(True)
    send(connection, words)

    def forward(number, frame):
        try:  # noqa: SIM105  contextlib would be imported for it
            connection.send(bytes([number]))
        except OSError:  # it has just ended
            pass

    for number in FORWARDED:
        _signal.signal(number, forward)
    _signal.pthread_sigmask(_signal.SIG_SETMASK, ())
    status = b""
    while len(status) < 4:
        part = connection.recv(4)
        if not part:
            sys.exit("the fork server of the tests ended; its log: " + FOLDER + "/log")
        status += part
    status = int.from_bytes(status, "big")
    if os.WIFEXITED(status):
        os._exit(os.WEXITSTATUS(status))
    number = os.WTERMSIG(status)
    if number not in (9, 19):
        _signal.signal(number, _signal.SIG_DFL)
    os.kill(os.getpid(), number)
    os._exit(128 + number)  # it had no effect on this process


main()
