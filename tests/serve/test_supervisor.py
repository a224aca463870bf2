"""Real processes and sockets: what happens to clients when parts of a node die."""

import concurrent.futures
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator

import dns.message
import dns.query
import pytest

from tests.serve.node import Node, free_port, node, question


def alive(pid: int) -> bool:
    """Whether a process runs (a zombie does not)."""
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def burst(port: int, count: int) -> list[socket.socket]:
    """Send `count` questions, each from a port of its own, and do not wait."""
    socks = []
    for i in range(count):
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.connect(("127.0.0.1", port))
        sock.send(question(number=i))
        socks.append(sock)
    return socks


def answered(socks: list[socket.socket], seconds: float) -> int:
    """How many of these got an answer within a time."""
    end = time.monotonic() + seconds
    count = 0
    for sock in socks:
        sock.settimeout(max(0.001, end - time.monotonic()))
        try:
            sock.recv(4096)
            count += 1
        except OSError:
            pass
        sock.close()
    return count


@pytest.fixture
def served(tmp_path: pathlib.Path) -> Iterator[Node]:
    """A node of two workers, each with its table."""
    with node(tmp_path) as made:
        made.publish()
        made.start()
        made.until(lambda: len({row["slot"] for row in made.said("active")}) == 2)
        yield made


def test_a_node_answers_over_both_transports_and_stops_cleanly(served: Node) -> None:
    """UDP and TCP on the same port; SIGTERM ends every process with exit code 0 within five seconds."""
    assert served.ask() == "10.0.0.1"
    wire = dns.query.tcp(dns.message.make_query("printer.office.test", "A"), "127.0.0.1", port=served.port, timeout=2)
    assert str(wire.answer[0][0]) == "10.0.0.1"
    pids = served.pids("worker") + served.pids("agent")
    assert len(pids) == 3 and all(alive(pid) for pid in pids)
    assert served.process is not None
    served.process.terminate()
    assert served.process.wait(5) == 0
    assert not any(alive(pid) for pid in pids)
    assert not (served.folder / "dnsd.pids").exists()


def test_questions_queued_at_a_killed_worker_are_answered(served: Node) -> None:
    """SIGKILL with a full queue: sibling and replacement read what the kernel has kept; nothing is lost."""
    victims = served.pids("worker")
    for pid in victims:
        os.kill(pid, signal.SIGSTOP)
    socks = burst(served.port, 200)
    for pid in victims:
        os.kill(pid, signal.SIGKILL)
    assert answered(socks, 4) == 200
    served.until(lambda: len(served.pids("worker")) == 2 and not set(served.pids("worker")) & set(victims))


def test_a_crash_loop_of_one_worker_loses_nobodys_questions(served: Node) -> None:
    """While a slot dies at every start its sibling reads its socket; when it can live again it serves."""
    (served.folder / "crash-0").touch()
    victims = served.pids("worker")
    os.kill(victims[0], signal.SIGKILL)
    os.kill(victims[1], signal.SIGKILL)
    served.until(lambda: served.log().count('"exit code 3"') >= 4)
    assert answered(burst(served.port, 100), 1.0) == 100
    deaths = [json.loads(line) for line in served.log().splitlines() if "exit code 3" in line]
    assert [death["pause_ms"] for death in deaths[:4]] in ([0, 50, 100, 200], [50, 100, 200, 400])
    (served.folder / "crash-0").unlink()
    served.until(lambda: len(served.pids("worker")) == 2)
    time.sleep(0.7)
    os.kill(served.pids("worker")[1], signal.SIGSTOP)
    assert answered(burst(served.port, 60), 0.5) > 10  # slot 0 answers its own share again
    os.kill(served.pids("worker")[1], signal.SIGCONT)


def test_a_replacement_has_the_table_although_the_agent_is_dead(served: Node) -> None:
    """The supervisor keeps the newest table; a worker forked while there is no agent serves at once."""
    (served.folder / "no-agent").touch()
    os.kill(served.pids("agent")[0], signal.SIGKILL)
    for pid in served.pids("worker"):
        os.kill(pid, signal.SIGKILL)
    started = time.monotonic()
    served.until(served.all_serve, 3)
    assert time.monotonic() - started < 2.5 and served.ask() == "10.0.0.1"
    (served.folder / "no-agent").unlink()
    served.publish("10.0.0.2")
    served.until(lambda: all(served.ask() == "10.0.0.2" for _ in range(12)))


