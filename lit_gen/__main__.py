"""``python -m lit_gen`` is ``lit-gen``."""

import sys

from lit_gen.cli.command import main

sys.exit(main())
