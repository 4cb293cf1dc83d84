"""``python -m osml_tasks``: the command line."""

from osml_tasks.cli import main

if __name__ == "__main__":
    main()
