import sys

from sb3_trmrl.__main__ import run

if __name__ == "__main__":
    run(["train", *sys.argv[1:]])
