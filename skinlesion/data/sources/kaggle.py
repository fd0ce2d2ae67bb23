"""The copy of HAM10000 on Kaggle, through Kaggle's own package and its own credentials."""

import zipfile
from functools import partialmethod
from pathlib import Path
from typing import Any

import requests

from skinlesion.base.errors import PipelineError
from skinlesion.base.web import is_page, name_response, user_agent

SLUG = "kmader/skin-cancer-mnist-ham10000"
OTHER_SOURCES = (
    f"A browser may get it: download the archive from https://www.kaggle.com/datasets/{SLUG}, then set download.source=local and "
    "download.path to it. Without a Kaggle account: download.source=dataverse (the original, no account needed), local (a copy "
    "that you have) or sample (synthetic images)"
)


def download(folder: Path) -> None:
    """Bring the data set's archive into `folder`; Kaggle's package goes on where an earlier run was cut.

    Raises
    ------
    PipelineError
        No accepted credentials, or whatever made Kaggle's package fail.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        # Importing `kaggle` logs in, so it is imported only here; without credentials, or with refused ones, it calls exit().
        from kagglesdk import KaggleClient

        # The package gives no name at all, which firewalls refuse.
        KaggleClient.__init__ = partialmethod(KaggleClient.__init__, user_agent=user_agent())
        from kaggle.api.kaggle_api_extended import KaggleApi

        class Api(KaggleApi):  # type: ignore[misc]  # Kaggle's package has no types
            def download_needed(self, response: requests.Response, *rest: Any) -> bool:
                """Refuse what the package would save as the archive: a page, or whatever came under another status than 200."""
                if response.status_code != 200 or is_page(b"", response.headers.get("Content-Type")):
                    raise requests.HTTPError(response=response)
                return bool(super().download_needed(response, *rest))

        api = Api()
        api.authenticate()
        api.dataset_download_files(SLUG, path=str(folder), quiet=False)
    except SystemExit:
        raise PipelineError(
            "there are no credentials that Kaggle accepts, or a firewall before it refuses them (HTTP 403). Create a token at "
            "https://www.kaggle.com/settings/api and put it in the environment variable KAGGLE_API_TOKEN or the file "
            "~/.kaggle/access_token (or a legacy key in KAGGLE_USERNAME and KAGGLE_KEY, or ~/.kaggle/kaggle.json), or run "
            f"`kaggle auth login`. {OTHER_SOURCES}"
        ) from None
    except Exception as error:  # the package lets through whatever its libraries raise
        raise PipelineError(
            f"Kaggle's package could not download {SLUG} ({type(error).__name__}: {_cause(error)}). Check the network, the space "
            f"and the credentials, then run the same command again: it goes on where it was cut. {OTHER_SOURCES}"
        ) from error
    archive = folder / f"{SLUG.split('/')[1]}.zip"
    if not zipfile.is_zipfile(archive):
        archive.unlink(missing_ok=True)
        raise PipelineError(
            f"Kaggle sent no usable {archive.name}; what had come was deleted, run the same command again. {OTHER_SOURCES}"
        )


def _cause(error: Exception) -> str:
    """What an answer was, where the error has one; else what the error says."""
    answer = getattr(error, "response", None)
    return str(error) if answer is None else name_response(answer)[0]