def test_a_stuck_worker_is_killed_and_replaced(tmp_path: pathlib.Path) -> None:
    """A worker without a heartbeat is stuck: SIGKILL, and a new one takes its queue over."""
    with node(tmp_path) as made:
        made.publish()
        made.start(NODE_SILENT_MS="1500")
        victim = made.pids("worker")[0]
        os.kill(victim, signal.SIGSTOP)
        socks = burst(made.port, 50)
        made.until(lambda: "is stuck and is replaced" in made.log())
        assert answered(socks, 3) == 50
        made.until(lambda: not alive(victim) and victim not in made.pids("worker"))


def test_a_stuck_agent_is_killed_and_replaced(tmp_path: pathlib.Path) -> None:
    """An agent whose loop does not turn any more is replaced, workers serve on meanwhile, and its successor is heard."""
    with node(tmp_path) as made:
        made.publish()
        made.start(NODE_AGENT_SILENT_MS="1000")
        (victim,) = made.pids("agent")
        os.kill(victim, signal.SIGSTOP)
        assert made.ask() == "10.0.0.1"
        made.until(lambda: "the agent is stuck and is replaced" in made.log())
        made.until(lambda: not alive(victim) and bool(made.pids("agent")) and victim not in made.pids("agent"))
        made.publish("10.0.0.2")
        made.until(lambda: all(made.ask() == "10.0.0.2" for _ in range(12)))


def test_workers_outlive_the_supervisor_and_leave_when_another_is_up(served: Node) -> None:
    """SIGKILL of the supervisor: answers go on, siblings included; a new one takes over and nothing is lost."""
    assert served.process is not None
    orphans, agent = served.pids("worker"), served.pids("agent")[0]
    served.process.kill()
    served.process.wait()
    served.until(lambda: not alive(agent))
    assert answered(burst(served.port, 60), 2) == 60
    os.kill(orphans[0], signal.SIGKILL)  # nobody replaces it now; its sibling finds out by itself
    socks = burst(served.port, 60)
    assert answered(socks, 8) == 60
    with concurrent.futures.ThreadPoolExecutor() as pool:
        load = pool.submit(lambda: [served.ask() for _ in range(400) if not time.sleep(0.005)])
        served.start(wait=False)
        served.until(lambda: not alive(orphans[1]), 10)
        assert set(load.result()) == {"10.0.0.1"}
    served.until(lambda: len(served.pids("worker")) == 2 and all(alive(pid) for pid in served.pids("worker")))


def test_a_worker_that_comes_late_looks_for_its_table_before_it_gives_up(tmp_path: pathlib.Path) -> None:
    """Stopped until the wait for a table is over, with the table on its way meanwhile: the answer is no SERVFAIL."""
    with node(tmp_path, workers=1) as made:
        made.start(wait=False, NODE_WITHOUT_TABLE_MS="1500", NODE_SILENT_MS="9000")
        made.until(lambda: bool(made.said("hello")) and bool(made.pids("worker")))
        (worker,) = made.pids("worker")
        os.kill(worker, signal.SIGSTOP)
        made.publish()
        time.sleep(1.7)  # the wait that is to be over
        socks = burst(made.port, 5)
        os.kill(worker, signal.SIGCONT)
        for sock in socks:
            sock.settimeout(5)
            assert dns.message.from_wire(sock.recv(512)).rcode() == 0
            sock.close()


def test_a_worker_without_a_table_leaves_its_sockets_to_a_sibling_that_has_one(tmp_path: pathlib.Path) -> None:
    """As long as one of them can answer, nobody gets SERVFAIL; also when the supervisor died before all had theirs."""
    (tmp_path / "withhold-1").touch()
    with node(tmp_path) as made:
        made.publish()
        made.start(NODE_WITHOUT_TABLE_MS="800")
        end = time.monotonic() + 2.5  # three times as long as it waits for a table
        while time.monotonic() < end:
            assert made.ask() == "10.0.0.1"
        assert made.process is not None
        made.process.kill()
        made.process.wait()
        assert {made.ask() for _ in range(100)} == {"10.0.0.1"}


def test_a_second_supervisor_is_refused_in_one_sentence(served: Node) -> None:
    """While the first one lives the second says so, ends with 2, and disturbs nobody."""
    second = served.start(wait=False)
    assert second.wait(5) == 2
    sentence = served.log().splitlines()[-1]
    assert "another dnsd (pid" in sentence and "state directory" in sentence
    assert served.all_serve()


