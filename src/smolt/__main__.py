"""`smolt`, and `python -m smolt`. Until a command listens, Ctrl-C ends the process at once and without a traceback."""

import signal


def main() -> None:
    """Run the command line."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # a shell's background job ignores it
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from smolt.cli import main as command_line

    command_line()


if __name__ == "__main__":
    main()
