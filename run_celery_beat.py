"""The platform's command for beat: ``scanherald beat``."""

import sys

from cli.main import main

if __name__ == "__main__":
    sys.argv[1:1] = ["beat"]
    main()
