"""The pages of a PDF as PNG pictures."""

from pathlib import Path

from station.report.errors import ReportError

POINTS_PER_INCH = 72


def write_pages(pdf_path: Path, folder: Path, dpi: int = 100) -> list[Path]:
    """Write each page as `<name>_page1.png`, ... into a folder; the paths, in order.

    Raises:
        ReportError: the PDF cannot be read.
    """
    import pypdfium2

    try:
        document = pypdfium2.PdfDocument(pdf_path)
    except (pypdfium2.PdfiumError, FileNotFoundError) as error:
        raise ReportError(f"{pdf_path}: not a readable PDF ({error})") from error
    paths = []
    try:
        for number in range(len(document)):
            path = folder / f"{pdf_path.stem}_page{number + 1}.png"
            document[number].render(scale=dpi / POINTS_PER_INCH).to_pil().save(path)
            paths.append(path)
    finally:
        document.close()
    return paths