def test_a_port_in_use_is_named_with_its_holder(tmp_path: pathlib.Path) -> None:
    """Exit code 2 and one sentence that says which process has the port, also when it has SO_REUSEPORT."""
    for kind, option in ((socket.SOCK_DGRAM, 0), (socket.SOCK_STREAM, 0), (socket.SOCK_DGRAM, socket.SO_REUSEPORT)):
        with socket.socket(socket.AF_INET, kind) as holder:
            if option:
                holder.setsockopt(socket.SOL_SOCKET, option, 1)
            holder.bind(("127.0.0.1", 0))
            if kind == socket.SOCK_STREAM:
                holder.listen()
            with node(tmp_path, port=holder.getsockname()[1]) as made:
                assert made.start(wait=False).wait(5) == 2
                sentence = made.log().splitlines()[-1]
    assert "is in use by" in sentence and f"(pid {os.getpid()})" in sentence


def test_an_unknown_interface_is_refused_with_those_that_exist(tmp_path: pathlib.Path) -> None:
    """One sentence, exit code 2."""
    with node(tmp_path, listen=["eth77:5353"]) as made:
        assert made.start(wait=False).wait(5) == 2
        assert "no interface 'eth77'" in made.log() and "lo" in made.log()


@pytest.fixture
def public_folder() -> Iterator[pathlib.Path]:
    """A folder that other users can reach."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix="ndns-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def test_dnsd_becomes_its_user_before_its_first_socket(public_folder: pathlib.Path) -> None:
    """Every process runs as the user; the supervisor keeps one capability for a low port, the others none."""
    if os.geteuid() != 0:
        with node(public_folder, user="root") as made:
            assert made.start(wait=False).wait(5) == 2
            assert "only root can become user 'root'" in made.log()
        return
    low = next(port for port in range(700, 1000) if not _bound(port))
    with node(public_folder, port=low, user="nobody") as made:
        shutil.chown(public_folder, "nobody")
        made.publish()
        process = made.start()
        assert made.ask() == "10.0.0.1"
        supervisor = _status(process.pid)
        assert set(supervisor["Uid"].split()) == {"65534"} and int(supervisor["CapEff"], 16) == 1 << 10
        assert "0" not in supervisor["Groups"].split()
        for pid in made.pids("worker") + made.pids("agent"):
            status = _status(pid)
            assert set(status["Uid"].split()) == {"65534"}
            assert int(status["CapEff"], 16) == int(status["CapPrm"], 16) == 0 and status["NoNewPrivs"] == "1"
        os.kill(made.pids("worker")[0], signal.SIGKILL)  # replacements work without root too
        made.until(made.all_serve)


def test_a_low_port_without_permission_says_how_to_get_it(public_folder: pathlib.Path) -> None:
    """EACCES below ip_unprivileged_port_start: the sentence names setcap, systemd and sysctl."""
    low = next(port for port in range(700, 1000) if not _bound(port))
    made = Node(public_folder, port=low)
    shutil.chown(public_folder, "nobody") if os.geteuid() == 0 else None
    drop = {"user": "nobody", "extra_groups": []} if os.geteuid() == 0 else {}
    (public_folder / "p.py").write_text(
        "import sys\nfrom dnsd.serve import listener\n"
        f"try: listener.open_sockets([listener.place('127.0.0.1:{low}')], 1)\n"
        "except listener.ListenError as error: print(error); sys.exit(2)\n"
    )
    ran = subprocess.run(
        ["python3", str(public_folder / "p.py")], capture_output=True, text=True, check=False, cwd="/",
        env={**os.environ, "PYTHONPATH": str(pathlib.Path(__file__).resolve().parents[2])}, **drop,  # type: ignore[call-overload]
    )  # fmt: skip
    assert ran.returncode == 2, ran.stderr
    assert all(word in ran.stdout for word in ("setcap", "AmbientCapabilities", "sysctl", str(low)))
    made.close()


def test_hang_up_takes_new_settings_and_keeps_answering(served: Node) -> None:
    """SIGHUP: what can change does (the agent starts again), what cannot is named, bad settings are refused."""
    assert served.process is not None
    agent = served.pids("agent")[0]
    changed = {**served.settings, "allow": ["127.0.0.0/8"], "workers": 5}
    (served.folder / "settings.json").write_text(json.dumps(changed))
    served.process.send_signal(signal.SIGHUP)
    served.until(lambda: bool(served.pids("agent")) and served.pids("agent")[0] != agent)
    assert '"keys": ["workers"]' in served.log() and len(served.pids("worker")) == 2
    (served.folder / "settings.json").write_text(json.dumps({"listen": "nonsense"}))
    served.process.send_signal(signal.SIGHUP)
    served.until(lambda: "the settings are refused" in served.log())
    assert served.ask() == "10.0.0.1"


def test_without_a_table_a_node_waits_then_says_not_ready(tmp_path: pathlib.Path) -> None:
    """Questions wait unread for the first table; without one they get SERVFAIL with EDE 14."""
    with node(tmp_path) as made:
        made.start(wait=False, NODE_WITHOUT_TABLE_MS="1500")
        query = dns.message.make_query("printer.office.test", "A", use_edns=0)
        made.until(lambda: len(made.said("hello")) == 2)
        response = dns.query.udp(query, "127.0.0.1", port=made.port, timeout=5)
        assert response.rcode() == 2 and [int(option.code) for option in response.options] == [14]
        made.publish()
        made.until(lambda: made.ask() == "10.0.0.1")


def test_questions_wait_for_a_table_that_comes_in_time(tmp_path: pathlib.Path) -> None:
    """A question sent before the first table is answered from it."""
    with node(tmp_path) as made:
        made.start(wait=False)
        made.until(lambda: len(made.said("hello")) == 2)
        socks = burst(made.port, 20)
        time.sleep(0.2)
        made.publish()
        assert answered(socks, 3) == 20


_DEVICE_SCRIPT = """
import os, pathlib, subprocess, sys
sys.path.insert(0, sys.argv[1])
from tests.serve.node import node

