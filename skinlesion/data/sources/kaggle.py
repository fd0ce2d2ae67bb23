"""The copy of HAM10000 on Kaggle, through Kaggle's own package and its own credentials."""

from __future__ import annotations

import zipfile
from pathlib import Path

from skinlesion.base.errors import PipelineError

SLUG = "kmader/skin-cancer-mnist-ham10000"
OTHER_SOURCES = (
    "Without a Kaggle account: download.source=dataverse (the original, no account needed), local (a copy that you have) or "
    "sample (synthetic images)"
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
        from kaggle.api.kaggle_api_extended import KaggleApi

        api = KaggleApi()
        api.authenticate()
        api.dataset_download_files(SLUG, path=str(folder), quiet=False)
    except SystemExit:
        raise PipelineError(
            "there are no credentials that Kaggle accepts. Create a token at https://www.kaggle.com/settings/api and put it in "
            "the environment variable KAGGLE_API_TOKEN or the file ~/.kaggle/access_token (or a legacy key in KAGGLE_USERNAME "
            f"and KAGGLE_KEY, or ~/.kaggle/kaggle.json), or run `kaggle auth login`. {OTHER_SOURCES}"
        ) from None
    except Exception as error:  # the package lets through whatever its libraries raise
        raise PipelineError(
            f"Kaggle's package could not download {SLUG} ({type(error).__name__}: {error}). Check the network, the space and "
            f"the credentials, then run the same command again: it goes on where it was cut. {OTHER_SOURCES}"
        ) from error
    archive = folder / f"{SLUG.split('/')[1]}.zip"
    if not zipfile.is_zipfile(archive):
        archive.unlink(missing_ok=True)
        raise PipelineError(f"Kaggle sent no usable {archive.name}; what had come was deleted, run the same command again")
