import sys

from sb3_trmrl.__main__ import main

if __name__ == "__main__":
    sys.exit(main(["enjoy", *sys.argv[1:]]))
