"""The child process that runs papermill: `python -m lib.reporting.kernel <job.json>`. Started by notebooks.py only.

It stands between the command and the kernel, so that neither a kernel that eats all memory nor a papermill that hangs
takes the command down. It imports what the `reports` extra installs, and nothing imports it.
"""

import json
import sys
from pathlib import Path
from typing import Any

import papermill
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager
from nbclient.exceptions import CellTimeoutError, DeadKernelError
from papermill.exceptions import PapermillExecutionError
from traitlets.config import Config


class OwnKernelManager(AsyncKernelManager):
    """Starts this very Python as kernel, whatever kernels are installed, and talks to it over sockets in a folder.

    Not over TCP, where another kernel may take a port between its choice and its use (papermill #511); and not over
    sockets of the default name, which kernels of one working directory share.
    """

    @property
    def kernel_spec(self) -> KernelSpec:
        """A specification that no folder of kernels needs to hold."""
        argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        return KernelSpec(argv=argv, display_name="Python 3", language="python")


def run(job: dict[str, Any]) -> str:
    """Execute the notebook as `job` says. Returns why it stopped, as one sentence; empty if it came to its end."""
    sockets = {"transport": "ipc", "ip": str(Path(job["folder"]) / "ipc")}
    try:
        papermill.execute_notebook(
            job["source"],
            job["target"],
            job["parameters"],
            kernel_name="python3",
            language="python",
            kernel_manager_class=OwnKernelManager,
            config=Config({"OwnKernelManager": sockets}),
            cwd=job["cwd"],
            execution_timeout=job["cell_timeout_s"],
            autosave_cell_every=5,
            start_timeout=120,
            progress_bar=False,
        )
    except PapermillExecutionError as error:
        return f"{error.ename}: {error.evalue}"
    except DeadKernelError:
        return "kernel died (out of memory, or killed)"
    except CellTimeoutError:
        return f"time-out: the cell ran longer than {job['cell_timeout_s']} s"
    except Exception as error:  # whatever papermill or the kernel's start throws is a reason to be told
        return f"{type(error).__name__}: {error}"
    return ""


if __name__ == "__main__":
    described = json.loads(Path(sys.argv[1]).read_text())
    Path(described["reason"]).write_text(run(described))
