"""Objects of a PDF file as ready bytes, for reportlab to number and write.

Put together from its nested dictionaries, those that every page and font needs
took a third of the whole report's time.
"""

from __future__ import annotations

import zlib
from typing import Any, TypeAlias

from reportlab.pdfbase.pdfdoc import DummyDoc, PDFObject, PDFString

Document: TypeAlias = Any
"""reportlab's PDFDocument, whose types leave out what is needed here."""

ESCAPED = str.maketrans({"\\": "\\\\", "(": "\\(", ")": "\\)"})
"""What a string of a PDF writes otherwise, for ``str.translate``."""


class Ready(PDFObject):
    """An object whose bytes are made by us, by the time that the file is written."""

    content = b""

    def format(self, _document: Document) -> bytes:
        """Called by reportlab when it writes the file."""
        return self.content


def reserve(document: Document, made: Ready) -> int:
    """Give an object its number, so that others may refer to it before it has content."""
    document.Reference(made)
    number: int = document.objectcounter
    return number


def add(document: Document, content: bytes) -> int:
    """A new object of the document: its number."""
    made = Ready()
    made.content = content
    return reserve(document, made)


def reference(document: Document, known: PDFObject) -> str:
    """How others refer to an object of reportlab's."""
    shown: bytes = document.Reference(known).format(document)
    return shown.decode("ascii")


def stream(content: bytes, level: int, more: str = "") -> bytes:
    """A compressed stream, with ``more`` entries in its dictionary."""
    packed = zlib.compress(content, level)
    head = f"<< /Filter /FlateDecode /Length {len(packed)}{more} >>\nstream\n"
    return b"".join((head.encode("ascii"), packed, b"\nendstream"))


def literal(text: str) -> str:
    """The string that a reader shows as ``text``, in ASCII."""
    if text.isascii() and text.isprintable():
        return f"({text.translate(ESCAPED)})"
    shown: bytes = PDFString(text).format(DummyDoc())
    return shown.decode("ascii")
