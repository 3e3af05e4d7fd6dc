"""The platform's command for a worker: ``scanherald worker`` with the same options."""

import sys

from cli.main import main

if __name__ == "__main__":
    sys.argv[1:1] = ["worker"]
    main()
