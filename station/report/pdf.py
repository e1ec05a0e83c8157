"""HTML to PDF by WeasyPrint, in a process of its own: its libraries, memory and faults stay out of the
station."""

import subprocess
import sys
from pathlib import Path

from station.report.errors import ReportError

TIMEOUT_S = 120.0


def write_pdf(html_path: Path, pdf_path: Path, timeout_s: float = TIMEOUT_S) -> None:
    """Print an HTML file. `pdf_path` appears whole or not at all.

    Raises:
        ReportError: WeasyPrint or its system libraries are missing, it failed, or it took longer than
            `timeout_s`.
    """
    temporary = pdf_path.with_name(pdf_path.name + ".tmp")
    command = [sys.executable, "-m", "station.report.pdf", str(html_path), str(temporary)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False)
        if done.returncode != 0:
            last = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
            raise ReportError(
                f"{pdf_path}: could not be printed ({last[-1]}); the HTML beside it is complete"
            )
        temporary.replace(pdf_path)
    except subprocess.TimeoutExpired as error:
        raise ReportError(
            f"{pdf_path}: took longer than {timeout_s:g} s and was stopped; the HTML is complete"
        ) from error
    except OSError as error:
        raise ReportError(
            f"{pdf_path}: cannot be written ({error.strerror}); choose another folder with --out"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def _print(html_path: str, pdf_path: str) -> None:
    try:
        from weasyprint import HTML
    except OSError as error:
        sys.exit(f"{error}: install libpango-1.0-0 libpangoft2-1.0-0 libharfbuzz-subset0")
    HTML(filename=html_path).write_pdf(pdf_path)


if __name__ == "__main__":
    _print(*sys.argv[1:])
