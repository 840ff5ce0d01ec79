"""Read ND2, CZI, LIF, OIB and OIR files with bioio and its plugin for the format."""

from __future__ import annotations

from ..errors import SourceError
from .objects import bioio_metadata
from .paths import Found
from .stack import Options, Stack, library, one_of

#: bioio plugin by file suffix.
_PLUGINS = {"nd2": "bioio-nd2", "czi": "bioio-czi", "lif": "bioio-lif", "oib": "bioio-bioformats"}


def open_files(found: Found, options: Options) -> Stack:
    """Open the images in a microscope file."""
    [name] = found.names
    bioio = library("bioio", "microscopes", "files of ND2, CZI and the like")
    try:
        image = bioio.BioImage(name)
    except Exception as error:  # plugins raise errors of any type
        if type(error).__name__ != "UnsupportedFileFormatError":
            raise
        plugin = _PLUGINS.get(name.rpartition(".")[2].lower(), "bioio-bioformats")
        raise SourceError(f"{name} needs the plugin of bioio for it: pip install {plugin}") from error
    scenes = list(map(str, image.scenes))
    if len(scenes) > 1:
        image.set_scene(one_of("P", scenes, options, name, names=scenes))
    array = image.get_image_dask_data("TCZYX")
    return Stack(
        name,
        "TCZYX",
        array.shape,
        array.dtype,
        read=lambda index: array[index].compute(),
        metadata=bioio_metadata(image, volumes=array.shape[2] > 1),
        chosen="P" if len(scenes) > 1 else "",
    )