def sh(line):
    subprocess.run(line, shell=True, check=True)

other = subprocess.Popen(["unshare", "-n", "sh", "-c", "echo; exec sleep 60"], stdout=subprocess.PIPE)
other.stdout.readline()
there = f"nsenter -n -t {other.pid}"

def cable():
    sh(f"ip link add d0 type veth peer name d1; ip link set d1 netns {other.pid}; ip addr add 10.99.0.1/24 dev d0")
    sh(f"ip link set d0 up; {there} ip addr add 10.99.0.2/24 dev d1; {there} ip link set d1 up")

def dig(how):
    line = f"{there} dig +short +time=1 +tries=1 {how} @10.99.0.1 -p 5353 printer.office.test"
    return subprocess.run(line.split(), capture_output=True, text=True).stdout.strip()

try:
    sh("ip link set lo up")
    cable()
    with node(pathlib.Path(sys.argv[2]), listen=["d0:5353"]) as made:
        made.publish()
        made.start(wait=False)
        made.until(lambda: dig("") == "10.0.0.1")
        sh("ip link del d0")
        cable()
        made.until(lambda: "is listened on again" in made.log())
        made.until(lambda: dig("") == "10.0.0.1" and dig("+tcp") == "10.0.0.1")
        print("fine")
finally:
    other.kill()
"""


def test_an_interface_that_is_made_anew_is_listened_on_again(tmp_path: pathlib.Path) -> None:
    """The sockets of `d0:5353` die with d0; when another d0 appears both transports answer on it."""
    (tmp_path / "script.py").write_text(_DEVICE_SCRIPT)
    root = str(pathlib.Path(__file__).resolve().parents[2])
    unshare = ["unshare", "-n"] if os.geteuid() == 0 else ["unshare", "-rn"]
    ran = subprocess.run(
        [*unshare, sys.executable, str(tmp_path / "script.py"), root, str(tmp_path)],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert ran.stdout.strip().endswith("fine"), ran.stdout + ran.stderr


def _bound(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        if os.geteuid() != 0:
            return False
        try:
            sock.bind(("127.0.0.1", port))
        except OSError:
            return True
    return False


def _status(pid: int) -> dict[str, str]:
    lines = pathlib.Path(f"/proc/{pid}/status").read_text().splitlines()
    return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}


def test_two_nodes_on_different_ports_do_not_meet(served: Node, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Another state directory and another port: both serve."""
    with node(tmp_path_factory.mktemp("other"), workers=1, port=free_port()) as other:
        other.publish("10.9.9.9")
        other.start()
        assert other.ask() == "10.9.9.9" and served.ask() == "10.0.0.1"
