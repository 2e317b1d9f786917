"""A SLURM of one controller and two nodes on this machine, for as long as a command runs.

    python tests/slurm/cluster.py                   a shell on it: sinfo, sbatch, fullrank train ... --slurm
    python tests/slurm/cluster.py pytest tests/slurm

It wants root, and Debian's packages slurm-wlm and munge, whose services need not run:

    apt-get install --no-install-recommends slurm-wlm munge

All that it writes lies in a directory of its own, which goes with it.
"""

from __future__ import annotations

import ctypes
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

NODES = ("node1", "node2")
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scancel", "scontrol")
PLACES = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"))
LIFETIME = 30  # seconds of a credential, in which its job does not start again
PATIENCE = 60.0  # seconds in which a cluster is up, or empty

# neither cgroups nor systemd are asked for, so that it runs within containers
CONFIG = """\
ClusterName=fullrank-test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire={lifetime}
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
ReturnToService=2
KillWait=30
NodeName={nodes[0]} NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=2 State=UNKNOWN
NodeName={nodes[1]} NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=2 State=UNKNOWN
PartitionName=main Nodes={nodes[0]},{nodes[1]} Default=YES MaxTime=INFINITE State=UP
"""


def missing() -> str:
    """Why there can be no cluster here; empty where there can."""
    if not hasattr(os, "geteuid") or os.geteuid():
        return "a SLURM of its own needs root"
    absent = [name for name in PROGRAMS if shutil.which(name, path=PLACES) is None]
    return f"no {', '.join(absent)} here: apt-get install slurm-wlm munge" if absent else ""


@dataclass(frozen=True)
class Cluster:
    """A cluster that is up.

    Attributes:
        folder: all that it writes.
        environment: of the processes that are to use it.
    """

    folder: Path
    environment: Mapping[str, str]

    def ask(self, *words: str) -> str:
        """What one of SLURM's programs prints.

        Raises:
            subprocess.CalledProcessError: it fails.
        """
        done = subprocess.run(
            words,
            env=dict(self.environment),
            capture_output=True,
            text=True,
            check=True,
            timeout=2 * PATIENCE,
        )
        return done.stdout

    def states(self) -> dict[str, str]:
        """The state of every job that waits or runs, by its number."""
        lines = self.ask("squeue", "--noheader", "--array", "--format=%i|%T").splitlines()
        return dict(line.split("|") for line in lines)

    def logs(self, size: int = 600) -> str:
        """The ends of what its services wrote."""
        logs = sorted(self.folder.glob("*.log")) + sorted(self.folder.glob("*.out"))
        return "\n".join(f"{log.name}: {log.read_text()[-size:]}" for log in logs)


@contextmanager
def running_cluster() -> Iterator[Cluster]:
    """Start a cluster; end it, its jobs and its files with the context.

    Raises:
        RuntimeError: it does not come up; the end of its logs is in the message.
    """
    folder = Path(tempfile.mkdtemp(prefix="slurm-", dir="/tmp"))  # short, for the name of a socket
    config = folder / "slurm.conf"
    environment = {
        **{key: value for key, value in os.environ.items() if not key.startswith("SLURM")},
        "PATH": PLACES,
        "SLURM_CONF": str(config),
        "MASTER_ADDR": "127.0.0.1",  # the nodes' names are known to nobody else
    }
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        before = signal.signal(signal.SIGTERM, signal.default_int_handler)  # who is ended ends it all
        stack.callback(signal.signal, signal.SIGTERM, before)
        (folder / "state").mkdir()
        key = folder / "munge.key"
        key.write_bytes(secrets.token_bytes(1024))
        key.chmod(0o400)
        ports = _free_ports(3)
        names = {"host": socket.gethostname(), "folder": folder, "nodes": NODES}
        config.write_text(CONFIG.format(**names, ports=ports, lifetime=LIFETIME))
        cluster = Cluster(folder, environment)
        munge = [f"--{name}={folder}/{file}" for name, file in _MUNGE.items()]
        _start(stack, cluster, ["munged", "--foreground", "--force", *munge])
        _wait_until((folder / "munge.socket").exists, cluster)
        _start(stack, cluster, ["slurmctld", "-D", "-c"])
        for node in NODES:
            _start(stack, cluster, ["slurmd", "-D", "-N", node])
        _wait_until(lambda: _is_up(cluster), cluster)
        stack.callback(_empty, cluster)
        yield cluster


_MUNGE = {
    "socket": "munge.socket", "key-file": "munge.key", "pid-file": "munged.pid", "seed-file": "munge.seed",
    "log-file": "munged.log",
}  # fmt: skip


def _start(stack: ExitStack, cluster: Cluster, words: list[str]) -> None:
    program = shutil.which(words[0], path=PLACES)
    log = stack.enter_context((cluster.folder / f"{words[0]}-{words[-1]}.out".replace("/", "_")).open("w"))
    process = subprocess.Popen(
        [str(program), *words[1:]],
        env=dict(cluster.environment),
        stdout=log,
        stderr=log,
        stdin=subprocess.DEVNULL,
        start_new_session=True,
        preexec_fn=_end_with_parent,
    )
    stack.callback(_end, process)


def _end_with_parent() -> None:
    """Have the kernel end a service where this process is killed."""
    ctypes.CDLL(None).prctl(1, signal.SIGTERM, 0, 0, 0)  # PR_SET_PDEATHSIG


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _is_up(cluster: Cluster) -> bool:
    words = ["sinfo", "--noheader", "--Node", "--format=%N %T"]
    done = subprocess.run(words, env=dict(cluster.environment), capture_output=True, text=True, check=False)
    return done.returncode == 0 and all(f"{node} idle" in done.stdout for node in NODES)


def _empty(cluster: Cluster) -> None:
    """End every job, so that none outlives its cluster."""
    if cluster.states():
        cluster.ask("scancel", "--me", "--signal=KILL", "--full")
        cluster.ask("scancel", "--me")
        end = time.monotonic() + PATIENCE
        while cluster.states() and time.monotonic() < end:
            time.sleep(0.2)


def _wait_until(holds: Callable[[], bool], cluster: Cluster) -> None:
    end = time.monotonic() + PATIENCE
    while not holds():
        if time.monotonic() > end:
            raise RuntimeError(f"SLURM does not come up:\n{cluster.logs()}")
        time.sleep(0.1)


def _free_ports(number: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(number)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in sockets]


def main() -> int:
    """Run a command, or a shell, on a cluster; return its exit code."""
    if why := missing():
        print(f"no SLURM: {why}", file=sys.stderr)
        return 1
    with running_cluster() as cluster:
        words = sys.argv[1:] or [os.environ.get("SHELL", "bash")]
        return subprocess.run(words, env=dict(cluster.environment), check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
