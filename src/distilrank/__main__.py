"""`python -m distilrank` is the command line."""

from distilrank.cli import main

main()
