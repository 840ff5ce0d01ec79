"""``python -m dj_photon_codecs`` is the command ``dj-photon``."""

import sys

from .cli import main

if __name__ == "__main__":
    sys.exit(main())
