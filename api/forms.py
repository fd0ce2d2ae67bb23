"""Multipart forms by Starlette's parser, with its limits, in memory alone: no byte of an image is written to a disk."""

from typing import TypeVar

from fastapi import Request
from pydantic import BaseModel, ValidationError
from python_multipart.multipart import parse_options_header
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from api.problems import Problem
from skinlesion.base.errors import brief, suggest

MAX_FIELD_BYTES = 1000
LONGEST_NAME = 200  # characters of a file's name that an answer repeats

Fields = TypeVar("Fields", bound=BaseModel)


class InMemoryParser(MultiPartParser):
    """Starlette's parser, which never moves a file to the disk, and tells a whole body from one that was cut."""

    spool_max_size = 0  # bytes of a file from which it would be moved; 0: never
    ended = False

    def on_end(self) -> None:
        """Called at the last boundary."""
        self.ended = True


async def read_form(request: Request, model: type[Fields], *, file_field: str, max_files: int) -> tuple[list[UploadFile], Fields]:
    """The files of a request, at least one and in their order, and its fields.

    The name of a file is cut to `LONGEST_NAME`, and is only repeated in the answer, never used as a path.

    model : of the fields. file_field : name of the parts that are files.

    Raises
    ------
    Problem
        The body is not multipart/form-data, is damaged or beyond a limit, or a part is not known or not valid.
    ClientDisconnect
        The client went away.
    """
    kind, options = parse_options_header(request.headers.get("content-type", ""))
    if kind != b"multipart/form-data" or not options.get(b"boundary"):
        raise Problem(
            "not-multipart", f"Send the image as multipart/form-data with a boundary, as `curl -F {file_field}=@image.jpg` does."
        )
    names = list(model.model_fields)
    parser = InMemoryParser(
        request.headers, request.stream(), max_files=max_files, max_fields=len(names), max_part_size=MAX_FIELD_BYTES
    )
    try:
        form = await parser.parse()
    except MultiPartException as error:
        raise _of_parser(error) from None
    if not parser.ended:
        raise Problem("malformed", "The body ends before its last boundary: send it again.")
    files: list[UploadFile] = []
    fields: dict[str, str] = {}
    for name, value in form.multi_items():
        if isinstance(value, UploadFile):
            if name != file_field:
                raise Problem("invalid", f"The part {brief(name)} is a file: send files under the name '{file_field}'.")
            value.filename = (value.filename or "")[:LONGEST_NAME]
            files.append(value)
        else:
            _check_field(name, [file_field, *names], taken=fields)
            fields[name] = value
    if not files:
        raise Problem(
            "invalid", f"There is no file: send one under the name '{file_field}', as `curl -F {file_field}=@image.jpg` does."
        )
    return files, _parse_fields(model, fields)


def _of_parser(error: MultiPartException) -> Problem:
    """The problem that Starlette's parser found."""
    if error.message.startswith("Too many"):
        return Problem("too-many-files", f"{error.message} Send fewer, or several requests.")
    if error.message.startswith("Part exceeded"):
        return Problem("invalid", f"A field has more than {MAX_FIELD_BYTES} bytes: shorten it, or send it as a file.")
    return Problem("malformed", f"The body is not valid multipart/form-data: {error.message} Send it again.")


def _check_field(name: str, known: list[str], *, taken: dict[str, str]) -> None:
    """known : names of all parts, the one of the files first."""
    if name == known[0]:
        raise Problem("invalid", f"'{name}' has no file name: send it as a file, as `curl -F {name}=@image.jpg` does.")
    if name not in known:
        near = suggest(name, known)
        raise Problem("invalid", f"There is no field {brief(name)}{near}; known: {', '.join(known)}.")
    if name in taken:
        raise Problem("invalid", f"The field '{name}' is there twice: send it once, it holds for all files.")


def _parse_fields(model: type[Fields], fields: dict[str, str]) -> Fields:
    try:
        return model.model_validate(fields)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise Problem("invalid", f"The field '{first['loc'][0]}': {first['msg']}; leave it out if it is not known.") from None
